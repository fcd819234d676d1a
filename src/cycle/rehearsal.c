/*-------------------------------------------------------------------------
 *
 * rehearsal.c
 *		The background worker that refreshes one datamart user and rolls back.
 *
 *		Who sets a warehouse up wants to know what a cycle would do before one
 *		does it.  So this is a worker in all that a refresh can notice: it
 *		becomes the caller, has the same settings, timers, statements and
 *		checks, but for the commit; refresh.c has that difference.
 *
 *		It belongs to no cycle, so it takes none of their locks, writes nothing
 *		into the extension's tables, and may run beside one.  To the cycle it
 *		is another session, and the other way round.
 *
 *-------------------------------------------------------------------------
 */
#include "rehearsal.h"

#include "access/xact.h"
#include "cancel.h"
#include "errors.h"
#include "explain.h"
#include "failures.h"
#include "launch.h"
#include "lookup.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "priority.h"
#include "refresh.h"
#include "settings.h"
#include "slot.h"
#include "stop.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "timers.h"
#include "transaction.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

typedef struct Rehearsal
{
	DmuControl *control;
	DmuRehearsal *result;
	MemoryContext context;		/* lasts as long as the process */
	DmuWarehouse *warehouse;
	DmuRefresher *refresher;
	uint32		actions;		/* facts of the datamart user */
	TimestampTz started_at;		/* the refresh; 0 = it has not */
	DmuError	error;
} Rehearsal;

/* DmuQueueRowConsumer */
static void
take_first(const DmuQueueRow *row, void *arg)
{
	Rehearsal  *run = (Rehearsal *) arg;

	run->actions = (uint32) Min(row->action_count, PG_UINT32_MAX);
	run->result->dimension_user_id = row->dimension_user_id;
	run->result->tried = true;
}

/* Whom a cycle would take first now. */
static void
choose(Rehearsal *run)
{
	DmuFailure *failures;
	DmuBacklog	backlog;
	int			nfailures;

	XactIsoLevel = XACT_REPEATABLE_READ;
	dmu_warehouse_lock(run->warehouse);
	nfailures = dmu_failures_list(run->warehouse->users, &failures);
	dmu_priority_look(run->warehouse, failures, nfailures, &backlog);
	run->result->nheld = backlog.nheld - backlog.nparked;
	run->result->nparked = backlog.nparked;
	dmu_priority_run(run->warehouse, &backlog, 1, take_first, run);
}

/*
 * A cycle knows it from its queue.  What is beyond the number that matters
 * need not be counted.
 */
static void
count_actions(Rehearsal *run)
{
	if (dmu_custom_plan_actions > 0 && dmu_settings_keep_plans())
		run->actions = (uint32) dmu_lookup_actions(run->warehouse,
												   run->result->dimension_user_id,
												   (int64) dmu_custom_plan_actions + 1);
}

static void
prepare(Rehearsal *run)
{
	dmu_transaction_begin();
	MemoryContextSwitchTo(run->context);
	run->warehouse = dmu_warehouse_resolve_again(run->control->request.users);
	if (run->result->wanted)
	{
		run->result->tried = true;
		count_actions(run);
	}
	else
		choose(run);
	dmu_transaction_commit(run->context);
	if (!run->result->tried)
		return;

	/* The prioritisation of a cycle does not have these. */
	dmu_transaction_begin();
	dmu_settings_apply_worker_settings();
	run->refresher = dmu_refresh_prepare(run->warehouse);
	dmu_refresh_rehearse(run->refresher);
	dmu_transaction_commit(run->context);
}

/* There was nothing to do: is there such a datamart user at all? */
static void
look_for_row(Rehearsal *run)
{
	dmu_transaction_begin();
	dmu_lookup_require(run->warehouse, run->result->dimension_user_id);
	dmu_transaction_commit(run->context);
}

