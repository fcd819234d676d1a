/*-------------------------------------------------------------------------
 *
 * coordinator.c
 *		The background worker that owns a cycle and is its worker 1.
 *
 *		Takes the cycle lock, writes the running row, prioritises, fills the
 *		queue, launches the other workers, works, waits for them, writes the
 *		history.  It does this apart from the caller's backend so that a cycle
 *		can outlive its caller, and so that the caller holds no lock on the
 *		warehouse while it waits.
 *
 *		Whatever goes wrong on the way, finish() runs: the history has the
 *		last word on every cycle whose running row was committed.  Only if the
 *		process is terminated does that row stay; the next cycle finds it.
 *
 *-------------------------------------------------------------------------
 */
#include "coordinator.h"

#include "access/xact.h"
#include "directory.h"
#include "errors.h"
#include "failures.h"
#include "history.h"
#include "launch.h"
#include "miscadmin.h"
#include "names.h"
#include "ownersql.h"
#include "pgstat.h"
#include "priority.h"
#include "queue.h"
#include "settings.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "watchdog.h"
#include "worker.h"

typedef struct Coordination
{
	DmuControl *control;
	dsm_handle	handle;
	MemoryContext context;		/* lives as long as the cycle */
	bool		entered;		/* we hold the cycle lock */
	BackgroundWorkerHandle **workers;
	int			nworkers;

	/* The queue while it is read. */
	DmuQueueEntry *entries;
	uint32		nentries;
	uint32		capacity;
	DmuFailure *failures;
	int			nfailures;
} Coordination;

/*
 * The process ends.  If the cycle has not, its workers are to roll back; those
 * that have not started yet must not.
 */
static void
coordinator_exit(int code, Datum arg)
{
	Coordination *c = (Coordination *) DatumGetPointer(arg);

	if (dmu_queue_phase(c->control) == DMU_PHASE_FINISHED)
		return;
	dmu_queue_request_stop(c->control, DMU_STOP_ABORT);
	for (int i = 0; i < c->nworkers; i++)
		TerminateBackgroundWorker(c->workers[i]);
}

static void
begin_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

/* Ends a transaction and returns to the context that lives with the cycle. */
static void
end_transaction(Coordination *c)
{
	CommitTransactionCommand();
	MemoryContextSwitchTo(c->context);
}

/* Another process has the cycle lock; says which cycle that is, if it can. */
static void
raise_already_running(void)
{
	dsm_handle	handle = dmu_directory_find();
	dsm_segment *seg = NULL;
	DmuControl *other = NULL;

	if (handle != DSM_HANDLE_INVALID)
		other = dmu_queue_attach(handle, &seg);

	if (other == NULL || dmu_queue_phase(other) < DMU_PHASE_RUNNING)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a cycle of datamart_users is already being started in this database")));

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cycle " INT64_FORMAT " of datamart_users is already running in this database",
					other->cycle_id),
			 errdetail("It was started by role \"%s\" at %s; its coordinator has process ID %d.",
					   GetUserNameFromId(other->identity.current_role, true),
					   timestamptz_to_str(other->started_at),
					   (int) other->coordinator_pid),
			 errhint("Wait for it with datamart_users_wait_cycle(" INT64_FORMAT "), or stop it with datamart_users_cancel_cycle().",
					 other->cycle_id)));
}

/* From here on the cycle exists for everybody. */
static void
begin_cycle(Coordination *c)
{
	DmuControl *control = c->control;
	DmuCycleStart start;
	int			aborted;
	int			suspects;

	begin_transaction();
	dmu_owner_protect();
	if (!dmu_directory_enter(c->handle))
		raise_already_running();
	c->entered = true;

	control->coordinator_pid = MyProcPid;
	control->started_at = GetCurrentTimestamp();
	if (control->request.time_limit > 0)
		control->deadline =
			TimestampTzPlusMilliseconds(control->started_at,
										control->request.time_limit);

	start.role_name = GetUserNameFromId(GetUserId(), false);
	start.started_at = control->started_at;
	start.time_limit = control->request.time_limit;
	start.workers_requested = control->request.workers;
	aborted = dmu_history_mark_aborted(&control->follows_crash);
	suspects = dmu_failures_settle_suspects(control->follows_crash,
											dmu_retry_delay,
											dmu_retry_delay_max);
	control->cycle_id = dmu_history_begin(&start);
	end_transaction(c);

	dmu_launch_announce(control, DMU_COORDINATOR);
	dmu_queue_set_phase(control, DMU_PHASE_RUNNING);
	if (aborted > 0)
		ereport(LOG,
				(errmsg("datamart_users cycle " INT64_FORMAT ": marked an earlier cycle as aborted",
						control->cycle_id),
				 control->follows_crash ?
				 errdetail("The server went down during that cycle; %d datamart users that were at work are treated as failed.",
						   suspects) : 0));
}

