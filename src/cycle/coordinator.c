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

#include "await.h"
#include "begin.h"
#include "cancel.h"
#include "directory.h"
#include "errors.h"
#include "explain.h"
#include "fill.h"
#include "finish.h"
#include "launch.h"
#include "log.h"
#include "miscadmin.h"
#include "notes.h"
#include "pgstat.h"
#include "queue.h"
#include "stop.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "timers.h"
#include "worker.h"

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

static void
begin_cycle(Coordination *c)
{
	dmu_begin_enter(c->control, c->handle, c->context);
	dmu_begin_cycle(c->control, GetCurrentTimestamp(), c->context);
	c->begun = true;
	dmu_launch_announce(c->control, DMU_COORDINATOR);
	dmu_queue_set_phase(c->control, DMU_PHASE_RUNNING);
	dmu_begin_wait_for_orphans(c->control);
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
		dmu_await_workers(c->control, c->workers, c->nworkers);
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
