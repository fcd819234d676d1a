/*-------------------------------------------------------------------------
 *
 * worker.c
 *		A worker: claims datamart users and refreshes them.
 *
 *		The loop of every worker, the coordinator among them.  It turns what a
 *		refresh came to into an outcome, counted in the slot; record.c writes
 *		down what went wrong.
 *
 *		An error belongs to one datamart user, so the loop goes on after it,
 *		unless trouble.c finds that it would hit everybody.
 *
 *-------------------------------------------------------------------------
 */
#include "worker.h"

#include "access/xact.h"
#include "cancel.h"
#include "errors.h"
#include "explain.h"
#include "failures.h"
#include "launch.h"
#include "log.h"
#include "miscadmin.h"
#include "notes.h"
#include "ownersql.h"
#include "pgstat.h"
#include "record.h"
#include "refresh.h"
#include "transaction.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/sinval.h"
#include "suspects.h"
#include "tcop/tcopprot.h"
#include "trouble.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "warehouse.h"
#include "timers.h"

/* The worker of a service that stays, however long there is nothing to do. */
#define DMU_LAST_TO_REST (DMU_COORDINATOR + 1)

/* How often a worker of a service looks at its memory, milliseconds. */
#define DMU_WEIGH 1000

struct DmuWorker
{
	DmuControl *control;
	DmuQueue   *queue;			/* NULL if it is empty */
	DmuQueueMap map;			/* that of a service */
	DmuSlot    *slot;
	int			number;
	int64		done;			/* datamart users */
	int64		announced;		/* the cycle, of a service */
	TimestampTz weighed_at;		/* its memory; the same */
	MemoryContext context;		/* reset after each of them */
	MemoryContext warehouse_context;
	DmuWarehouse *warehouse;	/* in that */
	DmuRefresher *refresher;
	DmuError	error;			/* of the last datamart user */
};

/* The users table of the process's one cycle. */
static Oid	users_table = InvalidOid;

/* DmuBeforeClear */
static void
clear_failure(int64 dimension_user_id)
{
	dmu_failures_clear(users_table, dimension_user_id);
}

/* True if no further datamart user is to be claimed. */
static bool
must_stop(DmuWorker *run)
{
	DmuControl *control = run->control;
	int			sender;

	/*
	 * A cancel that comes between two datamart users has nothing to cancel;
	 * for the coordinator it means the cycle.
	 */
	if (run->number == DMU_COORDINATOR)
		dmu_trouble_take_cancel(control);
	else
		(void) dmu_cancel_take(&sender);
	CHECK_FOR_INTERRUPTS();
	if (!PostmasterIsAlive())
		proc_exit(1);

	if (control->deadline != 0 && GetCurrentTimestamp() >= control->deadline)
		dmu_queue_request_stop(control, DMU_STOP_TIME_LIMIT);
	dmu_timers_look();
	return dmu_queue_stop(control) != DMU_STOP_NONE;
}

/*
 * The refresh raised an error.  Returns false if it counts for the cycle and
 * not for the datamart user.
 */
static bool
handle_failure(DmuWorker *run, const DmuQueueEntry *entry,
			   DmuLimit out_of_time, bool probe)
{
	DmuControl *control = run->control;

	if (dmu_queue_stop(control) >= DMU_STOP_CANCEL)
		return false;

	dmu_slot_set_state(run->slot, DMU_WORKER_RECORDING);
	dmu_explain_failure(&run->error, out_of_time,
						dmu_refresh_call_limit(run->refresher));
	if (dmu_trouble_ends_cycle(control, &run->error, probe))
	{
		dmu_queue_stop_with_error(control, DMU_STOP_FAILED, &run->error);
		return false;
	}
	dmu_record_failure(control, run->number, entry->dimension_user_id,
					   &run->error, false);
	return true;
}

/*
 * The process that has canceled the refresh, see dmu_cancel_sender(); 0 if it
 * was the cycle, a limit or nobody.
 */