/* DmuQueueRowConsumer */
static void
add_to_queue(const DmuQueueRow *row, void *arg)
{
	Coordination *c = (Coordination *) arg;
	DmuQueueEntry *entry;

	if (c->nentries == c->capacity)
	{
		c->capacity *= 2;
		c->entries = repalloc_huge(c->entries,
								   c->capacity * sizeof(DmuQueueEntry));
	}

	entry = &c->entries[c->nentries++];
	entry->dimension_user_id = row->dimension_user_id;
	entry->priority = dmu_priority_of(row->recency_class, row->activity_class);
	entry->has_failure = dmu_failures_find(c->failures, c->nfailures,
										   row->dimension_user_id) != NULL;
	c->control->found_by_priority[entry->priority]++;
}

static void
prioritise(Coordination *c)
{
	DmuControl *control = c->control;
	DmuWarehouse *warehouse;
	int64	   *held;
	int			nheld;

	pgstat_report_activity(STATE_RUNNING, "datamart_users: prioritisation");
	begin_transaction();
	XactIsoLevel = XACT_REPEATABLE_READ;
	MemoryContextSwitchTo(c->context);

	warehouse = dmu_warehouse_resolve();
	c->nfailures = dmu_failures_list(&c->failures);
	held = dmu_failures_held(c->failures, c->nfailures, &nheld);
	control->backlog = dmu_priority_backlog(warehouse);
	control->max_users =
		dmu_settings_max_users(control->request.max_users, control->backlog);

	c->capacity = 1024;
	c->entries = palloc(c->capacity * sizeof(DmuQueueEntry));
	(void) dmu_priority_run(warehouse, control->max_users, held, nheld,
							add_to_queue, c);
	control->found = (int32) c->nentries;
	dmu_queue_fill(control, c->entries, c->nentries);
	pfree(c->entries);
	pfree(held);
	pfree(c->failures);
	end_transaction(c);

	control->workers_wanted = Max(1, Min(control->request.workers, control->found));
	control->queued_at = GetCurrentTimestamp();
	dmu_queue_set_phase(control, DMU_PHASE_QUEUED);
	ereport(LOG,
			(errmsg("datamart_users cycle " INT64_FORMAT ": found %d datamart users to process (prioritised by relevance)",
					control->cycle_id, control->found)));
}

static void
launch_workers(Coordination *c)
{
	DmuControl *control = c->control;
	int			wanted = control->workers_wanted;

	c->workers = palloc0(wanted * sizeof(BackgroundWorkerHandle *));
	pg_atomic_write_u32(&control->workers_registered, 1);
	for (int number = DMU_COORDINATOR + 1; number <= wanted; number++)
	{
		if (!dmu_launch_register(c->handle, number, &c->workers[c->nworkers]))
			break;
		c->nworkers++;
		pg_atomic_add_fetch_u32(&control->workers_registered, 1);
	}

	if (1 + c->nworkers < wanted)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("datamart_users cycle " INT64_FORMAT ": started %d of %d workers",
						control->cycle_id, 1 + c->nworkers, wanted),
				 errhint("You might need to increase max_worker_processes.")));
	dmu_queue_set_phase(control, DMU_PHASE_WORKING);
	ereport(LOG,
			(errmsg("datamart_users cycle " INT64_FORMAT ": using %d workers for datamart users",
					control->cycle_id, 1 + c->nworkers)));
}

