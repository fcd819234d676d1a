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
#include "adopt.h"
#include "cancel.h"
#include "compat.h"
#include "directory.h"
#include "errors.h"
#include "explain.h"
#include "failures.h"
#include "fill.h"
#include "finish.h"
#include "history.h"
#include "launch.h"
#include "log.h"
#include "miscadmin.h"
#include "notes.h"
#include "ownersql.h"
#include "pgstat.h"
#include "progress.h"
#include "queue.h"
#include "transaction.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "suspects.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "timers.h"
#include "worker.h"

/* How often to look for workers of an earlier cycle, milliseconds. */
#define DMU_ORPHAN_POLL 50

/* How long to wait for them, milliseconds. */
#define DMU_ORPHAN_WAIT (2 * DMU_CANCEL_GRACE)

typedef struct Coordination
{
	DmuControl *control;
	dsm_handle	handle;
	MemoryContext context;		/* lives as long as the cycle */
	bool		begun;			/* its running row is committed */
	DmuLook		look;
	BackgroundWorkerHandle **workers;
	int			nworkers;
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

/*
 * The workers of a coordinator that was terminated are canceled, and end within
 * the grace; but the cycle lock has gone before them.
 */
static void
wait_for_orphans(Coordination *c)
{
	TimestampTz start = GetCurrentTimestamp();

	while (dmu_directory_has_workers(c->control->request.users))
	{
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(),
									   DMU_ORPHAN_WAIT))
		{
			ereport(WARNING,
					(errmsg("%s: workers of an earlier cycle have not ended within %d seconds",
							dmu_log_cycle(), DMU_ORPHAN_WAIT / 1000),
					 errdetail("The cycle goes on without waiting for them.")));
			return;
		}
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 DMU_ORPHAN_POLL, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * When the server began to work, after a crash too, when the postmaster is
 * older: the checkpointer is as old as the shared memory.  If it is not there
 * yet, that was just now.
 */
static TimestampTz
server_started(void)
{
	int			nbackends = pgstat_fetch_stat_numbackends();

	for (int i = 1; i <= nbackends; i++)
	{
		const PgBackendStatus *status = dmu_backend_status(i);

		if (status->st_backendType == B_CHECKPOINTER)
			return status->st_proc_start_timestamp;
	}
	return GetCurrentTimestamp();
}

/*
 * What says running in the history and does not run.  In this order: what
 * was committed as running before we look at the directory is there, or has
 * ended since.
 */
static int
mark_aborted(DmuControl *control)
{
	int64	   *cycle_ids;
	int			ncycles = dmu_history_list_running(control->request.users,
												   &cycle_ids);

	ncycles = dmu_progress_remove_running(cycle_ids, ncycles);
	if (ncycles > 0)
		ncycles = dmu_history_mark_aborted(cycle_ids, ncycles, server_started(),
										   &control->follows_crash);
	pfree(cycle_ids);
	return ncycles;
}

/* From here on the cycle exists for everybody. */
static void
begin_cycle(Coordination *c)
{
	DmuControl *control = c->control;
	DmuCycleStart start;
	int			aborted;
	int			suspects;

	dmu_transaction_begin();
	dmu_owner_protect();
	dmu_transaction_be_durable(control->identity.synchronous_commit);
	control->head.coordinator_pid = MyProcPid;
	if (!dmu_directory_enter(control->request.users, c->handle))
	{
		dmu_progress_refuse_second(control->request.users);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a cycle of datamart_users is just starting or ending in this database"),
				 errdetail("It is for the datamart users of %s.",
						   control->request.users_name),
				 errhint("Try again in a moment.")));
	}

	control->started_at = GetCurrentTimestamp();
	if (control->request.time_limit > 0)
		control->deadline =
			TimestampTzPlusMilliseconds(control->started_at,
										control->request.time_limit);

	namestrcpy(&control->role_name, GetUserNameFromId(GetUserId(), false));
	start.users = control->request.users;
	start.users_name = control->request.users_name;
	start.role_name = NameStr(control->role_name);
	start.session_role = GetUserNameFromId(control->identity.authenticated_role,
										   true);
	start.application_name = control->identity.application_name;
	start.caller_pid = control->caller_pid;
	start.started_at = control->started_at;
	start.time_limit = control->request.time_limit;
	start.workers_requested = control->request.workers;
	dmu_adopt_all(start.users, start.users_name);
	aborted = mark_aborted(control);
	dmu_failures_forget_undo(start.users);
	suspects = dmu_suspects_settle(start.users, start.users_name,
								   control->follows_crash,
								   dmu_retry_delay,
								   dmu_retry_delay_max);

	/* Who sees the row finds the cycle; see mark_aborted(). */
	control->head.cycle_id = dmu_history_begin(&start);
	dmu_finish_commit(control, c->context);
	c->begun = true;

	dmu_launch_announce(control, DMU_COORDINATOR);
	dmu_queue_set_phase(control, DMU_PHASE_RUNNING);
	if (aborted > 0)
		ereport(LOG,
				(errmsg_plural("%s: marked %d earlier cycle as aborted",
							   "%s: marked %d earlier cycles as aborted",
							   aborted, dmu_log_cycle(), aborted),
				 DMU_LOG_ALONE,
				 control->follows_crash ?
				 errdetail_plural("The server went down during that cycle; %d datamart user that was at work is treated as failed.",
								  "The server went down during that cycle; %d datamart users that were at work are treated as failed.",
								  suspects, suspects) : 0));
	wait_for_orphans(c);
}

