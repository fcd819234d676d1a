/*-------------------------------------------------------------------------
 *
 * adopt.c
 *		Rows of ours whose users table has another oid or another name by now.
 *
 *		A datamart is its users table, so our rows are keyed by that table's
 *		oid: a name can be given to another table, and who may create a table
 *		must not get at the rows of one that exists.  But a dump has the oids
 *		of the database that it was taken from, and a table that was created
 *		anew has another one.  So rows that stand under our name, and under an
 *		oid that no users table has, are taken over.
 *
 *		After a dump and restore that oid may well be some other relation's;
 *		hence the look at its columns.  Where that is a users table too, the
 *		rows stay where they are: a back-off is forgotten at the worst.
 *
 *		This file knows neither warehouses nor shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "adopt.h"

#include "executor/spi.h"
#include "ownersql.h"

/* Of a table that keeps one row for a datamart user; "latest" tells its age. */
static void
adopt_held(const DmuOwnerScope *scope, const DmuParam *params,
		   const char *table, const char *latest)
{
	/* What has happened since counts, where both know a datamart user. */
	dmu_owner_run(scope,
				  psprintf("DELETE FROM %%s.%s f"
						   " WHERE " DMU_ORPHANED("f")
						   "   AND EXISTS (SELECT FROM %%s.%s n"
						   "                WHERE n.users_oid = $1"
						   "                  AND n.dimension_user_id = f.dimension_user_id)",
						   table, table),
				  SPI_OK_DELETE, 2, params);

	/* Two dead tables of our name may know it, too. */
	dmu_owner_run(scope,
				  psprintf("DELETE FROM %%s.%s f"
						   " WHERE " DMU_ORPHANED("f")
						   "   AND EXISTS (SELECT FROM %%s.%s n"
						   "                WHERE " DMU_ORPHANED("n")
						   "                  AND n.dimension_user_id = f.dimension_user_id"
						   "                  AND (n.%s, n.users_oid) > (f.%s, f.users_oid))",
						   table, table, latest, latest),
				  SPI_OK_DELETE, 2, params);
	dmu_owner_run(scope,
				  psprintf("UPDATE %%s.%s f SET users_oid = $1"
						   " WHERE " DMU_ORPHANED("f"), table),
				  SPI_OK_UPDATE, 2, params);
	dmu_owner_run(scope,
				  psprintf("UPDATE %%s.%s SET users_table = $2"
						   " WHERE users_oid = $1 AND users_table <> $2", table),
				  SPI_OK_UPDATE, 2, params);
}

static void
adopt_failures(const DmuOwnerScope *scope, const DmuParam *params)
{
	adopt_held(scope, params, "datamart_users_failures", "last_failed_at");
	adopt_held(scope, params, "datamart_users_contention", "last_deferred_at");
	adopt_held(scope, params, "datamart_users_parked", "parked_at");
}

static void
adopt_history(const DmuOwnerScope *scope, const DmuParam *params)
{
	/*
	 * What says running was so where it comes from.  Should it be so here,
	 * its end writes another message.
	 */
	dmu_owner_run(scope,
				  "UPDATE %s.datamart_users_cycles c SET users_oid = $1, message ="
				  " CASE WHEN status = 'running' THEN 'It ran when the database was copied,"
				  " or its users table was made anew meanwhile.' ELSE message END"
				  " WHERE " DMU_ORPHANED("c"),
				  SPI_OK_UPDATE, 2, params);

	/*
	 * The log can be long, and is as old as the cycles: where there are none
	 * to take over, it has nothing either.
	 */
	if (SPI_processed > 0)
		dmu_owner_run(scope,
					  "UPDATE %s.datamart_users_attempts l SET users_oid = $1"
					  " WHERE " DMU_ORPHANED("l"),
					  SPI_OK_UPDATE, 2, params);
	dmu_owner_run(scope,
				  "UPDATE %s.datamart_users_slowest s SET users_table = c.new_name"
				  "  FROM (SELECT cycle_id, $2 AS new_name FROM %s.datamart_users_cycles"
				  "         WHERE users_oid = $1 AND users_table <> $2) AS c"
				  " WHERE s.cycle_id = c.cycle_id",
				  SPI_OK_UPDATE, 2, params);
	dmu_owner_run(scope,
				  "UPDATE %s.datamart_users_cycles SET users_table = $2"
				  " WHERE users_oid = $1 AND users_table <> $2",
				  SPI_OK_UPDATE, 2, params);
	if (SPI_processed > 0)
		dmu_owner_run(scope,
					  "UPDATE %s.datamart_users_attempts SET users_table = $2"
					  " WHERE users_oid = $1 AND users_table <> $2",
					  SPI_OK_UPDATE, 2, params);
}

/* A row of ours that has our oid or our name, and not both. */
#define HALF_OURS(table) \
	"EXISTS (SELECT FROM %s." table \
	"         WHERE users_table = $2 AND users_oid <> $1 OR users_oid = $1 AND users_table <> $2)"

/*
 * There hardly ever is anything to do, and every cycle begins with it; so one
 * look comes before all these statements.
 */
static bool
is_needed(const DmuOwnerScope *scope, const DmuParam *params, bool history)
{
	dmu_owner_run(scope,
				  history ?
				  "SELECT " HALF_OURS("datamart_users_failures")
				  "    OR " HALF_OURS("datamart_users_contention")
				  "    OR " HALF_OURS("datamart_users_parked")
				  "    OR " HALF_OURS("datamart_users_cycles") :
				  "SELECT " HALF_OURS("datamart_users_failures")
				  "    OR " HALF_OURS("datamart_users_contention")
				  "    OR " HALF_OURS("datamart_users_parked"),
				  SPI_OK_SELECT, 2, params);
	return DatumGetBool(dmu_owner_value(SPI_tuptable, 0, 1));
}

static void
adopt(Oid users, const char *users_name, bool history)
{
	DmuOwnerScope scope;
	DmuParam	params[] = {
		dmu_param_oid(users),
		dmu_param_text(users_name)
	};

	dmu_owner_enter(&scope);

	/*
	 * Whether we may write to the log at all is better known now than when
	 * the first failure is to be written down.
	 */
	if (history)
		dmu_owner_run(&scope,
					  "DELETE FROM %s.datamart_users_attempts WHERE false",
					  SPI_OK_DELETE, 0, NULL);
	if (is_needed(&scope, params, history))
	{
		adopt_failures(&scope, params);
		if (history)
			adopt_history(&scope, params);
	}
	dmu_owner_leave(&scope);
}

void
dmu_adopt_failures(Oid users, const char *users_name)
{
	adopt(users, users_name, false);
}

void
dmu_adopt_all(Oid users, const char *users_name)
{
	adopt(users, users_name, true);
}