/*
 * Waits for the other workers.  They stop by themselves, if need be by the
 * stop flag; a cancel of ours sets that.
 */
static void
wait_for_workers(Coordination *c)
{
	DmuError   *error = palloc(sizeof(DmuError));
	volatile bool done = false;

	while (!done)
	{
		PG_TRY();
		{
			dmu_launch_wait(c->workers, c->nworkers);
			done = true;
		}
		PG_CATCH();
		{
			dmu_error_catch(error, c->context);
			if (dmu_queue_claim_error(c->control))
				c->control->error = *error;
			dmu_queue_request_stop(c->control, DMU_STOP_ABORT);
		}
		PG_END_TRY();
	}
	pfree(error);
}

/*
 * A worker that was terminated in the midst of a refresh could not write down
 * what became of it.
 */
static void
count_lost_workers(Coordination *c)
{
	DmuControl *control = c->control;
	DmuError   *error = palloc(sizeof(DmuError));

	for (int i = DMU_COORDINATOR; i < control->nslots; i++)
	{
		DmuSlot    *slot = &control->slots[i];
		uint32		state = pg_atomic_read_u32(&slot->state);
		int64		id = (int64) pg_atomic_read_u64(&slot->dimension_user_id);

		if (state != DMU_WORKER_REFRESHING && state != DMU_WORKER_RECORDING)
			continue;
		if (dmu_queue_stop(control) >= DMU_STOP_CANCEL)
		{
			dmu_slot_set_state(slot, DMU_WORKER_DONE);
			continue;
		}

		dmu_error_set(error, ERRCODE_ADMIN_SHUTDOWN,
					  psprintf("worker %d was terminated during the refresh", i + 1),
					  NULL, NULL);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("worker %d: failed to process datamart user " INT64_FORMAT ": %s",
						i + 1, id, error->message)));
		dmu_worker_record_failure(control, id, error);
		dmu_slot_end(control, slot, DMU_FAILED);
		dmu_slot_set_state(slot, DMU_WORKER_DONE);
	}
	pfree(error);
}

static DmuStatus
final_status(Coordination *c, const DmuTally *total)
{
	DmuControl *control = c->control;

	switch (dmu_queue_stop(control))
	{
		case DMU_STOP_ABORT:
			return DMU_STATUS_ABORTED;
		case DMU_STOP_FAILED:
			return DMU_STATUS_FAILED;
		case DMU_STOP_CANCEL:
		case DMU_STOP_TIME_LIMIT:
			/* It may have come when everything was done. */
			if (dmu_queue_phase(control) >= DMU_PHASE_QUEUED &&
				dmu_tally_done(total) == control->found)
				return DMU_STATUS_COMPLETED;
			return dmu_queue_stop(control) == DMU_STOP_CANCEL ?
				DMU_STATUS_CANCELLED : DMU_STATUS_TIME_LIMIT;
		case DMU_STOP_NONE:
			break;
	}
	return DMU_STATUS_COMPLETED;
}

/* What the history and the caller are told. */
static void
make_result(Coordination *c, DmuCycleResult *result)
{
	DmuControl *control = c->control;

	memset(result, 0, sizeof(*result));
	dmu_queue_tally(control, -1, &result->total);
	result->cycle_id = control->cycle_id;
	result->status = final_status(c, &result->total);
	result->backlog = control->backlog;
	result->found = control->found;
	result->started_at = control->started_at;
	result->finished_at = GetCurrentTimestamp();
	for (int i = 0; i < control->nslots; i++)
	{
		if (pg_atomic_read_u32(&control->slots[i].state) != DMU_WORKER_EMPTY)
			result->workers++;
	}
}

/*
 * Writes the history in a synchronous commit.  Flushing its WAL makes every
 * asynchronous commit of the workers durable, too: what the cycle reports as
 * processed is.  With a synchronous standby it waits as the caller would.
 */