static void
prioritise(Coordination *c)
{
	DmuControl *control = c->control;

	pgstat_report_activity(STATE_RUNNING, "datamart_users: prioritisation");
	dmu_fill_queue(control, c->context, &c->look);
	control->workers_wanted = Max(1, Min(control->request.workers, control->found));
	control->queued_at = GetCurrentTimestamp();
	dmu_queue_set_phase(control, DMU_PHASE_QUEUED);
	dmu_notes_begin(&c->look);
	ereport(LOG,
			(errmsg_plural("%s: found %d datamart user to process (prioritised by relevance)",
						   "%s: found %d datamart users to process (prioritised by relevance)",
						   control->found, dmu_log_cycle(), control->found),
			 DMU_LOG_ALONE,
			 errdetail("The users table is %s.", control->request.users_name)));
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
				 errmsg("%s: started %d of %d workers",
						dmu_log_cycle(), 1 + c->nworkers, wanted),
				 errhint("You might need to increase max_worker_processes.")));
	dmu_queue_set_phase(control, DMU_PHASE_WORKING);
	ereport(LOG,
			(errmsg_plural("%s: using %d worker for datamart users",
						   "%s: using %d workers for datamart users",
						   1 + c->nworkers, dmu_log_cycle(), 1 + c->nworkers),
			 DMU_LOG_ALONE));
}

/*
 * As worker 1.  Those that collided, with other workers maybe, come once more
 * when nobody else works.
 */
static void
work(Coordination *c)
{
	DmuWorker  *worker = dmu_worker_begin(c->control, DMU_COORDINATOR);

	dmu_worker_first_turn(worker);
	if (dmu_queue_stop(c->control) == DMU_STOP_NONE)
	{
		dmu_finish_wait(c->control, c->workers, c->nworkers);
		dmu_worker_second_turn(worker);
	}
	dmu_worker_end(worker);
}

/* A signal that came with the stop flag may have hit nothing. */
static bool
may_go_on(Coordination *c)
{
	return dmu_queue_stop(c->control) < DMU_STOP_CANCEL;
}

/* An error that ends the cycle, on its way to history and caller. */
static void
note_error(Coordination *c, DmuError *error)
{
	DmuControl *control = c->control;
	bool		canceled = (error->sqlerrcode == ERRCODE_QUERY_CANCELED);
	int			sender = canceled ? dmu_cancel_sender() : 0;

	/* A cancel by the stop flag is no error of a cycle that the history has. */
	if (canceled && c->begun && dmu_queue_stop(control) >= DMU_STOP_CANCEL)
		return;

	if (sender != 0)
		dmu_explain_cancel(error, DMU_COORDINATOR_CANCELED, sender);
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

		/* Once more: this one runs while we still have the cycle lock. */
		before_shmem_exit(coordinator_exit, PointerGetDatum(c));
		dmu_timers_start(c->control);
		if (may_go_on(c))
			begin_cycle(c);
		if (may_go_on(c))
			prioritise(c);
		if (may_go_on(c))
			launch_workers(c);
		if (may_go_on(c))
			work(c);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, c->context);
		note_error(c, error);
		if (!c->begun)
			c->control->head.cycle_id = 0;
	}
	PG_END_TRY();
	dmu_timers_stop();
	MemoryContextSwitchTo(c->context);

	PG_TRY();
	{
		dmu_finish_cycle(c->control, c->workers, c->nworkers);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, c->context);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("%s: could not write its end into the history: %s",
						dmu_log_cycle(), error->message)));
		note_error(c, error);
		c->control->result.status = DMU_STATUS_FAILED;
	}
	PG_END_TRY();

	dmu_directory_leave();
	dmu_queue_set_phase(c->control, DMU_PHASE_FINISHED);
}
