/*-------------------------------------------------------------------------
 *
 * failures.c
 *		Datamart users that failed, and their back-off.
 *
 *		One that always fails would stay at the head of every queue, and a few
 *		of them could starve a small cycle; so each failure doubles the time
 *		until the next attempt.
 *
 *		This file knows neither warehouses nor shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "failures.h"

#include "attempts.h"
#include "catalog/pg_type.h"
#include "errors.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "ownersql.h"
#include "parked.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* The first back-off for contention, seconds; see dmu_failures_defer(). */
#define DMU_CONTENTION_DELAY 10

/* Whatever else is known of an error beside its message; NULL if nothing is. */
static const char *
describe_context(const DmuError *error)
{
	StringInfoData text;

	initStringInfo(&text);
	if (error->detail[0] != '\0')
		appendStringInfo(&text, "DETAIL:  %s\n", error->detail);
	if (error->hint[0] != '\0')
		appendStringInfo(&text, "HINT:  %s\n", error->hint);
	appendStringInfoString(&text, error->context);

	/* Like the server's own contexts, it has no newline at its end. */
	if (text.len > 0 && text.data[text.len - 1] == '\n')
		text.data[text.len - 1] = '\0';
	return text.len > 0 ? text.data : NULL;
}

/* See dmu_failures_record(). */
static void
upsert_failure(const DmuOwnerScope *scope, Oid users, const char *users_name,
			   int64 dimension_user_id, int64 cycle_id, const DmuError *error,
			   int delay, int delay_max)
{
	/* Nobody waits for more than 2^30 times the delay; more would overflow. */
	dmu_owner_run(scope,
				  "INSERT INTO %s.datamart_users_failures AS f"
				  "  (users_oid, users_table, dimension_user_id, attempts, first_failed_at,"
				  "   last_failed_at, next_attempt_at, sqlstate, message, context, cycle_id)"
				  " SELECT $8, $9, $1, 1, t, t, t + make_interval(secs => least($6, $7)), $3, $4, $5, $2"
				  "   FROM clock_timestamp() AS t WHERE true"
				  " ON CONFLICT (users_oid, dimension_user_id) DO UPDATE"
				  "   SET attempts = f.attempts + 1,"
				  "       last_failed_at = excluded.last_failed_at,"
				  "       next_attempt_at = excluded.last_failed_at"
				  "         + make_interval(secs => least($6 * power(2, least(f.attempts, 30)), $7)),"
				  "       sqlstate = excluded.sqlstate, message = excluded.message,"
				  "       context = excluded.context, cycle_id = excluded.cycle_id",
				  SPI_OK_INSERT,
				  DMU_PARAMS(dmu_param_int8(dimension_user_id),
							 dmu_param_int8(cycle_id),
							 dmu_param_text(unpack_sql_state(error->sqlerrcode)),
							 dmu_param_text(dmu_failure_texts ? error->message : DMU_TEXT_NOT_KEPT),
							 dmu_param_text(dmu_failure_texts ? describe_context(error) : NULL),
							 dmu_param_float8(delay),
							 dmu_param_float8(delay_max),
							 dmu_param_oid(users),
							 dmu_param_text(users_name)));
}

void
dmu_failures_record(Oid users, const char *users_name,
					int64 dimension_user_id, int64 cycle_id,
					const DmuError *error, int delay, int delay_max,
					bool nowait)
{
	DmuOwnerScope scope;
	DmuAttempt	attempt = {
		.users = users,
		.users_name = users_name,
		.dimension_user_id = dimension_user_id,
		.cycle_id = cycle_id,
		.outcome = DMU_FAILED,
		.charged = true,
		.error = error
	};

	if (nowait)
		dmu_attempts_lock_nowait();
	dmu_owner_enter(&scope);
	if (nowait)
	{
		dmu_owner_run(&scope,
					  "LOCK TABLE %s.datamart_users_failures"
					  " IN ROW EXCLUSIVE MODE NOWAIT",
					  SPI_OK_UTILITY, 0, NULL);
		dmu_owner_run(&scope,
					  "SELECT FROM %s.datamart_users_failures"
					  " WHERE users_oid = $1 AND dimension_user_id = $2 FOR UPDATE NOWAIT",
					  SPI_OK_SELECT,
					  DMU_PARAMS(dmu_param_oid(users),
								 dmu_param_int8(dimension_user_id)));
	}
	upsert_failure(&scope, users, users_name, dimension_user_id, cycle_id,
				   error, delay, delay_max);
	if (!nowait)
		dmu_owner_run(&scope,
					  "DELETE FROM %s.datamart_users_contention"
					  " WHERE users_oid = $1 AND dimension_user_id = $2 AND cycle_id = $3",
					  SPI_OK_DELETE,
					  DMU_PARAMS(dmu_param_oid(users),
								 dmu_param_int8(dimension_user_id),
								 dmu_param_int8(cycle_id)));
	dmu_owner_leave(&scope);
	dmu_attempts_add(&attempt);
}

