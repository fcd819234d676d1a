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
 *		Whatever goes wrong on the way, finish.c has its turn: the history has the
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
#include "finish.h"
#include "history.h"
#include "launch.h"
#include "miscadmin.h"
#include "ownersql.h"
#include "pgstat.h"
#include "priority.h"
#include "queue.h"
#include "session.h"
#include "settings.h"
#include "storage/ipc.h"
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

	dmu_session_begin();
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
	dmu_session_commit(c->context);

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
	dmu_session_begin();
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
	dmu_session_commit(c->context);

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

/* An error that ends the cycle, on its way to history and caller. */
static void
note_error(Coordination *c, const DmuError *error)
{
	DmuControl *control = c->control;
	bool		canceled = (error->sqlerrcode == ERRCODE_QUERY_CANCELED);

	/* A cancel that was asked for is no error. */
	if (canceled && dmu_queue_stop(control) == DMU_STOP_CANCEL)
		return;

	dmu_queue_stop_with_error(control,
							  canceled ? DMU_STOP_ABORT : DMU_STOP_FAILED,
							  error);
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
		dmu_finish_cycle(c->control, c->workers, c->nworkers);
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