static void
write_history(Coordination *c, const DmuCycleResult *result)
{
	DmuControl *control = c->control;
	const char *synchronous_commit = control->identity.synchronous_commit;
	DmuTally	tallies[DMU_NPRIORITIES];
	DmuProfile *profile = palloc(sizeof(DmuProfile));
	DmuCycleEnd end;

	for (int p = 0; p < DMU_NPRIORITIES; p++)
		dmu_queue_tally(control, p, &tallies[p]);

	end.result = result;
	end.max_users = control->max_users;
	end.prioritisation_usec = control->queued_at != 0 ?
		control->queued_at - control->started_at : -1;
	end.message = control->error.sqlerrcode != 0 ? control->error.message : NULL;
	end.found_by_priority = control->found_by_priority;
	end.by_priority = tallies;
	dmu_queue_profile(control, profile);
	end.profile = profile;

	begin_transaction();
	if (strcmp(synchronous_commit, "off") == 0)
		synchronous_commit = "local";
	(void) set_config_option("synchronous_commit", synchronous_commit,
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
							 true, 0, false);
	dmu_history_end(&end, dmu_history_retention);
	end_transaction(c);
}

static void
log_summary(const DmuCycleResult *result)
{
	const int64 *outcomes = result->total.outcomes;

	ereport(LOG,
			(errmsg("datamart_users cycle " INT64_FORMAT ": %s, processed " INT64_FORMAT " of %d datamart users (" INT64_FORMAT " failed, " INT64_FORMAT " skipped, " INT64_FORMAT " deferred) with %d workers in %.1f seconds",
					result->cycle_id, dmu_status_name(result->status),
					outcomes[DMU_PROCESSED], result->found,
					outcomes[DMU_FAILED], outcomes[DMU_SKIPPED],
					outcomes[DMU_DEFERRED], result->workers,
					(result->finished_at - result->started_at) / 1000000.0)));
}

/* An error that ends the cycle, on its way to history and caller. */
static void
note_error(Coordination *c, const DmuError *error)
{
	DmuControl *control = c->control;
	bool		canceled = (error->sqlerrcode == ERRCODE_QUERY_CANCELED);

	/* A cancel that was asked for is no error. */
	if (canceled && dmu_queue_stop(control) == DMU_STOP_CANCEL)
		return;

	if (dmu_queue_claim_error(control))
		control->error = *error;
	dmu_queue_request_stop(control,
						   canceled ? DMU_STOP_ABORT : DMU_STOP_FAILED);
}

/* The end of a cycle, of whatever kind. */
static void
finish(Coordination *c)
{
	DmuControl *control = c->control;
	DmuCycleResult result;

	if (c->workers != NULL)
	{
		wait_for_workers(c);
		count_lost_workers(c);
	}

	make_result(c, &result);
	if (control->cycle_id != 0)
	{
		write_history(c, &result);
		log_summary(&result);
	}
	control->result = result;
}

void
dmu_coordinator_main(Datum main_arg)
{
	Coordination *c = MemoryContextAllocZero(TopMemoryContext,
											 sizeof(Coordination));
	DmuError   *error = MemoryContextAllocZero(TopMemoryContext,
											   sizeof(DmuError));
	int			number;

	c->handle = DatumGetUInt32(main_arg);
	c->context = AllocSetContextCreate(TopMemoryContext,
									   "datamart_users coordinator",
									   ALLOCSET_DEFAULT_SIZES);
	c->control = dmu_launch_attach(main_arg, &number);
	if (c->control == NULL)
		return;
	before_shmem_exit(coordinator_exit, PointerGetDatum(c));
	MemoryContextSwitchTo(c->context);

	PG_TRY();
	{
		dmu_launch_assume_session(c->control);
		dmu_watchdog_start(c->control);
		begin_cycle(c);
		prioritise(c);
		launch_workers(c);
		dmu_worker_run(c->control, DMU_COORDINATOR);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, c->context);
		note_error(c, error);
	}
	PG_END_TRY();
	dmu_watchdog_stop();
	MemoryContextSwitchTo(c->context);

	PG_TRY();
	{
		finish(c);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, c->context);
		note_error(c, error);
	}
	PG_END_TRY();

	if (c->entered)
		dmu_directory_leave(c->handle);
	dmu_queue_set_phase(c->control, DMU_PHASE_FINISHED);
}