static void
finish_refresh(Rehearsal *run, DmuOutcome outcome)
{
	run->result->outcome = outcome;
	run->result->modified = (outcome != DMU_SKIPPED);
	run->result->planned_alone = run->refresher != NULL &&
		dmu_refresh_planned_alone(run->refresher);
	run->result->usec = Max(GetCurrentTimestamp() - run->started_at, 0);
	if (outcome == DMU_FAILED || outcome == DMU_DEFERRED)
		run->control->error = run->error;
	dmu_slot_set_state(dmu_slot(run->control, DMU_COORDINATOR), DMU_WORKER_DONE);
}

static void
refresh(Rehearsal *run)
{
	DmuQueueEntry entry = {.dimension_user_id = run->result->dimension_user_id};
	DmuOutcome	outcome;
	DmuLimit	out_of_time;
	int			sender;

	debug_query_string = dmu_refresh_statement(run->refresher,
											   entry.dimension_user_id);
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
	dmu_slot_begin(dmu_slot(run->control, DMU_COORDINATOR), &entry);
	run->started_at = GetCurrentTimestamp();

	HOLD_CANCEL_INTERRUPTS();
	dmu_timers_begin(dmu_user_timeout);
	RESUME_CANCEL_INTERRUPTS();
	outcome = dmu_refresh(run->refresher, entry.dimension_user_id, run->actions,
						  NULL, &run->error);
	HOLD_CANCEL_INTERRUPTS();
	out_of_time = dmu_timers_end();
	sender = out_of_time == DMU_LIMIT_NONE ? dmu_cancel_sender() : 0;
	if (outcome == DMU_FAILED && sender != 0)
		dmu_explain_cancel(&run->error, "refresh was canceled", sender);
	else if (outcome == DMU_FAILED)
		dmu_explain_failure(&run->error, out_of_time,
							dmu_refresh_call_limit(run->refresher));
	finish_refresh(run, outcome);
	RESUME_CANCEL_INTERRUPTS();

	debug_query_string = NULL;
	pgstat_report_stat(false);
	if (outcome == DMU_SKIPPED)
		look_for_row(run);
}

/*
 * before_shmem_exit callback: a procedure that does not heed user_timeout
 * ends with its process, and the caller is to know.
 */
static void
rehearsal_exit(int code, Datum arg)
{
	Rehearsal  *run = (Rehearsal *) DatumGetPointer(arg);

	if (run->started_at == 0 || dmu_timers_out_of_time() == DMU_LIMIT_NONE ||
		dmu_queue_phase(run->control) == DMU_PHASE_FINISHED)
		return;
	dmu_error_set(&run->error, ERRCODE_QUERY_CANCELED, "", NULL, NULL);
	dmu_explain_failure(&run->error, dmu_timers_out_of_time(),
						dmu_refresh_call_limit(run->refresher));
	strlcpy(run->error.hint,
			"The procedure did not end when it was canceled; look for EXCEPTION WHEN query_canceled or OTHERS.",
			sizeof(run->error.hint));
	finish_refresh(run, DMU_FAILED);
	dmu_queue_set_phase(run->control, DMU_PHASE_FINISHED);
}

void
dmu_rehearsal_main(Datum main_arg)
{
	Rehearsal  *run = MemoryContextAllocZero(TopMemoryContext,
											 sizeof(Rehearsal));
	int			number;

	run->control = dmu_launch_attach(main_arg, &number);
	if (run->control == NULL ||
		dmu_queue_stop(run->control) != DMU_STOP_NONE)
		return;
	run->result = &run->control->rehearsal;
	run->context = AllocSetContextCreate(TopMemoryContext,
										 "datamart_users rehearsal",
										 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(run->context);

	PG_TRY();
	{
		dmu_launch_assume_session(run->control);
		SetConfigOption("application_name", "datamart_users rehearsal",
						PGC_USERSET, PGC_S_SESSION);
		dmu_timers_start(run->control);
		before_shmem_exit(rehearsal_exit, PointerGetDatum(run));
		prepare(run);
		if (run->result->tried)
			refresh(run);
	}
	PG_CATCH();
	{
		dmu_error_catch(&run->error, run->context);
		run->control->error = run->error;
		run->result->tried = false;
	}
	PG_END_TRY();
	dmu_timers_stop();
	dmu_queue_set_phase(run->control, DMU_PHASE_FINISHED);
}
