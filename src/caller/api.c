/*-------------------------------------------------------------------------
 *
 * api.c
 *		The SQL-callable functions: arguments, context, privileges, results.
 *
 *		Everything that can be known to fail is refused here, before a worker
 *		process is started: one error, with SQLSTATE and hint, and nothing has
 *		changed.
 *
 *		This file knows neither shared memory nor background workers.
 *
 *-------------------------------------------------------------------------
 */
#include "api.h"

#include "context.h"
#include "cycle.h"
#include "failures.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "ownersql.h"
#include "param.h"
#include "priority.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "warehouse.h"

PG_FUNCTION_INFO_V1(datamart_users_run_cycle);
PG_FUNCTION_INFO_V1(datamart_users_start_cycle);
PG_FUNCTION_INFO_V1(datamart_users_wait_cycle);
PG_FUNCTION_INFO_V1(datamart_users_cancel_cycle);
PG_FUNCTION_INFO_V1(datamart_users_run);
PG_FUNCTION_INFO_V1(datamart_users_queue);
PG_FUNCTION_INFO_V1(datamart_users_priority_query);

/* Where datamart_users_queue() collects its rows. */
typedef struct QueueResult
{
	ReturnSetInfo *rsinfo;
	int32		position;
} QueueResult;

int32
dmu_api_int_arg(FunctionCallInfo fcinfo, int argno, const char *name,
				int32 max, int32 fallback)
{
	int32		value;

	if (PG_ARGISNULL(argno))
		return fallback;

	value = PG_GETARG_INT32(argno);
	if (value < 1 || value > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between 1 and %d, not %d", name, max, value),
				 errhint("Leave it out, or pass NULL, for the setting.")));
	return value;
}

/* More than a century is an error, before it overflows somewhere. */
int64
dmu_api_interval_arg(FunctionCallInfo fcinfo, int argno, const char *name,
					 int64 fallback)
{
	const Interval *interval;
	int64		days;
	int64		usec;

	if (PG_ARGISNULL(argno))
		return fallback;

	interval = PG_GETARG_INTERVAL_P(argno);
	days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	if (days > 36525 || interval->time / USECS_PER_DAY > 36525)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be more than 100 years", name),
				 errhint("Leave it out, or pass NULL, for the default.")));
	usec = days < -36525 ? -1 : days * USECS_PER_DAY + interval->time;
	if (usec < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", name),
				 errhint("Leave it out, or pass NULL, for the default.")));
	return (usec + 999) / 1000;
}

DmuWarehouse *
dmu_api_check_warehouse(void)
{
	DmuWarehouse *warehouse;

	warehouse = dmu_warehouse_resolve();
	dmu_settings_check_worker_settings();
	dmu_warehouse_check_privileges(warehouse, true);
	(void) dmu_owner_role();
	return warehouse;
}

static void
make_request(FunctionCallInfo fcinfo, const char *function,
			 bool caller_waits, DmuRequest *request)
{
	const DmuWarehouse *warehouse;

	memset(request, 0, sizeof(*request));
	request->max_users = dmu_api_int_arg(fcinfo, 0, "max_users", DMU_MAX_USERS,
										 DMU_USERS_BY_SETTINGS);
	request->workers =
		dmu_settings_worker_target(dmu_api_int_arg(fcinfo, 1, "max_workers",
												   DMU_MAX_WORKERS, 0));
	request->time_limit = dmu_api_interval_arg(fcinfo, 2, "time_limit",
											   dmu_cycle_time_limit);
	request->caller_waits = caller_waits;
	dmu_context_check(function);
	warehouse = dmu_api_check_warehouse();
	request->users = warehouse->users;
	strlcpy(request->users_name, warehouse->users_name,
			sizeof(request->users_name));
}

/* The counts of a cycle in words, palloc'd. */
static char *
counts(const DmuCycleResult *result)
{
	const int64 *outcomes = result->total.outcomes;

	return psprintf("backlog " INT64_FORMAT ", found %d, processed " INT64_FORMAT ", failed " INT64_FORMAT ", skipped " INT64_FORMAT ", deferred " INT64_FORMAT,
					result->backlog, result->found, outcomes[DMU_PROCESSED],
					outcomes[DMU_FAILED], outcomes[DMU_SKIPPED],
					outcomes[DMU_DEFERRED]);
}

/*
 * error_on_failure.  The cycle has ended and its history is committed, so
 * nothing is undone by it.
 */
static void
raise_failures(const DmuCycleResult *result)
{
	int64		failed = result->total.outcomes[DMU_FAILED];
	bool		unfinished = result->status == DMU_STATUS_FAILED ||
	result->status == DMU_STATUS_ABORTED;

	if (!dmu_error_on_failure || result->status == DMU_STATUS_RUNNING ||
		(failed == 0 && !unfinished))
		return;

	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 unfinished ?
			 errmsg("cycle " INT64_FORMAT " ended as %s", result->cycle_id,
					dmu_status_name(result->status)) :
			 errmsg_plural("%lld datamart user failed in cycle %lld",
						   "%lld datamart users failed in cycle %lld",
						   (unsigned long) failed, (long long) failed,
						   (long long) result->cycle_id),
			 errdetail("Its counts: %s.  What was processed stays.",
					   counts(result)),
			 unfinished ? errhint("See datamart_users_cycles for the reason.") :
			 errhint("See datamart_users_failures for the reasons.")));
}