static int
canceled_by(DmuWorker *run, DmuOutcome outcome, DmuLimit out_of_time)
{
	if (outcome != DMU_FAILED || out_of_time != DMU_LIMIT_NONE ||
		dmu_queue_stop(run->control) >= DMU_STOP_CANCEL)
		return 0;
	return dmu_cancel_sender();
}

/*
 * Somebody has canceled the refresh.  That says nothing of the datamart user,
 * so it gets no back-off; nor does it come again in this cycle, of whom it was
 * just kept off.  A coordinator that is canceled ends its cycle.  False if it
 * counts for the cycle and not for the datamart user.
 */
static bool
handle_cancel(DmuWorker *run, const DmuQueueEntry *entry, int sender)
{
	if (run->number == DMU_COORDINATOR)
	{
		dmu_explain_cancel(&run->error, DMU_COORDINATOR_CANCELED, sender);
		dmu_queue_stop_with_error(run->control, DMU_STOP_ABORT, &run->error);
		return false;
	}
	dmu_slot_set_state(run->slot, DMU_WORKER_RECORDING);
	dmu_explain_cancel(&run->error, "refresh was canceled", sender);
	ereport(LOG,
			(errmsg("%s: deferred datamart user " INT64_FORMAT ": %s",
					dmu_log_worker(run->number), entry->dimension_user_id,
					run->error.message),
			 DMU_LOG_ALONE));
	dmu_record_deferral(run->control, entry->dimension_user_id, &run->error,
						false, true);
	return true;
}

/* See dmu_suspects_note(); false if that raised an error. */
static bool
note_suspect(DmuWorker *run, const DmuQueueEntry *entry)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool noted = false;

	PG_TRY();
	{
		dmu_suspects_note(run->control->request.users,
						  run->control->request.users_name,
						  run->number, entry->dimension_user_id,
						  run->control->head.cycle_id);
		noted = true;
	}
	PG_CATCH();
	{
		dmu_error_catch(&run->error, context);
	}
	PG_END_TRY();
	return noted;
}

/*
 * The extension is not to be dropped under a cycle.  Without it the coordinator
 * cannot go on; that is an error, which ends the cycle.
 */
static bool
protect(DmuWorker *run)
{
	if (run->number == DMU_COORDINATOR)
		dmu_owner_protect();
	else if (!dmu_owner_try_protect())
	{
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s: leaves the cycle to the others, because somebody is about to drop the extension",
						dmu_log_worker(run->number))));
		return false;
	}
	return true;
}

/* It could be dropped since a transaction was aborted. */
static bool
renew_protection(DmuWorker *run)
{
	MemoryContext context = CurrentMemoryContext;
	bool		result;

	if (dmu_owner_is_protected())
		return true;
	dmu_transaction_begin();
	dmu_transaction_limit_waits();
	result = protect(run);
	dmu_transaction_commit(context);
	return result;
}

/*
 * True if another datamart user may be taken.  Protection comes first: it may
 * wait for a catalog, and whoever is terminated then must not have taken anybody.
 */
static bool
may_go_on(DmuWorker *run)
{
	return renew_protection(run) && !must_stop(run);
}

/*
 * Last of all, and with no interrupt between this and the slot: a worker that is
 * terminated on the way leaves a datamart user that has failed, and nobody is
 * to take that one up again.  With a service the entry is the coordinator's
 * from here on.
 */
static void
end_turn(DmuQueueEntry *entry, DmuTurn turn)
{
	pg_write_barrier();
	entry->turn = turn;
}

/*
 * It kept colliding.  True if it comes again when the others are through, and
 * has no outcome yet.
 *
 * A row that somebody else keeps locked will hardly be free by then, and would
 * cost the coordinator a second each time.  Where the procedure collided, the
 * datamart user must not be in the way of others in the next cycles.
 */
