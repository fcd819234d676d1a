/*-------------------------------------------------------------------------
 *
 * history.c
 *		The history of cycles, and its retention.
 *
 *		This file knows neither warehouses nor shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "history.h"

#include "executor/spi.h"
#include "history_profile.h"
#include "ownersql.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* SQL: the users table of a row of ours, by its alias, is gone. */
#define NO_USERS_TABLE(alias) \
	"NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = " alias ".users_oid)"

#define SERVER_DOWN "The server went down during the cycle."

int
dmu_history_list_running(Oid users, int64 **cycle_ids)
{
	MemoryContext context = CurrentMemoryContext;
	DmuOwnerScope scope;
	int			ncycles;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "SELECT cycle_id FROM %s.datamart_users_cycles c"
				  " WHERE status = 'running' AND (users_oid = $1 OR " NO_USERS_TABLE("c") ")",
				  SPI_OK_SELECT, DMU_PARAMS(dmu_param_oid(users)));
	ncycles = (int) SPI_processed;
	*cycle_ids = MemoryContextAlloc(context, Max(ncycles, 1) * sizeof(int64));
	for (int i = 0; i < ncycles; i++)
		(*cycle_ids)[i] = DatumGetInt64(dmu_owner_value(SPI_tuptable, i, 1));
	dmu_owner_leave(&scope);
	return ncycles;
}

int
dmu_history_mark_aborted(const int64 *cycle_ids, int ncycles,
						 TimestampTz server_started, bool *crashed)
{
	DmuOwnerScope scope;
	int			aborted;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "UPDATE %s.datamart_users_cycles"
				  "   SET status = 'aborted', finished_at = now(),"
				  "       message = coalesce(message,"
				  "                          CASE WHEN started_at < $2"
				  "                               THEN '" SERVER_DOWN "'"
				  "                               ELSE 'The coordinator of the cycle was terminated.' END)"
				  " WHERE status = 'running' AND cycle_id = ANY ($1)"
				  " RETURNING message = '" SERVER_DOWN "'",
				  SPI_OK_UPDATE_RETURNING,
				  DMU_PARAMS(dmu_param_int8_array(cycle_ids, ncycles),
							 dmu_param_timestamptz(server_started)));
	aborted = (int) SPI_processed;
	*crashed = false;
	for (int i = 0; i < aborted; i++)
		*crashed |= DatumGetBool(dmu_owner_value(SPI_tuptable, i, 1));
	dmu_owner_leave(&scope);
	return aborted;
}

int64
dmu_history_begin(const DmuCycleStart *start)
{
	DmuOwnerScope scope;
	int64		cycle_id;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "INSERT INTO %s.datamart_users_cycles"
				  "  (status, role_name, started_at, time_limit, workers_requested,"
				  "   users_oid, users_table, session_role, application_name, caller_pid)"
				  " VALUES ('running', $1, $2, $3, $4, $5, $6, $7, $8, $9)"
				  " RETURNING cycle_id",
				  SPI_OK_INSERT_RETURNING,
				  DMU_PARAMS(dmu_param_text(start->role_name),
							 dmu_param_timestamptz(start->started_at),
							 dmu_param_if(start->time_limit > 0, dmu_param_interval(start->time_limit * 1000)),
							 dmu_param_int4(start->workers_requested),
							 dmu_param_oid(start->users),
							 dmu_param_text(start->users_name),
							 dmu_param_text(start->session_role),
							 dmu_param_text(start->application_name),
							 dmu_param_int4(start->caller_pid)));
	if (SPI_processed != 1)
		elog(ERROR, "the row of a new cycle could not be added");
	cycle_id = DatumGetInt64(dmu_owner_value(SPI_tuptable, 0, 1));

	dmu_owner_leave(&scope);
	return cycle_id;
}

