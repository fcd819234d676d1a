/*-------------------------------------------------------------------------
 *
 * worker.c
 *		A worker: claims datamart users and refreshes them.
 *
 *		The loop of every worker, the coordinator among them: may it go on, whom
 *		does it take, and what is to be done after each.  A failure of one does
 *		not end the loop.
 *
 *		This file does not know what becomes of a datamart user (turn.c), nor
 *		when a worker of a service leaves (rest.c).
 *
 *-------------------------------------------------------------------------
 */
#include "worker.h"

#include "cancel.h"
#include "launch.h"
#include "log.h"
#include "miscadmin.h"
#include "notes.h"
#include "ownersql.h"
#include "pgstat.h"
#include "rest.h"
#include "settings.h"
#include "slot.h"
#include "stop.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "suspects.h"
#include "tcop/tcopprot.h"
#include "timers.h"
#include "transaction.h"
#include "trouble.h"
#include "turn.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

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
	DmuTurnTaker *turns;
};

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

/* False if it cannot take part. */
static bool
prepare_run(DmuWorker *run)
{
	dmu_transaction_begin();
	if (!protect(run))
	{
		dmu_transaction_commit(TopMemoryContext);
		return false;
	}
	dmu_settings_apply_worker_settings();
	dmu_turn_prepare(run->turns);
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
	run->turns = dmu_turn_create(control, number);
	if ((run->queue != NULL || control->request.poll > 0) && !prepare_run(run))
		return NULL;
	dmu_slot_set_state(run->slot, DMU_WORKER_IDLE);
	pg_atomic_write_u32(&run->slot->joined, 1);
	return run;
}

/* One datamart user, and what is to be done after each. */
static void
take_turn(DmuWorker *run, DmuQueueEntry *entry, bool probe)
{
	if (dmu_turn_take(run->turns, entry, probe) && dmu_log_every_users > 0 &&
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

/*
 * A worker of a service.  Nobody but the coordinator knows when there is more
 * to do; it sets the latch when there is, and when the service is to end.
 */
static void
serve(DmuWorker *run)
{
	MemoryContext old_context = begin_turns(run);
	TimestampTz rests_since = 0;

	while (!must_stop(run) &&
		   !dmu_rest_is_outdated(run->control, run->number))
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
			if (dmu_rest_has_grown(run->control, run->number,
								   &run->weighed_at))
				break;
			continue;
		}
		if (rests_since != 0 && dmu_rest_is_over(run->number, rests_since))
			break;
		dmu_rest_wait(run->control, run->number, rests_since == 0);
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