static bool
handle_collision(DmuWorker *run, DmuQueueEntry *entry)
{
	DmuStage	stage = dmu_refresh_stage(run->refresher);
	bool		again = entry->turn == DMU_TURN_FIRST &&
	(stage == DMU_STAGE_CALL ||
	 run->error.sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE);

	ereport(LOG,
			(errmsg(again ?
					"%s: put off datamart user " INT64_FORMAT " to the end of the cycle: %s" :
					"%s: deferred datamart user " INT64_FORMAT ": %s",
					dmu_log_worker(run->number), entry->dimension_user_id,
					run->error.message),
			 DMU_LOG_ALONE));
	if (stage == DMU_STAGE_CALL || !again)
	{
		dmu_slot_set_state(run->slot, DMU_WORKER_RECORDING);
		dmu_record_deferral(run->control, entry->dimension_user_id,
							&run->error, stage == DMU_STAGE_CALL, !again);
	}
	if (stage == DMU_STAGE_CALL)
		entry->has_failure = true;
	return again;
}

/*
 * A failure that may be another worker's doing; whether it is shows when nobody
 * else works.
 */
static bool
is_doubtful(const DmuWorker *run, const DmuQueueEntry *entry)
{
	return entry->turn == DMU_TURN_FIRST &&
		pg_atomic_read_u32(&run->control->workers_registered) > 1 &&
		dmu_refresh_may_have_collided(&run->error);
}

/*
 * One datamart user; false if it has no outcome, or none that is to be
 * counted.
 */
static bool
work_on(DmuWorker *run, DmuQueueEntry *entry, bool probe)
{
	DmuOutcome	outcome = DMU_FAILED;
	int			streak = dmu_queue_streak(run->control).sqlerrcode;
	DmuLimit	out_of_time;
	int			sender;

	dmu_slot_begin(run->slot, entry);
	debug_query_string = dmu_refresh_statement(run->refresher,
											   entry->dimension_user_id);
	pgstat_report_activity(STATE_RUNNING, debug_query_string);

	dmu_timers_begin(dmu_user_timeout);
	RESUME_CANCEL_INTERRUPTS();
	if (!run->control->follows_crash || note_suspect(run, entry))
		outcome = dmu_refresh(run->refresher, entry->dimension_user_id,
							  entry->actions,
							  entry->has_failure ? clear_failure : NULL,
							  &run->error);
	HOLD_CANCEL_INTERRUPTS();
	out_of_time = dmu_timers_end();
	sender = canceled_by(run, outcome, out_of_time);

	if (outcome == DMU_FAILED && is_doubtful(run, entry))
		outcome = DMU_DEFERRED;
	if (outcome == DMU_FAILED &&
		!(sender != 0 ? handle_cancel(run, entry, sender) :
		  handle_failure(run, entry, out_of_time, probe)))
	{
		dmu_slot_set_state(run->slot, DMU_WORKER_IDLE);
		return false;
	}
	if (sender != 0)
		outcome = DMU_DEFERRED;
	else if (outcome == DMU_DEFERRED && handle_collision(run, entry))
	{
		dmu_slot_postpone(run->slot);
		end_turn(entry, DMU_TURN_AGAIN);
		return false;
	}
	if (outcome == DMU_PROCESSED)
	{
		dmu_queue_end_streak(run->control, streak);
		if (dmu_refresh_planned_alone(run->refresher))
			dmu_slot_plans_alone(run->slot);
	}

	entry->fresh = outcome == DMU_PROCESSED || outcome == DMU_SKIPPED;
	dmu_slot_end(run->control, run->slot, outcome);
	end_turn(entry, DMU_TURN_OVER);
	return true;
}

/*
 * before_shmem_exit callback, and so still able to run transactions.  A
 * procedure that does not heed user_timeout ends the process with it, and in
 * the coordinator the cycle.  Its datamart user must have a back-off, or that
 * would happen in every cycle.  An error here only ends the callback.
 */