/* The final state of the row in datamart_users_cycles. */
static void
end_cycle(const DmuOwnerScope *scope, const DmuCycleEnd *end)
{
	const DmuCycleResult *result = end->result;
	const int64 *outcomes = result->total.outcomes;
	bool		queued = (end->prioritisation_usec >= 0);

	dmu_owner_run(scope,
				  "UPDATE %s.datamart_users_cycles"
				  "   SET status = $2, finished_at = $3, counted_at = $3, max_users = $4, backlog = $5,"
				  "       found = $6, processed = $7, failed = $8, skipped = $9,"
				  "       deferred = $10, workers = $11, prioritisation_time = $12,"
				  "       message = $13, sqlstate = $14"
				  " WHERE cycle_id = $1",
				  SPI_OK_UPDATE,
				  DMU_PARAMS(dmu_param_int8(result->cycle_id),
							 dmu_param_text(dmu_status_name(result->status)),
							 dmu_param_timestamptz(result->finished_at),
							 dmu_param_if(queued, dmu_param_int4(end->max_users)),
							 dmu_param_if(queued, dmu_param_int8(result->backlog)),
							 dmu_param_if(queued, dmu_param_int4(result->found)),
							 dmu_param_int4((int32) outcomes[DMU_PROCESSED]),
							 dmu_param_int4((int32) outcomes[DMU_FAILED]),
							 dmu_param_int4((int32) outcomes[DMU_SKIPPED]),
							 dmu_param_int4((int32) outcomes[DMU_DEFERRED]),
							 dmu_param_int4(result->workers),
							 dmu_param_if(queued, dmu_param_interval(end->prioritisation_usec)),
							 dmu_param_text(end->message),
							 dmu_param_text(end->sqlerrcode != 0 ?
											unpack_sql_state(end->sqlerrcode) : NULL)));
}

void
dmu_history_save_counts(const DmuCycleCounts *counts)
{
	DmuOwnerScope scope;
	const int64 *outcomes = counts->total->outcomes;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "UPDATE %s.datamart_users_cycles"
				  "   SET counted_at = clock_timestamp(), max_users = $2, backlog = $3,"
				  "       found = $4, processed = $5, failed = $6, skipped = $7,"
				  "       deferred = $8, workers = $9, prioritisation_time = $10"
				  " WHERE cycle_id = $1 AND status = 'running'",
				  SPI_OK_UPDATE,
				  DMU_PARAMS(dmu_param_int8(counts->cycle_id),
							 dmu_param_int4(counts->max_users),
							 dmu_param_int8(counts->backlog),
							 dmu_param_int4(counts->found),
							 dmu_param_int4((int32) outcomes[DMU_PROCESSED]),
							 dmu_param_int4((int32) outcomes[DMU_FAILED]),
							 dmu_param_int4((int32) outcomes[DMU_SKIPPED]),
							 dmu_param_int4((int32) outcomes[DMU_DEFERRED]),
							 dmu_param_int4(counts->workers),
							 dmu_param_interval(counts->prioritisation_usec)));
	dmu_history_save_priorities(&scope, counts->cycle_id,
								counts->found_by_priority,
								counts->by_priority, NULL);
	dmu_owner_leave(&scope);
}

void
dmu_history_end(const DmuCycleEnd *end)
{
	DmuOwnerScope scope;

	dmu_owner_enter(&scope);
	end_cycle(&scope, end);
	dmu_history_save_priorities(&scope, end->result->cycle_id,
								end->found_by_priority,
								end->by_priority, end->profile);
	dmu_history_insert_profile(&scope, end);
	dmu_history_insert_slowest(&scope, end);

	/* The cycle came to its end, so nobody in it crashed the server. */
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_suspects WHERE users_oid = $1",
				  SPI_OK_DELETE, DMU_PARAMS(dmu_param_oid(end->users)));
	dmu_owner_leave(&scope);
}

/*
 * What is older goes; that of others is for their own cycles to remove, unless
 * there can be none any more.
 */
