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

#include "access/transam.h"

/*
 * SQL: a row of one of our tables, by its alias, that stands under the name $2
 * and under an oid that is not $1, nor that of anything that could be another
 * users table: it has a column that could be the key and one that could be
 * the flag.  What they are called is for whoever uses that table to say, so
 * the settings of the current role must not decide.
 */
#define DMU_ORPHANED(alias) \
	alias ".users_table = $2 AND " alias ".users_oid <> $1" \
	" AND (SELECT bool_or(a.atttypid IN (20, 21, 23) OR t.typtype = 'd')" \
	"         AND bool_or(a.atttypid = 16 OR t.typtype = 'd')" \
	"        FROM pg_class r" \
	"        JOIN pg_attribute a ON a.attrelid = r.oid" \
	"        JOIN pg_type t ON t.oid = a.atttypid" \
	"       WHERE r.oid = " alias ".users_oid AND r.oid >= " CppAsString2(FirstNormalObjectId) \
	"         AND r.relkind IN ('r', 'p', 'v', 'f')" \
	"         AND a.attnum > 0 AND NOT a.attisdropped) IS NOT TRUE"

/*
 * SQL, to read only: a row of ours that is of the datamart with that oid and
 * name, or will be once it has been adopted.  Of any, where the oid is 0.
 */
#define DMU_OF_DATAMART(alias, oid, name) \
	"(" oid " = 0::oid OR " alias ".users_oid = " oid \
	" OR " alias ".users_table = " name ")"

/* Who is held: failures, contention, and the parked ones. */
extern void dmu_adopt_failures(Oid users, const char *users_name);

/*
 * The history and the log of attempts as well.  Only for the holder of the cycle lock: the row of a
 * running cycle is its coordinator's.
 */
extern void dmu_adopt_all(Oid users, const char *users_name);

#endif							/* DMU_ADOPT_H */