static void
worker_exit(int code, Datum arg)
{
	DmuWorker  *run = (DmuWorker *) DatumGetPointer(arg);
	int64		id = (int64) pg_atomic_read_u64(&run->slot->dimension_user_id);

	if (pg_atomic_read_u32(&run->slot->state) != DMU_WORKER_REFRESHING ||
		dmu_timers_out_of_time() == DMU_LIMIT_NONE ||
		dmu_queue_stop(run->control) >= DMU_STOP_CANCEL)
		return;

	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(TopMemoryContext);
	dmu_explain_timeout(&run->error, dmu_timers_out_of_time(),
						dmu_refresh_call_limit(run->refresher));
	dmu_slot_set_state(run->slot, DMU_WORKER_RECORDING);
	dmu_record_failure(run->control, run->number, id, &run->error, true);
	dmu_slot_end(run->control, run->slot, DMU_FAILED);
	dmu_slot_set_state(run->slot, DMU_WORKER_DONE);
}

/* False if it cannot take part. */
static bool
prepare_run(DmuWorker *run)
{
	MemoryContext old_context;

	dmu_transaction_begin();
	if (!protect(run))
	{
		dmu_transaction_commit(TopMemoryContext);
		return false;
	}
	dmu_settings_apply_worker_settings();
	if (run->refresher != NULL)
		dmu_refresh_free(run->refresher);
	run->refresher = NULL;
	MemoryContextReset(run->warehouse_context);
	old_context = MemoryContextSwitchTo(run->warehouse_context);
	run->warehouse = dmu_warehouse_resolve_again(run->control->request.users);
	MemoryContextSwitchTo(old_context);
	run->refresher = dmu_refresh_prepare(run->warehouse);
	dmu_transaction_commit(TopMemoryContext);
	return true;
}

bool
dmu_worker_renew(DmuWorker *run)
{
	return prepare_run(run);
}

DmuWorker  *
dmu_worker_begin(DmuControl *control, int number)
{
	DmuWorker  *run = MemoryContextAllocZero(TopMemoryContext,
											 sizeof(DmuWorker));

	run->control = control;
	run->number = number;
	if (control->request.poll == 0)
		run->queue = dmu_queue_open(control);
	run->slot = dmu_slot(control, number);
	run->context = AllocSetContextCreate(TopMemoryContext,
										 "datamart_users worker",
										 ALLOCSET_DEFAULT_SIZES);
	run->warehouse_context = AllocSetContextCreate(TopMemoryContext,
												   "datamart_users warehouse",
												   ALLOCSET_SMALL_SIZES);
	users_table = control->request.users;
	if ((run->queue != NULL || control->request.poll > 0) && !prepare_run(run))
		return NULL;
	dmu_slot_set_state(run->slot, DMU_WORKER_IDLE);
	before_shmem_exit(worker_exit, PointerGetDatum(run));
	return run;
}

/* One datamart user, and what is to be done after each. */
static void
take_turn(DmuWorker *run, DmuQueueEntry *entry, bool probe)
{
	if (work_on(run, entry, probe) && dmu_log_every_users > 0 &&
		++run->done % dmu_log_every_users == 0)
		ereport(LOG,
				(errmsg_plural("%s: processed %lld datamart user (current: datamart user %lld)",
							   "%s: processed %lld datamart users (current: datamart user %lld)",
							   (unsigned long) run->done, dmu_log_worker(run->number),
							   (long long) run->done,
							   (long long) entry->dimension_user_id),
				 DMU_LOG_ALONE));
	pgstat_report_stat(false);
	if (run->number == DMU_COORDINATOR)
		dmu_notes_on_the_way(run->control,
							 (TimestampTz) pg_atomic_read_u64(&run->slot->since));
	MemoryContextReset(run->context);
}

/*
 * A cancel is for a refresh.  Anywhere else, be it in the report of a failure,
 * it would end the worker.
 */
static MemoryContext
begin_turns(DmuWorker *run)
{
	HOLD_CANCEL_INTERRUPTS();
	return MemoryContextSwitchTo(run->context);
}

static void
end_turns(DmuWorker *run, MemoryContext old_context)
{
	if (run->control->follows_crash)
		dmu_suspects_forget(run->control->request.users, run->number);
	debug_query_string = NULL;
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(old_context);
	RESUME_CANCEL_INTERRUPTS();
}

