/*-------------------------------------------------------------------------
 *
 * turn.c
 *		The turn of one datamart user: what its refresh came to.
 *
 *		Turns that into an outcome, counted in the slot; record.c writes down
 *		what went wrong.  An error belongs to the datamart user, unless
 *		trouble.c finds that it would hit everybody.
 *
 *		This file claims nobody, and does not know whose turn is next.
 *
 *-------------------------------------------------------------------------
 */
#include "turn.h"

#include "access/xact.h"
#include "cancel.h"
#include "errors.h"
#include "explain.h"
#include "failures.h"
#include "launch.h"
#include "log.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "record.h"
#include "refresh.h"
#include "settings.h"
#include "slot.h"
#include "stop.h"
#include "storage/ipc.h"
#include "streak.h"
#include "suspects.h"
#include "tcop/tcopprot.h"
#include "timers.h"
#include "trouble.h"
#include "utils/memutils.h"

struct DmuTurnTaker
{
	DmuControl *control;
	DmuSlot    *slot;
	int			number;			/* of the worker */
	MemoryContext warehouse_context;
	DmuWarehouse *warehouse;	/* in that */
	DmuRefresher *refresher;
	DmuQueueEntry *entry;		/* the last datamart user */
	DmuError	error;			/* of that */
	bool		exit_is_seen_to;
};

/* The users table of the process's one cycle. */
static Oid	users_table = InvalidOid;

/* DmuBeforeClear */
static void
clear_failure(int64 dimension_user_id)
{
	dmu_failures_clear(users_table, dimension_user_id);
}

/*
 * The refresh raised an error.  Returns false if it counts for the cycle and
 * not for the datamart user.
 */
static bool
handle_failure(DmuTurnTaker *run, const DmuQueueEntry *entry,
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
canceled_by(DmuTurnTaker *run, DmuOutcome outcome, DmuLimit out_of_time)
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
handle_cancel(DmuTurnTaker *run, const DmuQueueEntry *entry, int sender)
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
note_suspect(DmuTurnTaker *run, const DmuQueueEntry *entry)
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
handle_collision(DmuTurnTaker *run, DmuQueueEntry *entry)
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
is_doubtful(const DmuTurnTaker *run, const DmuQueueEntry *entry)
{
	return entry->turn == DMU_TURN_FIRST &&
		pg_atomic_read_u32(&run->control->workers_registered) > 1 &&
		dmu_refresh_may_have_collided(&run->error);
}

bool
dmu_turn_take(DmuTurnTaker *run, DmuQueueEntry *entry, bool probe)
{
	DmuOutcome	outcome = DMU_FAILED;
	int			streak = dmu_queue_streak(run->control).sqlerrcode;
	DmuLimit	out_of_time;
	int			sender;

	run->entry = entry;
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
turn_exit(int code, Datum arg)
{
	DmuTurnTaker *run = (DmuTurnTaker *) DatumGetPointer(arg);
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
	end_turn(run->entry, DMU_TURN_OVER);
}

DmuTurnTaker *
dmu_turn_create(DmuControl *control, int number)
{
	DmuTurnTaker *run = MemoryContextAllocZero(TopMemoryContext,
											   sizeof(DmuTurnTaker));

	run->control = control;
	run->number = number;
	run->slot = dmu_slot(control, number);
	run->warehouse_context = AllocSetContextCreate(TopMemoryContext,
												   "datamart_users warehouse",
												   ALLOCSET_SMALL_SIZES);
	users_table = control->request.users;
	return run;
}

void
dmu_turn_prepare(DmuTurnTaker *run)
{
	MemoryContext old_context;

	if (run->refresher != NULL)
		dmu_refresh_free(run->refresher);
	run->refresher = NULL;
	MemoryContextReset(run->warehouse_context);
	old_context = MemoryContextSwitchTo(run->warehouse_context);
	run->warehouse = dmu_warehouse_resolve_again(run->control->request.users);
	MemoryContextSwitchTo(old_context);
	run->refresher = dmu_refresh_prepare(run->warehouse);
	if (!run->exit_is_seen_to)
		before_shmem_exit(turn_exit, PointerGetDatum(run));
	run->exit_is_seen_to = true;
}