/* The row of run_cycle and wait_cycle. */
static Datum
cycle_row(FunctionCallInfo fcinfo, const DmuCycleResult *result)
{
	TupleDesc	tupdesc;
	Datum		values[10];
	bool		nulls[10] = {false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	values[0] = Int64GetDatum(result->cycle_id);
	values[1] = CStringGetTextDatum(dmu_status_name(result->status));
	values[2] = Int64GetDatum(result->backlog);
	values[3] = Int32GetDatum(result->found);
	for (int o = 0; o < DMU_NOUTCOMES; o++)
		values[4 + o] = Int32GetDatum((int32) result->total.outcomes[o]);
	values[8] = Int32GetDatum(result->workers);
	values[9] = dmu_interval(result->finished_at - result->started_at);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
											 values, nulls));
}

Datum
datamart_users_run_cycle(PG_FUNCTION_ARGS)
{
	DmuRequest	request;
	DmuCycleResult result;

	make_request(fcinfo, "datamart_users_run_cycle()", true, &request);
	dmu_cycle_run(&request, &result);
	raise_failures(&result);
	return cycle_row(fcinfo, &result);
}

/*
 * The procedure for schedulers.  To hold no snapshot while it waits is what it
 * is for: one would keep VACUUM from removing, and CREATE INDEX CONCURRENTLY
 * from ending.
 */
Datum
datamart_users_run(PG_FUNCTION_ARGS)
{
	DmuRequest	request;
	DmuCycleResult result;

	make_request(fcinfo, "datamart_users_run()", true, &request);
	dmu_context_release_snapshot(castNode(CallContext, fcinfo->context));
	dmu_cycle_run(&request, &result);
	dmu_context_restore_snapshot();
	raise_failures(&result);
	ereport(INFO,
			(errmsg("cycle " INT64_FORMAT " ended as %s: %s", result.cycle_id,
					dmu_status_name(result.status), counts(&result))));
	PG_RETURN_VOID();
}

Datum
datamart_users_start_cycle(PG_FUNCTION_ARGS)
{
	DmuRequest	request;

	make_request(fcinfo, "datamart_users_start_cycle()", false, &request);
	PG_RETURN_INT64(dmu_cycle_start(&request));
}

Datum
datamart_users_wait_cycle(PG_FUNCTION_ARGS)
{
	DmuCycleResult result;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("cycle_id must not be null")));
	dmu_cycle_wait(PG_GETARG_INT64(0),
				   dmu_api_interval_arg(fcinfo, 1, "timeout", -1), &result);
	raise_failures(&result);
	return cycle_row(fcinfo, &result);
}

Datum
datamart_users_cancel_cycle(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0))
		PG_RETURN_BOOL(dmu_cycle_cancel(PG_GETARG_INT64(0)));
	PG_RETURN_BOOL(dmu_cycle_cancel_datamart(dmu_warehouse_find_users()));
}

/* DmuQueueRowConsumer */
static void
put_queue_row(const DmuQueueRow *row, void *arg)
{
	QueueResult *result = (QueueResult *) arg;
	DmuPriority priority = dmu_priority_of(row->recency_class,
										   row->activity_class);
	Datum		values[7];
	bool		nulls[7] = {false};

	values[0] = Int32GetDatum(++result->position);
	values[1] = Int64GetDatum(row->dimension_user_id);
	values[2] = CStringGetTextDatum(dmu_priority_name(priority));
	values[3] = Int32GetDatum(row->recency_class);
	values[4] = Int32GetDatum(row->activity_class);
	values[5] = Int64GetDatum(row->action_count);
	values[6] = TimestampTzGetDatum(row->last_action_at);
	nulls[6] = !row->has_last_action;
	tuplestore_putvalues(result->rsinfo->setResult, result->rsinfo->setDesc,
						 values, nulls);
	pfree(DatumGetPointer(values[2]));
}

/* What a cycle would look at now: tables, limit, and who waits. */
static DmuWarehouse *
resolve_queue(FunctionCallInfo fcinfo, int *max_users, DmuBacklog *backlog)
{
	int			requested = dmu_api_int_arg(fcinfo, 0, "max_users", DMU_MAX_USERS,
											DMU_USERS_BY_SETTINGS);
	DmuWarehouse *warehouse = dmu_warehouse_resolve();
	DmuFailure *failures;
	int			nfailures;

	dmu_warehouse_check_privileges(warehouse, false);
	nfailures = dmu_failures_list(warehouse->users, &failures);
	dmu_priority_look(warehouse, failures, nfailures, backlog);
	*max_users = dmu_settings_max_users(requested, backlog->total);
	return warehouse;
}

Datum
datamart_users_queue(PG_FUNCTION_ARGS)
{
	QueueResult result = {(ReturnSetInfo *) fcinfo->resultinfo, 0};
	DmuWarehouse *warehouse;
	int			max_users;
	DmuBacklog	backlog;

	warehouse = resolve_queue(fcinfo, &max_users, &backlog);
	InitMaterializedSRF(fcinfo, 0);
	dmu_priority_run(warehouse, &backlog, max_users, put_queue_row, &result);
	if (backlog.counts != NULL)
		dmu_counts_store_at_commit(backlog.counts);
	return (Datum) 0;
}

Datum
datamart_users_priority_query(PG_FUNCTION_ARGS)
{
	DmuWarehouse *warehouse;
	int			max_users;
	DmuBacklog	backlog;

	warehouse = resolve_queue(fcinfo, &max_users, &backlog);
	PG_RETURN_TEXT_P(cstring_to_text(dmu_priority_query(warehouse, &backlog,
														max_users)));
}