void
dmu_worker_first_turn(DmuWorker *run)
{
	MemoryContext old_context = begin_turns(run);

	while (run->queue != NULL && may_go_on(run))
	{
		bool		probe = dmu_trouble_wants_probe(run->control);
		DmuQueueEntry *entry = dmu_queue_claim(run->queue, probe);

		if (entry == NULL)
			break;
		take_turn(run, entry, probe);
	}
	end_turns(run, old_context);
}

/* The next cycle has begun. */
static void
announce(DmuWorker *run)
{
	if (run->announced == run->control->head.cycle_id)
		return;
	run->announced = run->control->head.cycle_id;
	dmu_launch_announce(run->control, run->number);
}

bool
dmu_worker_take(DmuWorker *run, DmuQueue *queue)
{
	MemoryContext old_context = begin_turns(run);
	bool		probe = dmu_trouble_wants_probe(run->control);
	DmuQueueEntry *entry = NULL;

	announce(run);
	if (may_go_on(run))
		entry = dmu_queue_claim(queue, probe);
	if (entry != NULL)
		take_turn(run, entry, probe);
	end_turns(run, old_context);
	return entry != NULL;
}

bool
dmu_worker_take_again(DmuWorker *run, DmuQueueEntry *entries, uint32 nentries,
					  uint32 *position)
{
	MemoryContext old_context = begin_turns(run);
	DmuQueueEntry *entry = NULL;

	announce(run);
	if (may_go_on(run))
		entry = dmu_queue_next_again(entries, nentries, position);
	if (entry != NULL)
	{
		take_turn(run, entry, false);
		(*position)++;
	}
	end_turns(run, old_context);
	return entry != NULL;
}

void
dmu_worker_second_turn(DmuWorker *run)
{
	MemoryContext old_context = begin_turns(run);
	DmuQueueEntry *entry;
	uint32		position = 0;

	while (run->queue != NULL && may_go_on(run) &&
		   (entry = dmu_queue_next_again(run->queue->entries,
										 run->queue->nentries,
										 &position)) != NULL)
	{
		take_turn(run, entry, false);
		position++;
	}
	end_turns(run, old_context);
}

/* True if it gives back its slot when it has rested for long. */
static bool
may_leave(const DmuWorker *run)
{
	return run->number > DMU_LAST_TO_REST && dmu_worker_idle_timeout > 0;
}

/*
 * Holds nothing that anybody could wait for, and tells what it has counted.  An
 * idle process of the background takes no part in catching up on invalidations
 * by itself; one that falls too far behind loses all its plans.
 */
