/*-------------------------------------------------------------------------
 *
 * adopt.h
 *		Rows of ours whose users table has another oid or another name by now.
 *
 *		Both functions need a transaction, and a caller who has made sure that
 *		the current role may update the flag of the users table.  "users_name"
 *		is its qualified and quoted name.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_ADOPT_H
#define DMU_ADOPT_H

#include "postgres.h"

#include "warehouse.h"

/*
 * SQL: a row of one of our tables, by its alias, that stands under the name $2
 * and under an oid that is not $1, nor that of any other users table.
 */
#define DMU_ORPHANED(alias) \
	alias ".users_table = $2 AND " alias ".users_oid <> $1" \
	" AND 2 > (SELECT count(*) FROM pg_attribute a" \
	"           WHERE a.attrelid = " alias ".users_oid AND NOT a.attisdropped" \
	"             AND a.attname IN ('" DMU_COL_USER_KEY "', '" DMU_COL_MODIFIED "'))"

/* The failures. */
extern void dmu_adopt_failures(Oid users, const char *users_name);

/*
 * The history as well.  Only for the holder of the cycle lock: the row of a
 * running cycle is its coordinator's.
 */
extern void dmu_adopt_all(Oid users, const char *users_name);

#endif							/* DMU_ADOPT_H */
