/*-------------------------------------------------------------------------
 *
 * finish.c
 *		The end of a cycle, of whatever kind.
 *
 *		Part of the coordinator: when its workers have stopped (await.c) it
 *		settles what those left undone that were terminated, makes up the
 *		result and writes it into the history.
 *
 *-------------------------------------------------------------------------
 */
#include "finish.h"

#include "await.h"
#include "cancel.h"
#include "errors.h"
#include "history.h"
#include "log.h"
#include "miscadmin.h"
#include "notes.h"
#include "ownersql.h"
#include "progress.h"
#include "record.h"
#include "settings.h"
#include "slot.h"
#include "stop.h"
#include "timers.h"
#include "transaction.h"
#include "trouble.h"

void
dmu_finish_commit(DmuControl *control, MemoryContext context)
{
	/* In this order: a signal that is cleared has set the flag before. */
	dmu_cancel_clear();
	dmu_timers_finish(control);
	dmu_transaction_commit(context);
	if (dmu_cancel_was_taken())
		pg_atomic_write_u32(&control->not_replicated, 1);
}

/*
 * A worker that was terminated in the midst of a refresh could not write down
 * what became of it.
 */
bool
dmu_finish_lost_worker(DmuControl *control, int number)
{
	DmuSlot    *slot = dmu_slot(control, number);
	uint32		state = pg_atomic_read_u32(&slot->state);
	int64		id = (int64) pg_atomic_read_u64(&slot->dimension_user_id);

	if (state != DMU_WORKER_REFRESHING && state != DMU_WORKER_RECORDING)
		return false;
	if (dmu_queue_stop(control) < DMU_STOP_CANCEL)
	{
		DmuError   *error = palloc(sizeof(DmuError));

		dmu_error_set(error, ERRCODE_ADMIN_SHUTDOWN,
					  psprintf("worker %d was terminated during the refresh", number),
					  NULL, NULL);
		dmu_record_failure(control, number, id, error, false);
		dmu_slot_end(control, slot, DMU_FAILED);
		pfree(error);
	}
	dmu_slot_set_state(slot, DMU_WORKER_DONE);
	return true;
}

/*
 * Those that collided in their first turn and have not had a second one, or
 * not to its end.  Returns how many.
 */
static int
count_put_off(DmuControl *control, DmuQueueEntry *entries, uint32 nentries)
{
	DmuQueueEntry *entry;
	uint32		position = 0;
	int			put_off = 0;
	int			capacity = 64;
	int64	   *ids = palloc(capacity * sizeof(int64));

	while ((entry = dmu_queue_next_again(entries, nentries, &position)) != NULL)
	{
		entry->turn = DMU_TURN_OVER;
		dmu_slot_count(dmu_slot(control, DMU_COORDINATOR),
					   (DmuPriority) entry->priority, DMU_DEFERRED);
		if (put_off == capacity)
		{
			capacity *= 2;
			ids = repalloc_huge(ids, capacity * sizeof(int64));
		}
		ids[put_off++] = entry->dimension_user_id;
	}
	if (put_off > 0)
		dmu_record_put_off(control, ids, put_off);
	pfree(ids);
	return put_off;
}

/* Those that were started but have not come so far as to take part. */
static void
warn_missing_workers(DmuControl *control)
{
	int			registered = (int) pg_atomic_read_u32(&control->workers_registered);
	int			missing = 0;
	const DmuError *error = &control->missing_error;

	if (dmu_queue_stop(control) >= DMU_STOP_CANCEL || control->request.poll > 0)
		return;
	for (int number = DMU_COORDINATOR + 1; number <= registered; number++)
	{
		if (pg_atomic_read_u32(&dmu_slot(control, number)->state) == DMU_WORKER_EMPTY)
			missing++;
	}
	if (missing > 0)
		ereport(WARNING,
				(errmsg("%s: %d of %d workers did not take part",
						dmu_log_cycle(), missing, registered),
				 error->sqlerrcode != 0 ?
				 errdetail_internal("%s", error->message) : 0,
				 errhint("Look for their errors in the server log.")));
}

