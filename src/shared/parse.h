/*-------------------------------------------------------------------------
 *
 * parse.h
 *		The texts that string settings hold, taken apart.  All of these return
 *		false for a text that has not the form; what they hand out is palloc'd
 *		in the current context, and they look nothing up.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PARSE_H
#define DMU_PARSE_H

#include "postgres.h"

#include "nodes/pg_list.h"

/* One "name = value" of worker_settings. */
typedef struct DmuWorkerSetting
{
	char	   *name;
	char	   *value;
} DmuWorkerSetting;

/*
 * A name that may be quoted and may have a schema; "schema" gets NULL where
 * it has none.
 */
extern bool dmu_parse_name(const char *string, char **schema, char **name);

/* The same without a schema: what a column can be called. */
extern bool dmu_parse_column(const char *string, char **name);

/*
 * Such a name with or without the types of all arguments in parentheses;
 * "argtypes" gets their texts, NIL where there are none.
 */
extern bool dmu_parse_procedure(const char *string, char **schema,
								char **name, List **argtypes);

/* A list of "name = value"; "settings" gets them as DmuWorkerSetting. */
extern bool dmu_parse_parameters(const char *string, List **settings);

/*
 * Exactly n numbers from min (not negative) to max, all ascending (direction
 * 1) or all descending (direction -1).
 */
extern bool dmu_parse_numbers(const char *string, int n, int min, int max,
							  int direction, int *numbers);

#endif							/* DMU_PARSE_H */
