/*-------------------------------------------------------------------------
 *
 * failures.c
 *		Datamart users that failed, and their back-off.
 *
 *		One that always fails would stay at the head of every queue, and a few
 *		of them could starve a small cycle; so each failure doubles the time
 *		until the next attempt.
 *
 *		One that crashes the server leaves no failure behind.  After a crash,
 *		therefore, the workers of the next cycle write down durably what they
 *		are about to do; if the server crashes again, those are the suspects.
 *
 *		This file knows nothing of warehouses, shared memory or workers.
 *
 *-------------------------------------------------------------------------
 */
#include "failures.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "ownersql.h"
#include "session.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Whatever else is known of an error beside its message. */
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
		text.		data[text.len - 1] = '\0';
	return text.data;
}

/* See dmu_failures_record(). */
static void
upsert_failure(const DmuOwnerScope *scope, int64 dimension_user_id,
			   int64 cycle_id, const DmuError *error, int delay, int delay_max)
{
	DmuParam	params[7];

	params[0] = dmu_param(INT8OID, Int64GetDatum(dimension_user_id));
	params[1] = dmu_param(INT8OID, Int64GetDatum(cycle_id));
	params[2] = dmu_param_text(unpack_sql_state(error->sqlerrcode));
	params[3] = dmu_param(TEXTOID, CStringGetTextDatum(error->message));
	params[4] = dmu_param_text(describe_context(error));
	params[5] = dmu_param(FLOAT8OID, Float8GetDatum(delay));
	params[6] = dmu_param(FLOAT8OID, Float8GetDatum(delay_max));

	/* Nobody waits for more than 2^30 times the delay; more would overflow. */
	dmu_owner_run(scope,
				  "INSERT INTO %s.datamart_users_failures AS f"
				  "  (dimension_user_id, attempts, first_failed_at, last_failed_at,"
				  "   next_attempt_at, sqlstate, message, context, cycle_id)"
				  " SELECT $1, 1, t, t, t + make_interval(secs => least($6, $7)), $3, $4, $5, $2"
				  "   FROM clock_timestamp() AS t WHERE true"
				  " ON CONFLICT (dimension_user_id) DO UPDATE"
				  "   SET attempts = f.attempts + 1,"
				  "       last_failed_at = excluded.last_failed_at,"
				  "       next_attempt_at = excluded.last_failed_at"
				  "         + make_interval(secs => least($6 * power(2, least(f.attempts, 30)), $7)),"
				  "       sqlstate = excluded.sqlstate, message = excluded.message,"
				  "       context = excluded.context, cycle_id = excluded.cycle_id",
				  SPI_OK_INSERT, lengthof(params), params);
}

void
dmu_failures_record(int64 dimension_user_id, int64 cycle_id,
					const DmuError *error, int delay, int delay_max,
					bool nowait)
{
	DmuOwnerScope scope;

	dmu_owner_enter(&scope);
	if (nowait)
	{
		DmuParam	id = dmu_param(INT8OID, Int64GetDatum(dimension_user_id));

		dmu_owner_run(&scope,
					  "LOCK TABLE %s.datamart_users_failures"
					  " IN ROW EXCLUSIVE MODE NOWAIT",
					  SPI_OK_UTILITY, 0, NULL);
		dmu_owner_run(&scope,
					  "SELECT FROM %s.datamart_users_failures"
					  " WHERE dimension_user_id = $1 FOR UPDATE NOWAIT",
					  SPI_OK_SELECT, 1, &id);
	}
	upsert_failure(&scope, dimension_user_id, cycle_id, error,
				   delay, delay_max);
	dmu_owner_leave(&scope);
}

void
dmu_failures_clear(int64 dimension_user_id)
{
	DmuOwnerScope scope;
	DmuParam	id = dmu_param(INT8OID, Int64GetDatum(dimension_user_id));

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_failures WHERE dimension_user_id = $1",
				  SPI_OK_DELETE, 1, &id);
	dmu_owner_leave(&scope);
}