static void
rest(DmuWorker *run, bool begins)
{
	if (begins)
	{
		dmu_queue_call_coordinator(run->control);
		if (run->control->follows_crash)
			dmu_suspects_forget(run->control->request.users, run->number);
		dmu_owner_unprotect();
		pgstat_report_stat(true);
		debug_query_string = NULL;
		pgstat_report_activity(STATE_IDLE, NULL);
	}
	while (catchupInterruptPending)
		ProcessCatchupInterrupt();
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
					 (may_leave(run) ? WL_TIMEOUT : 0),
					 dmu_worker_idle_timeout, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/*
 * True if this process has grown beyond its limit and is the one to leave: one
 * at a time, so that the others keep their plans meanwhile.
 */
static bool
has_grown(DmuWorker *run)
{
	Size		limit = (Size) dmu_worker_memory_limit * 1024;
	TimestampTz now = GetCurrentTimestamp();
	Size		size;
	uint32		expected = 0;

	if (limit == 0 ||
		!TimestampDifferenceExceeds(run->weighed_at, now, DMU_WEIGH))
		return false;
	run->weighed_at = now;
	size = MemoryContextMemAllocated(TopMemoryContext, true);
	if (size <= limit ||
		!pg_atomic_compare_exchange_u32(&run->control->service.leaving,
										&expected, MyProcPid))
		return false;
	ereport(LOG,
			(errmsg("%s: leaves to another process, because it has %zu kB of memory",
					dmu_log_worker(run->number), size / 1024),
			 DMU_LOG_ALONE));
	return true;
}

/* The same for one whose settings have changed, that has taken nobody. */
static bool
is_outdated(DmuWorker *run)
{
	uint32		expected = 0;

	if (!dmu_launch_is_outdated(run->control) ||
		!pg_atomic_compare_exchange_u32(&run->control->service.leaving,
										&expected, MyProcPid))
		return false;
	ereport(LOG,
			(errmsg("%s: leaves to another process, because settings have changed",
					dmu_log_worker(run->number)),
			 DMU_LOG_ALONE));
	return true;
}

/*
 * A worker of a service.  Nobody but the coordinator knows when there is more
 * to do; it sets the latch when there is, and when the service is to end.
 */
static void
serve(DmuWorker *run)
{
	MemoryContext old_context = begin_turns(run);
	TimestampTz rests_since = 0;

	while (!must_stop(run) && !is_outdated(run))
	{
		DmuQueue   *queue = dmu_queue_follow(run->control, &run->map);
		bool		probe = dmu_trouble_wants_probe(run->control);
		DmuQueueEntry *entry = NULL;

		if (queue != NULL && dmu_queue_left(queue) > 0)
		{
			if (!renew_protection(run))
				break;
			entry = dmu_queue_claim(queue, probe);
		}
		if (entry != NULL)
		{
			rests_since = 0;
			if (dmu_queue_runs_low(queue, entry))
				dmu_queue_call_coordinator(run->control);
			announce(run);
			take_turn(run, entry, probe);
			if (has_grown(run))
				break;
			continue;
		}
		if (rests_since != 0 && may_leave(run) &&
			TimestampDifferenceExceeds(rests_since, GetCurrentTimestamp(),
									   dmu_worker_idle_timeout))
		{
			ereport(LOG,
					(errmsg("%s: gives back its process, because it had nothing to do for %d ms",
							dmu_log_worker(run->number), dmu_worker_idle_timeout),
					 DMU_LOG_ALONE));
			break;
		}
		rest(run, rests_since == 0);
		if (rests_since == 0)
			rests_since = GetCurrentTimestamp();
	}
	end_turns(run, old_context);
	dmu_queue_unmap(&run->map);
	dmu_slot_set_state(run->slot, DMU_WORKER_DONE);
}

void
dmu_worker_end(DmuWorker *run)
{
	DmuTally	tally = {.total_usec = 0};
	long long	processed;

	dmu_slot_set_state(run->slot, DMU_WORKER_DONE);
	dmu_slot_tally(run->slot, -1, &tally);
	processed = tally.outcomes[DMU_PROCESSED];
	if (tally.outcomes[DMU_FAILED] == 0)
		ereport(LOG,
				(errmsg_plural("%s: completed successfully (%lld datamart user processed)",
							   "%s: completed successfully (%lld datamart users processed)",
							   (unsigned long) processed, dmu_log_worker(run->number),
							   processed),
				 DMU_LOG_ALONE));
	else
		ereport(LOG,
				(errmsg_plural("%s: completed with failures (%lld datamart user processed, %lld failed)",
							   "%s: completed with failures (%lld datamart users processed, %lld failed)",
							   (unsigned long) processed, dmu_log_worker(run->number),
							   processed, (long long) tally.outcomes[DMU_FAILED]),
				 DMU_LOG_ALONE));
}

void
dmu_worker_main(Datum main_arg)
{
	int			number;
	DmuControl *control = dmu_launch_attach(main_arg, &number);
	DmuWorker  *worker;

	if (control == NULL)
		return;

	dmu_launch_assume_session(control);
	dmu_launch_announce(control, number);
	dmu_timers_start(control);

	/* What was set while it connected has not been signalled to it. */
	if (dmu_queue_stop(control) != DMU_STOP_NONE)
		return;
	worker = dmu_worker_begin(control, number);
	if (worker == NULL)
		return;
	if (control->request.poll > 0)
		serve(worker);
	else
	{
		dmu_worker_first_turn(worker);
		dmu_worker_end(worker);
	}
	dmu_timers_stop();
}