void
dmu_failures_keep_undo(Oid users, int64 dimension_user_id, int64 cycle_id,
					   int sqlerrcode)
{
	DmuOwnerScope scope;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "INSERT INTO %s.datamart_users_failures_undo"
				  "  (users_oid, dimension_user_id, cycle_id, sqlstate, previous)"
				  " SELECT $1, $2, $3, $4,"
				  "        (SELECT f FROM %s.datamart_users_failures f"
				  "          WHERE f.users_oid = $1 AND f.dimension_user_id = $2)"
				  " ON CONFLICT DO NOTHING",
				  SPI_OK_INSERT,
				  DMU_PARAMS(dmu_param_oid(users),
							 dmu_param_int8(dimension_user_id),
							 dmu_param_int8(cycle_id),
							 dmu_param_text(unpack_sql_state(sqlerrcode))));
	dmu_owner_leave(&scope);
}

int
dmu_failures_take_back(Oid users, int64 cycle_id, int sqlerrcode,
					   TimestampTz since)
{
	DmuOwnerScope scope;
	DmuParam	params[] = {
		dmu_param_oid(users),
		dmu_param_int8(cycle_id),
		dmu_param_text(unpack_sql_state(sqlerrcode)),
		dmu_param_timestamptz(since)
	};
	int			taken_back;

	dmu_owner_enter(&scope);

	/* Of a row, IS NOT NULL asks for all of its columns. */
	dmu_owner_run(&scope,
				  "UPDATE %s.datamart_users_failures f"
				  "   SET attempts = (u.previous).attempts,"
				  "       first_failed_at = (u.previous).first_failed_at,"
				  "       last_failed_at = (u.previous).last_failed_at,"
				  "       next_attempt_at = (u.previous).next_attempt_at,"
				  "       sqlstate = (u.previous).sqlstate,"
				  "       message = (u.previous).message,"
				  "       context = (u.previous).context,"
				  "       cycle_id = (u.previous).cycle_id"
				  "  FROM %s.datamart_users_failures_undo u"
				  " WHERE u.users_oid = $1 AND u.cycle_id = $2"
				  "   AND (u.sqlstate = $3 OR f.last_failed_at >= $4)"
				  "   AND (u.previous).cycle_id IS NOT NULL"
				  "   AND f.users_oid = u.users_oid"
				  "   AND f.dimension_user_id = u.dimension_user_id",
				  SPI_OK_UPDATE, lengthof(params), params);
	taken_back = (int) SPI_processed;
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_failures f"
				  " USING %s.datamart_users_failures_undo u"
				  " WHERE u.users_oid = $1 AND u.cycle_id = $2"
				  "   AND (u.sqlstate = $3 OR f.last_failed_at >= $4)"
				  "   AND (u.previous).cycle_id IS NULL"
				  "   AND f.users_oid = u.users_oid"
				  "   AND f.dimension_user_id = u.dimension_user_id",
				  SPI_OK_DELETE, lengthof(params), params);
	taken_back += (int) SPI_processed;
	dmu_owner_run(&scope,
				  "UPDATE %s.datamart_users_attempts a SET charged = false"
				  "  FROM %s.datamart_users_failures_undo u"
				  " WHERE u.users_oid = $1 AND u.cycle_id = $2"
				  "   AND (u.sqlstate = $3 OR a.attempted_at >= $4)"
				  "   AND a.cycle_id = u.cycle_id AND a.users_oid = u.users_oid"
				  "   AND a.dimension_user_id = u.dimension_user_id",
				  SPI_OK_UPDATE, lengthof(params), params);
	dmu_owner_leave(&scope);
	return taken_back;
}

void
dmu_failures_forget_undo(Oid users)
{
	DmuOwnerScope scope;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_failures_undo u"
				  " WHERE u.users_oid = $1"
				  "    OR NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = u.users_oid)",
				  SPI_OK_DELETE, DMU_PARAMS(dmu_param_oid(users)));
	dmu_owner_leave(&scope);
}