int
dmu_failures_list(DmuFailure **failures)
{
	MemoryContext context = CurrentMemoryContext;
	DmuOwnerScope scope;
	int			nfailures;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "SELECT dimension_user_id, next_attempt_at > clock_timestamp(), next_attempt_at"
				  "  FROM %s.datamart_users_failures ORDER BY dimension_user_id",
				  SPI_OK_SELECT, 0, NULL);
	nfailures = (int) SPI_processed;
	*failures = MemoryContextAllocHuge(context,
									   Max(nfailures, 1) * sizeof(DmuFailure));
	for (int i = 0; i < nfailures; i++)
	{
		(*failures)[i].dimension_user_id = DatumGetInt64(dmu_owner_value(SPI_tuptable, i, 1));
		(*failures)[i].held = DatumGetBool(dmu_owner_value(SPI_tuptable, i, 2));
		(*failures)[i].next_attempt_at = DatumGetTimestampTz(dmu_owner_value(SPI_tuptable, i, 3));
	}
	dmu_owner_leave(&scope);
	return nfailures;
}

static int
compare_failures(const void *a, const void *b)
{
	int64		left = ((const DmuFailure *) a)->dimension_user_id;
	int64		right = ((const DmuFailure *) b)->dimension_user_id;

	return (left > right) - (left < right);
}

const DmuFailure *
dmu_failures_find(const DmuFailure *failures, int nfailures,
				  int64 dimension_user_id)
{
	DmuFailure	key = {.dimension_user_id = dimension_user_id};

	return bsearch(&key, failures, nfailures, sizeof(DmuFailure),
				   compare_failures);
}

int64	   *
dmu_failures_held(const DmuFailure *failures, int nfailures, int *nheld)
{
	int64	   *held = palloc_extended(Max(nfailures, 1) * sizeof(int64),
									   MCXT_ALLOC_HUGE);

	*nheld = 0;
	for (int i = 0; i < nfailures; i++)
	{
		if (failures[i].held)
			held[(*nheld)++] = failures[i].dimension_user_id;
	}
	return held;
}

void
dmu_failures_note_suspect(int worker, int64 dimension_user_id, int64 cycle_id)
{
	MemoryContext context = CurrentMemoryContext;
	DmuOwnerScope scope;
	DmuParam	params[3];

	dmu_session_begin();
	dmu_session_be_durable("local");
	dmu_owner_enter(&scope);
	params[0] = dmu_param(INT4OID, Int32GetDatum(worker));
	params[1] = dmu_param(INT8OID, Int64GetDatum(dimension_user_id));
	params[2] = dmu_param(INT8OID, Int64GetDatum(cycle_id));
	dmu_owner_run(&scope,
				  "INSERT INTO %s.datamart_users_suspects"
				  "  (worker, dimension_user_id, cycle_id) VALUES ($1, $2, $3)"
				  " ON CONFLICT (worker) DO UPDATE"
				  "   SET dimension_user_id = excluded.dimension_user_id,"
				  "       cycle_id = excluded.cycle_id",
				  SPI_OK_INSERT, lengthof(params), params);
	dmu_owner_leave(&scope);
	dmu_session_commit(context);
}

void
dmu_failures_forget_suspect(int worker)
{
	MemoryContext context = CurrentMemoryContext;
	DmuOwnerScope scope;
	DmuParam	number = dmu_param(INT4OID, Int32GetDatum(worker));

	dmu_session_begin();
	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_suspects WHERE worker = $1",
				  SPI_OK_DELETE, 1, &number);
	dmu_owner_leave(&scope);
	dmu_session_commit(context);
}

int
dmu_failures_settle_suspects(bool crashed, int delay, int delay_max)
{
	DmuOwnerScope scope;
	SPITupleTable *suspects;
	int			nsuspects;
	DmuError	error;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_suspects"
				  " RETURNING dimension_user_id, cycle_id",
				  SPI_OK_DELETE_RETURNING, 0, NULL);
	suspects = SPI_tuptable;
	nsuspects = crashed ? (int) SPI_processed : 0;

	memset(&error, 0, sizeof(error));
	error.sqlerrcode = ERRCODE_CRASH_SHUTDOWN;
	strlcpy(error.message,
			"at work when the server went down, in the second cycle running",
			sizeof(error.message));
	for (int i = 0; i < nsuspects; i++)
	{
		upsert_failure(&scope, DatumGetInt64(dmu_owner_value(suspects, i, 1)),
					   DatumGetInt64(dmu_owner_value(suspects, i, 2)), &error,
					   delay, delay_max);
	}
	dmu_owner_leave(&scope);
	return nsuspects;
}
