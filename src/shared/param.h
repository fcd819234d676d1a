/*-------------------------------------------------------------------------
 *
 * param.h
 *		Values in C as parameters of a statement.
 *
 *		Those that are not passed by value are palloc'd in the current memory
 *		context.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PARAM_H
#define DMU_PARAM_H

#include "postgres.h"

#include "utils/timestamp.h"

/* One parameter of a statement. */
typedef struct DmuParam
{
	Oid			type;
	Datum		value;
	bool		isnull;
} DmuParam;

/*
 * The parameters of a statement, written beside it: stands for two arguments,
 * their number and the first of them.
 */
#define DMU_PARAMS(...) \
	(int) lengthof(((DmuParam[]) {__VA_ARGS__})), \
	(DmuParam[]) {__VA_ARGS__}

extern DmuParam dmu_param_oid(Oid value);
extern DmuParam dmu_param_int4(int32 value);
extern DmuParam dmu_param_int8(int64 value);
extern DmuParam dmu_param_float8(double value);
extern DmuParam dmu_param_timestamptz(TimestampTz value);

/* Null for a null pointer. */
extern DmuParam dmu_param_text(const char *text);

extern DmuParam dmu_param_interval(int64 usec);
extern DmuParam dmu_param_array(Oid element_type, Datum *elements, int n);
extern DmuParam dmu_param_int8_array(const int64 *values, int n);

/* The same if a condition holds, and else null. */
extern DmuParam dmu_param_if(bool known, DmuParam param);
extern DmuParam dmu_param_null(Oid type);

/* An interval without days and months. */
extern Datum dmu_interval(int64 usec);

#endif							/* DMU_PARAM_H */