void
dmu_failures_example(Oid users, int64 cycle_id, int sqlerrcode, DmuError *error)
{
	DmuOwnerScope scope;
	const char *message = "all datamart users failed";

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "SELECT message FROM %s.datamart_users_failures"
				  " WHERE users_oid = $1 AND cycle_id = $2 AND sqlstate = $3"
				  " ORDER BY last_failed_at DESC LIMIT 1",
				  SPI_OK_SELECT,
				  DMU_PARAMS(dmu_param_oid(users),
							 dmu_param_int8(cycle_id),
							 dmu_param_text(unpack_sql_state(sqlerrcode))));
	if (SPI_processed == 1)
		message = TextDatumGetCString(dmu_owner_value(SPI_tuptable, 0, 1));
	dmu_error_set(error, sqlerrcode, message, NULL, NULL);
	dmu_owner_leave(&scope);
}

void
dmu_failures_defer(Oid users, const char *users_name, int64 dimension_user_id,
				   int64 cycle_id, const DmuError *error, int delay)
{
	DmuOwnerScope scope;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "INSERT INTO %s.datamart_users_contention AS c"
				  "  (users_oid, users_table, dimension_user_id, deferrals, first_deferred_at,"
				  "   last_deferred_at, next_attempt_at, sqlstate, message, cycle_id)"
				  " SELECT $1, $2, $3, 1, t, t, t + make_interval(secs => $7), $5, $6, $4"
				  "   FROM clock_timestamp() AS t WHERE true"
				  " ON CONFLICT (users_oid, dimension_user_id) DO UPDATE"
				  "   SET deferrals = c.deferrals + (c.cycle_id <> excluded.cycle_id)::integer,"
				  "       last_deferred_at = excluded.last_deferred_at,"
				  "       next_attempt_at = excluded.last_deferred_at"
				  "         + make_interval(secs => least($7 * power(2, least(c.deferrals - 1"
				  "             + (c.cycle_id <> excluded.cycle_id)::integer, 30)), $8)),"
				  "       sqlstate = excluded.sqlstate, message = excluded.message,"
				  "       cycle_id = excluded.cycle_id",
				  SPI_OK_INSERT,
				  DMU_PARAMS(dmu_param_oid(users),
							 dmu_param_text(users_name),
							 dmu_param_int8(dimension_user_id),
							 dmu_param_int8(cycle_id),
							 dmu_param_text(unpack_sql_state(error->sqlerrcode)),
							 dmu_param_text(dmu_failure_texts ? error->message : DMU_TEXT_NOT_KEPT),
							 dmu_param_float8(Min(delay, DMU_CONTENTION_DELAY)),
							 dmu_param_float8(delay)));
	dmu_owner_leave(&scope);
}

void
dmu_failures_clear(Oid users, int64 dimension_user_id)
{
	DmuOwnerScope scope;
	DmuParam	key[] = {
		dmu_param_oid(users),
		dmu_param_int8(dimension_user_id)
	};

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_failures"
				  " WHERE users_oid = $1 AND dimension_user_id = $2",
				  SPI_OK_DELETE, lengthof(key), key);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_contention"
				  " WHERE users_oid = $1 AND dimension_user_id = $2",
				  SPI_OK_DELETE, lengthof(key), key);
	dmu_owner_leave(&scope);
}

int
dmu_failures_retry(Oid users, const int64 *dimension_user_id)
{
	DmuOwnerScope scope;
	int			lifted;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "WITH parked AS ("
				  "  DELETE FROM %s.datamart_users_parked"
				  "   WHERE users_oid = $1 AND dimension_user_id = $2"
				  "  RETURNING dimension_user_id),"
				  " failures AS ("
				  "  UPDATE %s.datamart_users_failures f SET next_attempt_at = now()"
				  "   WHERE f.users_oid = $1"
				  "     AND (f.dimension_user_id = $2 OR $2 IS NULL AND " DMU_NOT_PARKED("f") ")"
				  "     AND f.next_attempt_at > now()"
				  "  RETURNING f.dimension_user_id),"
				  " contention AS ("
				  "  UPDATE %s.datamart_users_contention c SET next_attempt_at = now()"
				  "   WHERE c.users_oid = $1"
				  "     AND (c.dimension_user_id = $2 OR $2 IS NULL AND " DMU_NOT_PARKED("c") ")"
				  "     AND c.next_attempt_at > now()"
				  "  RETURNING c.dimension_user_id)"
				  " SELECT count(*)::integer"
				  "   FROM (SELECT dimension_user_id FROM parked"
				  "         UNION SELECT dimension_user_id FROM failures"
				  "         UNION SELECT dimension_user_id FROM contention) AS lifted",
				  SPI_OK_SELECT,
				  DMU_PARAMS(dmu_param_oid(users),
							 dimension_user_id == NULL ? dmu_param_null(INT8OID) :
							 dmu_param_int8(*dimension_user_id)));
	lifted = DatumGetInt32(dmu_owner_value(SPI_tuptable, 0, 1));
	dmu_owner_leave(&scope);
	return lifted;
}
