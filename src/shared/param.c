/*-------------------------------------------------------------------------
 *
 * param.c
 *		Values in C as parameters of a statement.
 *
 *		This file runs no SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "param.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static DmuParam
param(Oid type, Datum value)
{
	DmuParam	result = {.type = type,.value = value};

	return result;
}

DmuParam
dmu_param_null(Oid type)
{
	DmuParam	result = {.type = type,.isnull = true};

	return result;
}

DmuParam
dmu_param_if(bool known, DmuParam param)
{
	return known ? param : dmu_param_null(param.type);
}

DmuParam
dmu_param_oid(Oid value)
{
	return param(OIDOID, ObjectIdGetDatum(value));
}

DmuParam
dmu_param_int4(int32 value)
{
	return param(INT4OID, Int32GetDatum(value));
}

DmuParam
dmu_param_int8(int64 value)
{
	return param(INT8OID, Int64GetDatum(value));
}

DmuParam
dmu_param_float8(double value)
{
	return param(FLOAT8OID, Float8GetDatum(value));
}

DmuParam
dmu_param_timestamptz(TimestampTz value)
{
	return param(TIMESTAMPTZOID, TimestampTzGetDatum(value));
}

DmuParam
dmu_param_text(const char *text)
{
	if (text == NULL)
		return dmu_param_null(TEXTOID);
	return param(TEXTOID, CStringGetTextDatum(text));
}

Datum
dmu_interval(int64 usec)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = usec;
	return IntervalPGetDatum(interval);
}

DmuParam
dmu_param_interval(int64 usec)
{
	return param(INTERVALOID, dmu_interval(usec));
}

DmuParam
dmu_param_array(Oid element_type, Datum *elements, int n)
{
	int16		length;
	bool		byval;
	char		align;

	get_typlenbyvalalign(element_type, &length, &byval, &align);
	return param(get_array_type(element_type),
				 PointerGetDatum(construct_array(elements, n, element_type,
												 length, byval, align)));
}

DmuParam
dmu_param_int8_array(const int64 *values, int n)
{
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));
	DmuParam	result;

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(values[i]);
	result = dmu_param_array(INT8OID, elements, n);
	pfree(elements);
	return result;
}
