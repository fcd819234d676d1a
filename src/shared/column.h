/*-------------------------------------------------------------------------
 *
 * column.h
 *		The columns of the warehouse, by the settings; a part of
 *		warehouse.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_COLUMN_H
#define DMU_COLUMN_H

#include "postgres.h"

/* What a column is for; each has a setting. */
typedef enum DmuColumnUse
{
	DMU_FACTS_USER,				/* facts_user_column, the key in the facts */
	DMU_FACTS_TIME,				/* facts_time_column */
	DMU_USERS_KEY,				/* users_key_column */
	DMU_USERS_FLAG,				/* users_flag_column */
	DMU_USERS_SINCE				/* users_since_column, which need not be set */
} DmuColumnUse;

/*
 * Texts are palloc'd; empty (all NULL) before dmu_column_read(), and after it
 * where the setting is empty.
 */
typedef struct DmuColumn
{
	char	   *name;			/* as the catalog has it */
	char	   *quoted;			/* the same, as SQL needs it */
} DmuColumn;

/*
 * What the setting says, in the current context, looked up nowhere.  Raises
 * 42602 invalid_name.
 */
extern void dmu_column_read(DmuColumnUse use, DmuColumn *column);

/*
 * Makes sure that the relation, which "setting" names, has the column, and
 * returns its base type.  Raises 42703 undefined_column, 42804
 * datatype_mismatch, and 55000 for a flag that is generated.
 */
extern Oid	dmu_column_require(DmuColumnUse use, const DmuColumn *column,
							   Oid relation, const char *setting,
							   const char *relation_name);

/* How hints call the setting. */
extern const char *dmu_column_setting(DmuColumnUse use);

#endif							/* DMU_COLUMN_H */