void
dmu_history_remove_old(Oid users, int retention)
{
	DmuOwnerScope scope;
	DmuParam	params[] = {
		dmu_param_oid(users),
		dmu_param_interval((int64) retention * USECS_PER_SEC)
	};

	if (retention <= 0)
		return;
	dmu_owner_enter(&scope);
	/* By way of the history, so as not to look at every one of them. */
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_seen s"
				  " WHERE s.users_oid IN (SELECT c.users_oid FROM %s.datamart_users_cycles c"
				  "                        WHERE c.users_oid <> $1 AND " NO_USERS_TABLE("c") ")",
				  SPI_OK_DELETE, 1, params);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_cycles c"
				  " WHERE c.started_at < now() - $2 AND c.status <> 'running'"
				  "   AND (c.users_oid = $1 OR " NO_USERS_TABLE("c") ")",
				  SPI_OK_DELETE, lengthof(params), params);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_failures f"
				  " WHERE f.last_failed_at < now() - $2"
				  "   AND f.users_oid <> $1"
				  "   AND " NO_USERS_TABLE("f"),
				  SPI_OK_DELETE, lengthof(params), params);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_contention c"
				  " WHERE c.last_deferred_at < now() - $2"
				  "   AND c.users_oid <> $1"
				  "   AND " NO_USERS_TABLE("c"),
				  SPI_OK_DELETE, lengthof(params), params);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_parked p"
				  " WHERE p.parked_at < now() - $2"
				  "   AND p.users_oid <> $1"
				  "   AND " NO_USERS_TABLE("p"),
				  SPI_OK_DELETE, lengthof(params), params);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_attempts a"
				  " WHERE a.attempted_at < now() - $2"
				  "   AND (a.users_oid = $1 OR " NO_USERS_TABLE("a") ")",
				  SPI_OK_DELETE, lengthof(params), params);
	dmu_owner_leave(&scope);
}

bool
dmu_history_get(int64 cycle_id, DmuCycleResult *result)
{
	DmuOwnerScope scope;
	bool		found;

	memset(result, 0, sizeof(*result));
	dmu_owner_enter(&scope);
	dmu_owner_read_latest(&scope,
						  "SELECT status, coalesce(backlog, 0), coalesce(found, 0),"
						  "       coalesce(workers, 0), started_at, coalesce(finished_at, now()),"
						  "       coalesce(processed, 0), coalesce(failed, 0),"
						  "       coalesce(skipped, 0), coalesce(deferred, 0)"
						  "  FROM %s.datamart_users_cycles WHERE cycle_id = $1",
						  DMU_PARAMS(dmu_param_int8(cycle_id)));
	found = (SPI_processed == 1);
	if (found)
	{
		result->cycle_id = cycle_id;
		result->status = dmu_status_of_name(TextDatumGetCString(dmu_owner_value(SPI_tuptable, 0, 1)));
		result->backlog = DatumGetInt64(dmu_owner_value(SPI_tuptable, 0, 2));
		result->found = DatumGetInt32(dmu_owner_value(SPI_tuptable, 0, 3));
		result->workers = DatumGetInt32(dmu_owner_value(SPI_tuptable, 0, 4));
		result->started_at = DatumGetTimestampTz(dmu_owner_value(SPI_tuptable, 0, 5));
		result->finished_at = DatumGetTimestampTz(dmu_owner_value(SPI_tuptable, 0, 6));
		for (int o = 0; o < DMU_NOUTCOMES; o++)
			result->total.outcomes[o] = DatumGetInt32(dmu_owner_value(SPI_tuptable, 0, 7 + o));
	}
	dmu_owner_leave(&scope);
	return found;
}

int
dmu_history_previous_error(Oid users, int64 cycle_id)
{
	DmuOwnerScope scope;
	int			sqlerrcode = 0;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "SELECT CASE WHEN status = 'failed' THEN coalesce(sqlstate, '00000') ELSE '00000' END"
				  "  FROM %s.datamart_users_cycles"
				  " WHERE users_oid = $1 AND cycle_id < $2 AND status <> 'running'"
				  " ORDER BY cycle_id DESC LIMIT 1",
				  SPI_OK_SELECT,
				  DMU_PARAMS(dmu_param_oid(users),
							 dmu_param_int8(cycle_id)));
	if (SPI_processed == 1)
	{
		const char *state = TextDatumGetCString(dmu_owner_value(SPI_tuptable, 0, 1));

		sqlerrcode = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
	}
	dmu_owner_leave(&scope);
	return sqlerrcode;
}