/* "put_off" of the outcomes are there only because the cycle had to stop. */
static DmuStatus
final_status(DmuControl *control, const DmuTally *total, int put_off)
{
	switch (dmu_queue_stop(control))
	{
		case DMU_STOP_ABORT:
			return DMU_STATUS_ABORTED;
		case DMU_STOP_FAILED:
			return DMU_STATUS_FAILED;
		case DMU_STOP_CANCEL:
		case DMU_STOP_TIME_LIMIT:
			/* To a service it means that it is to begin nobody any more. */
			if (control->request.poll > 0 &&
				dmu_queue_stop(control) == DMU_STOP_TIME_LIMIT)
				return DMU_STATUS_COMPLETED;

			/* It may have come when everything was done. */
			if (dmu_queue_phase(control) >= DMU_PHASE_QUEUED &&
				dmu_tally_done(total) - put_off == control->found)
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
make_result(DmuControl *control, int put_off, DmuCycleResult *result)
{
	DmuTally	total;

	dmu_queue_tally(control, -1, &total);
	dmu_progress_result(control, final_status(control, &total, put_off),
						result);
}

/*
 * What the history tells of an error or a limit that ended the cycle, or of
 * who canceled it; NULL if nothing did.
 */
static const char *
end_message(DmuControl *control, const DmuCycleResult *result)
{
	const DmuError *error = &control->error;

	if (result->status == DMU_STATUS_CANCELLED)
		return dmu_queue_stop_reason(control);
	if (result->status == DMU_STATUS_TIME_LIMIT)
		return psprintf("time limit of %g s reached %s",
						control->request.time_limit / 1000.0,
						dmu_queue_phase(control) < DMU_PHASE_QUEUED ?
						"before the queue was filled" :
						psprintf(ngettext("with " INT64_FORMAT " of %d datamart user still to do",
										  "with " INT64_FORMAT " of %d datamart users still to do",
										  control->found),
								 control->found - dmu_tally_done(&result->total),
								 control->found));
	if (error->sqlerrcode == 0 || dmu_failure_texts)
		return error->sqlerrcode == 0 ? NULL : error->message;
	return psprintf("SQLSTATE %s, its text is not kept",
					unpack_sql_state(error->sqlerrcode));
}

/*
 * Writes the history in a synchronous commit.  Flushing its WAL makes every
 * asynchronous commit of the workers durable, too: what the cycle reports as
 * processed is.  With a synchronous standby it waits as the caller would.
 */
static void
write_history(DmuControl *control, const DmuCycleResult *result)
{
	MemoryContext context = CurrentMemoryContext;
	DmuTally	tallies[DMU_NPRIORITIES];
	DmuProfile *profile = palloc(sizeof(DmuProfile));
	DmuIdle		idle;
	DmuCycleEnd end;

	for (int p = 0; p < DMU_NPRIORITIES; p++)
		dmu_queue_tally(control, p, &tallies[p]);

	end.result = result;
	end.users = control->request.users;
	end.max_users = control->max_users;
	end.prioritisation_usec = control->queued_at != 0 ?
		control->queued_at - control->started_at : -1;
	end.message = end_message(control, result);
	end.sqlerrcode = control->error.sqlerrcode;
	end.found_by_priority = control->found_by_priority;
	end.by_priority = tallies;
	dmu_queue_profile(control, profile);
	end.profile = profile;

	/* Of workers that were stopped it would tell who had come how far. */
	dmu_queue_idle(control, &idle);
	end.idle = result->status == DMU_STATUS_COMPLETED ||
		result->status == DMU_STATUS_TIME_LIMIT ? &idle : NULL;
	end.planned_alone = dmu_queue_planned_alone(control);

	dmu_transaction_begin();
	dmu_transaction_limit_waits();
	dmu_owner_protect();
	dmu_transaction_be_durable(control->identity.synchronous_commit);
	dmu_history_end(&end);
	dmu_finish_commit(control, context);
}

/*
 * In a transaction of its own, as its errors are no errors of the cycle.  What
 * stays this time goes after the next cycle.
 */
static void
remove_old_history(DmuControl *control)
{
	MemoryContext context = CurrentMemoryContext;
	DmuError   *error = palloc(sizeof(DmuError));

	PG_TRY();
	{
		dmu_transaction_begin();
		dmu_transaction_limit_waits();
		dmu_history_remove_old(control->request.users, dmu_history_retention);
		dmu_finish_commit(control, context);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, context);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("%s: could not remove old history: %s",
						dmu_log_cycle(), error->message)));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	pfree(error);
}

static void
log_summary(DmuControl *control, const DmuCycleResult *result)
{
	const int64 *outcomes = result->total.outcomes;
	char	   *workers = psprintf(ngettext("%d worker", "%d workers", result->workers),
								   result->workers);
	const char *message = end_message(control, result);

	ereport(LOG,
			(errmsg_plural("%s: %s, processed %lld of %d datamart user (%lld failed, %lld skipped, %lld deferred) with %s in %.1f seconds",
						   "%s: %s, processed %lld of %d datamart users (%lld failed, %lld skipped, %lld deferred) with %s in %.1f seconds",
						   result->found, dmu_log_cycle(),
						   dmu_status_name(result->status),
						   (long long) outcomes[DMU_PROCESSED], result->found,
						   (long long) outcomes[DMU_FAILED],
						   (long long) outcomes[DMU_SKIPPED],
						   (long long) outcomes[DMU_DEFERRED], workers,
						   (result->finished_at - result->started_at) / 1000000.0),
			 message != NULL ? errdetail_internal("%s", message) : 0));
	pfree(workers);
}

void
dmu_finish_settle(DmuControl *control, DmuQueueEntry *entries, uint32 nentries)
{
	DmuCycleResult result;
	int			put_off;

	/* What could still be canceled is over, but for the waits of commits. */
	HOLD_CANCEL_INTERRUPTS();
	dmu_timers_finish(control);
	for (int number = DMU_COORDINATOR + 1; number <= control->nslots; number++)
		(void) dmu_finish_lost_worker(control, number);
	put_off = count_put_off(control, entries, nentries);
	dmu_trouble_settle(control);
	warn_missing_workers(control);
	make_result(control, put_off, &result);
	control->result = result;
	if (control->head.cycle_id != 0)
	{
		write_history(control, &result);
		log_summary(control, &result);
		dmu_notes_end(control);
		remove_old_history(control);
	}
	RESUME_CANCEL_INTERRUPTS();
}

void
dmu_finish_cycle(DmuControl *control, BackgroundWorkerHandle **workers,
				 int nworkers)
{
	DmuQueue   *queue;

	dmu_await_workers(control, workers, nworkers);
	queue = dmu_queue_phase(control) >= DMU_PHASE_QUEUED ?
		dmu_queue_open(control) : NULL;
	dmu_finish_settle(control, queue != NULL ? queue->entries : NULL,
					  queue != NULL ? queue->nentries : 0);
}
