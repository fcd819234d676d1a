/*-------------------------------------------------------------------------
 *
 * service.c
 *		The background worker that owns a service: a cycle that goes on.
 *
 *		Looks, has workers do what there is to do, and looks again.  It works
 *		itself only when there is no worker, and on those that collided, when
 *		nobody else works; so a look is never late for a long refresh.
 *
 *		A cycle of the history is a stretch of work: it begins when a look finds
 *		somebody, and ends when there has been nobody for a while, or when it
 *		has lasted long enough.  Nobody is at work between two of them.  While
 *		there is none the service writes nothing, and holds nothing but its
 *		entry in the directory from one look to the next.
 *
 *		Whatever goes wrong ends the service, as it ends a cycle; what it could
 *		not finish stays flagged.
 *
 *-------------------------------------------------------------------------
 */
#include "service.h"

#include "allowed.h"
#include "begin.h"
#include "cancel.h"
#include "directory.h"
#include "errors.h"
#include "explain.h"
#include "fill.h"
#include "finish.h"
#include "log.h"
#include "miscadmin.h"
#include "notes.h"
#include "ownersql.h"
#include "pgstat.h"
#include "queues.h"
#include "renew.h"
#include "staff.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/sinval.h"
#include "timers.h"
#include "transaction.h"
#include "trouble.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker.h"

/* How long a cycle lasts at the most, and how long it waits for more, ms. */
#define DMU_CYCLE_LASTS 600000
#define DMU_CYCLE_LINGERS 5000

/* What those that are put off may take of the end of a cycle, milliseconds. */
#define DMU_CYCLE_CLOSES 5000

/* How often it looks whether it is in the way of somebody, milliseconds. */
#define DMU_GIVE_WAY 1000

/* How long a look waits for a lock, milliseconds. */
#define DMU_LOOK_LOCK_WAIT 1000

/*
 * A look queues what is taken until so many looks later, and no fewer than this
 * many datamart users: the rest only has to be put in order when its turn comes.
 */
#define DMU_LOOKS_AHEAD 4
#define DMU_LOOK_MIN 1000

/* Of so many looks the time that they take is averaged. */
#define DMU_LOOKS_AVERAGED 8

typedef struct Service
{
	DmuControl *control;
	dsm_handle	handle;
	MemoryContext context;		/* reset after every round */
	MemoryContext look_context; /* of the last look */
	DmuLook		look;
	DmuQueues  *queues;
	DmuStaff   *staff;
	DmuWorker  *worker;			/* this process; NULL until it is needed */
	TimestampTz next_look;
	TimestampTz earliest_look;	/* even if the queue is empty before that */
	int64		usual_look;		/* what looks take, microseconds, averaged */
	int64		behind;			/* who waits, and is not in the queue */
	int32		max_users;		/* that the next look is to queue */
	bool		blocked;		/* the last look met somebody's locks */
	TimestampTz gave_way;		/* the last time it could have */
	uint64		stored;			/* see renew.h */
	bool		renew;			/* settings have changed */
	bool		in_cycle;
	bool		told;			/* its end is in the history */
	TimestampTz quiet_since;	/* nobody waits or is at work; 0 = somebody */
	TimestampTz closing_since;	/* the cycle is to end; 0 = it goes on */
	bool		busy;			/* has done something in this round */
} Service;

/*
 * The process ends.  If the service has not, its workers are to roll back; those
 * that have not started yet must not.
 */
static void
service_exit(int code, Datum arg)
{
	Service    *s = (Service *) DatumGetPointer(arg);

	if (dmu_queue_phase(s->control) == DMU_PHASE_FINISHED)
		return;
	dmu_queue_request_stop(s->control, DMU_STOP_ABORT);
	if (s->staff != NULL)
		dmu_staff_terminate(s->staff);
}

/* True if "ms" have passed since; also if the clock was set back. */
static bool
passed(TimestampTz since, int ms)
{
	TimestampTz now = GetCurrentTimestamp();

	return now < since || TimestampDifferenceExceeds(since, now, ms);
}

static void
begin_cycle(Service *s, TimestampTz looked_at)
{
	DmuControl *control = s->control;

	control->backlog = s->look.backlog;
	control->max_users = control->request.max_users;
	dmu_begin_cycle(control, looked_at, s->context);
	s->in_cycle = true;
	s->quiet_since = 0;
	s->closing_since = 0;
	pg_atomic_fetch_add_u64(&control->service.cycles, 1);
}

/*
 * Inside PG_CATCH(): if it was somebody else's locks the next look will do, and
 * all others are raised.  As long as that lasts the log has it once.
 */
static void
let_pass(Service *s)
{
	DmuError   *error = MemoryContextAlloc(s->context, sizeof(DmuError));

	dmu_error_catch(error, s->context);
	if (dmu_queue_phase(s->control) == DMU_PHASE_CREATED ||
		(error->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE &&
		 error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED &&
		 error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE))
		dmu_error_raise(error);
	if (!s->blocked)
		ereport(LOG,
				(errmsg("%s: could not look who waits, and will look again: %s",
						dmu_log_cycle(), error->message),
				 DMU_LOG_ALONE));
	s->blocked = true;
}

/* False if it is to look again. */
static bool
try_to_begin_cycle(Service *s, TimestampTz looked_at)
{
	PG_TRY();
	{
		begin_cycle(s, looked_at);
	}
	PG_CATCH();
	{
		let_pass(s);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(s->context);
	return s->in_cycle;
}

/* Who the look has found is in the queue afterwards, unless it is to look again. */
static void
fill_queue(Service *s, DmuQueueEntry *entries, uint32 nentries)
{
	DmuControl *control = s->control;
	TimestampTz looked_at = s->look.at;
	uint32		left = dmu_queues_filter(s->queues, entries, nentries, false);

	s->behind = s->look.waiting - nentries;
	if (s->in_cycle ?
		!dmu_queues_is_same(s->queues, entries, left, s->behind) : left > 0)
	{
		bool		begins = !s->in_cycle;

		if (begins && !try_to_begin_cycle(s, looked_at))
			return;
		left = dmu_queues_filter(s->queues, entries, left, true);
		dmu_queues_publish(s->queues, entries, left, s->behind);
		if (begins)
		{
			control->queued_at = GetCurrentTimestamp();
			control->workers_wanted = Max(1, Min(control->request.workers, (int32) left));
			dmu_queues_count(s->queues);
			dmu_queue_set_phase(control, DMU_PHASE_WORKING);
		}
	}
	s->blocked = false;
	if (s->in_cycle)
	{
		dmu_queues_count(s->queues);
		dmu_notes_look(&s->look);
	}
}

/*
 * False if it is to look again; an error that stays is raised.  The first look is
 * that of whoever starts the service, and waits as he would.
 */
static bool
ask_warehouse(Service *s, MemoryContext context, DmuLook *found,
			  DmuQueueEntry **entries, uint32 *nentries)
{
	DmuControl *control = s->control;
	int			lock_wait = dmu_queue_phase(control) == DMU_PHASE_CREATED ?
	0 : DMU_LOOK_LOCK_WAIT;
	volatile bool asked = false;

	PG_TRY();
	{
		dmu_transaction_begin();
		if (lock_wait > 0)
			dmu_transaction_limit_locks(lock_wait);
		dmu_allowed_check(control);
		s->renew = dmu_renew_is_due(&s->stored) || s->renew;
		dmu_transaction_commit(s->context);

		dmu_queues_settle(s->queues);
		*nentries = dmu_fill_look(&control->request,
								  s->max_users + dmu_queues_left_out(s->queues),
								  lock_wait, context, found, entries);
		asked = true;
	}
	PG_CATCH();
	{
		let_pass(s);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(s->context);
	return asked;
}

/*
 * As many as will be taken until some looks later.  Where that was too few the
 * queue was empty before this one, and the next ones are longer.
 */
static void
plan_next_look(Service *s)
{
	int64		taken = dmu_queues_take_taken(s->queues) * DMU_LOOKS_AHEAD;

	taken = Max(taken, s->max_users / 2);
	s->max_users = (int32) Min(Max(taken, DMU_LOOK_MIN),
							   s->control->request.max_users);
}

static void
look(Service *s)
{
	DmuControl *control = s->control;
	TimestampTz start = GetCurrentTimestamp();
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "datamart_users look",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext last = s->look_context;
	DmuLook		found;
	DmuQueueEntry *entries;
	uint32		nentries;
	int64		took;

	pgstat_report_activity(STATE_RUNNING, "datamart_users: prioritisation");
	if (ask_warehouse(s, context, &found, &entries, &nentries))
	{
		s->look = found;
		s->look_context = context;
		fill_queue(s, entries, nentries);
		pfree(entries);
		dmu_notes_counts(control, &s->look);
		context = last;
	}
	if (context != NULL)
		MemoryContextDelete(context);
	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(false);

	/*
	 * Looks leave as much time for the rest as they take, on average: after a
	 * single one that took long, those who came meanwhile must not wait as
	 * long again.
	 */
	took = Max(GetCurrentTimestamp() - start, 0);
	s->usual_look += (took - s->usual_look) / DMU_LOOKS_AVERAGED;
	s->earliest_look = start + took + s->usual_look;
	s->next_look = Max(start + control->request.poll * 1000, s->earliest_look);
	plan_next_look(s);
	pg_atomic_write_u64(&control->service.look_usec, (uint64) took);
	pg_atomic_write_u64(&control->service.looked_at, (uint64) start);
	pg_atomic_fetch_add_u64(&control->service.looks, 1);
}

/* This process as a worker. */
static DmuWorker *
own_worker(Service *s)
{
	if (s->worker == NULL)
		s->worker = dmu_worker_begin(s->control, DMU_COORDINATOR);
	return s->worker;
}

/* Nobody is at work: the history has its row, and the next one may begin. */
static void
end_cycle(Service *s)
{
	DmuControl *control = s->control;
	DmuQueueEntry *entries;
	uint32		nentries;

	dmu_queues_close(s->queues);
	dmu_queues_settle(s->queues);
	dmu_queues_count(s->queues);
	entries = dmu_queues_put_off(s->queues, &nentries);
	dmu_finish_settle(control, entries, nentries);
	dmu_queues_end_cycle(s->queues);
	dmu_notes_forget();
	s->in_cycle = false;
	s->told = dmu_queue_stop(control) != DMU_STOP_NONE;
	if (s->told)
		return;

	control->head.cycle_id = 0;
	dmu_queue_set_phase(control, DMU_PHASE_RUNNING);
	dmu_queue_reset(control);
	dmu_staff_are_idle(s->staff);
	dmu_owner_unprotect();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	s->next_look = GetCurrentTimestamp();
}

/* One of those that are put off, when nobody else works. */
static void
take_again(Service *s, DmuQueueEntry *entries, uint32 nentries)
{
	uint32		position = 0;

	s->busy = dmu_worker_take_again(own_worker(s), entries, nentries, &position);
	dmu_queues_settle_put_off(s->queues);
}

static void
tend_cycle(Service *s)
{
	DmuQueueEntry *put_off;
	uint32		nput_off;

	dmu_queues_settle(s->queues);
	put_off = dmu_queues_put_off(s->queues, &nput_off);
	dmu_notes_on_the_way(s->control, GetCurrentTimestamp());

	if (s->closing_since == 0 && passed(s->control->started_at, DMU_CYCLE_LASTS))
	{
		s->closing_since = GetCurrentTimestamp();
		dmu_queues_close(s->queues);
	}
	if (dmu_queues_waiting(s->queues) > 0 || dmu_queues_at_work(s->queues) > 0)
		s->quiet_since = 0;
	else if (nput_off > 0 &&
			 (s->closing_since == 0 || !passed(s->closing_since, DMU_CYCLE_CLOSES)))
		take_again(s, put_off, nput_off);
	else if (s->closing_since != 0)
		end_cycle(s);
	else if (s->quiet_since == 0)
		s->quiet_since = GetCurrentTimestamp();
	else if (passed(s->quiet_since, DMU_CYCLE_LINGERS))
		end_cycle(s);
}

/* The queue is about to be empty, and others wait. */
static void
hasten_look(Service *s)
{
	if (s->behind > 0 && s->next_look > s->earliest_look &&
		dmu_queues_waiting(s->queues) <= (uint32) s->max_users / DMU_LOOKS_AHEAD)
		s->next_look = s->earliest_look;
}

static void
see_to_workers(Service *s)
{
	uint32		waiting = dmu_queues_waiting(s->queues);
	int64		wanted = (int64) waiting + dmu_queues_at_work(s->queues);

	if (waiting == 0 ||
		dmu_staff_hire(s->staff, (int) Min(wanted, s->control->request.workers)) > 0)
		return;
	s->busy = dmu_worker_take(own_worker(s), dmu_queues_current(s->queues));
	dmu_queues_settle(s->queues);
}

/*
 * Whoever has locked the database waits for all its sessions to end, but for
 * five seconds only; and whoever wants to drop the extension, for all cycles.
 */
static void
give_way(Service *s)
{
	const char *reason = NULL;

	if (!passed(s->gave_way, DMU_GIVE_WAY))
		return;
	s->gave_way = GetCurrentTimestamp();
	if (!dmu_allowed_in_database())
		reason = "gave way to somebody who is about to drop, rename, move or copy the database";
	else if (dmu_owner_is_wanted())
		reason = "gave way to somebody who is about to drop or alter the extension";
	if (reason != NULL)
		dmu_queue_end_service(s->control, reason);
}

/*
 * No transaction is open.  In the midst of a cycle, too: each look makes the
 * queue anew.
 */
static void
renew(Service *s)
{
	s->renew = false;
	if (!dmu_renew_settings(s->control, s->context))
		return;
	dmu_launch_announce(s->control, DMU_COORDINATOR);
	if (s->worker != NULL && !dmu_worker_renew(s->worker))
		s->worker = NULL;
	dmu_queue_nudge(s->control);
}

static void
sleep_until_due(Service *s)
{
	TimestampTz now = GetCurrentTimestamp();
	long		timeout = DMU_GIVE_WAY;

	if (s->next_look > now && s->closing_since == 0)
		timeout = Min(timeout, TimestampDifferenceMilliseconds(now, s->next_look));
	while (catchupInterruptPending)
		ProcessCatchupInterrupt();
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

static void
go_round(Service *s)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		longest = Max(s->control->request.poll * 1000, 60 * USECS_PER_SEC);

	s->busy = false;
	MemoryContextSwitchTo(s->context);
	dmu_staff_reap(s->staff, s->queues);
	give_way(s);
	if (dmu_queue_stop(s->control) != DMU_STOP_NONE)
		return;

	if (dmu_renew_is_reloaded() || s->renew)
		renew(s);

	if (s->in_cycle)
		hasten_look(s);

	/* The clock may have been set back. */
	if (s->closing_since == 0 &&
		(now >= s->next_look || s->next_look - now > longest))
		look(s);
	if (s->in_cycle)
		tend_cycle(s);
	if (s->in_cycle && dmu_queue_stop(s->control) == DMU_STOP_NONE)
		see_to_workers(s);

	MemoryContextReset(s->context);
	if (!s->busy && dmu_queue_stop(s->control) == DMU_STOP_NONE &&
		GetCurrentTimestamp() < s->next_look)
		sleep_until_due(s);
	dmu_trouble_take_cancel(s->control);
	CHECK_FOR_INTERRUPTS();
}

static void
begin_service(Service *s)
{
	DmuControl *control = s->control;

	s->max_users = DMU_LOOK_MIN;
	s->queues = dmu_queues_create(control);
	s->staff = dmu_staff_create(control, s->handle);
	dmu_begin_enter(control, s->handle, s->context);
	dmu_begin_wait_for_orphans(control);
	dmu_begin_settle(control, s->context);
	control->service.since = GetCurrentTimestamp();
	s->gave_way = control->service.since;
	dmu_launch_announce(control, DMU_COORDINATOR);

	dmu_transaction_begin();
	dmu_allowed_begin(control);
	(void) dmu_renew_is_due(&s->stored);
	dmu_transaction_commit(s->context);
	look(s);
	if (!s->in_cycle)
	{
		dmu_owner_unprotect();
		dmu_queue_set_phase(control, DMU_PHASE_RUNNING);
	}
	ereport(LOG,
			(errmsg("%s: service started with up to %d workers, looks every %lld ms",
					dmu_log_cycle(), control->request.workers,
					(long long) control->request.poll),
			 DMU_LOG_ALONE,
			 errdetail("The users table is %s.", control->request.users_name)));
}

/* An error that ends the service. */
static void
note_error(Service *s, DmuError *error)
{
	bool		canceled = (error->sqlerrcode == ERRCODE_QUERY_CANCELED);
	int			sender = canceled ? dmu_cancel_sender() : 0;

	/* A cancel by the stop flag is none, once the service has begun. */
	if (canceled && dmu_queue_phase(s->control) > DMU_PHASE_CREATED &&
		dmu_queue_stop(s->control) >= DMU_STOP_CANCEL)
		return;
	if (sender != 0)
		dmu_explain_cancel(error, DMU_COORDINATOR_CANCELED, sender);
	dmu_queue_stop_with_error(s->control,
							  canceled ? DMU_STOP_ABORT : DMU_STOP_FAILED,
							  error);
}

/*
 * Waits for the workers.  The history tells how the service ended where that
 * was no clean end, by the row of a cycle, of one that did nothing if need be.
 */
static void
end_service(Service *s)
{
	DmuControl *control = s->control;
	DmuQueueEntry *entries;
	uint32		nentries;

	if (s->staff == NULL)
		return;
	if (dmu_queue_stop(control) == DMU_STOP_TIME_LIMIT)
		dmu_queue_nudge(control);
	dmu_staff_wait(s->staff);
	dmu_staff_reap(s->staff, s->queues);
	dmu_queues_settle(s->queues);
	if (dmu_queue_stop(control) < DMU_STOP_CANCEL)
		dmu_queues_close(s->queues);
	else if (!s->in_cycle && !s->told && control->error.sqlerrcode != 0 &&
			 dmu_queue_phase(control) > DMU_PHASE_CREATED)
		begin_cycle(s, GetCurrentTimestamp());
	if (!s->in_cycle)
		return;
	dmu_queues_count(s->queues);
	entries = dmu_queues_put_off(s->queues, &nentries);
	dmu_finish_settle(control, entries, nentries);
}

static void
log_end(const Service *s)
{
	const DmuError *error = &s->control->error;
	DmuStop		stop = dmu_queue_stop(s->control);

	ereport(LOG,
			(errmsg("%s: service ended after %lld cycles", dmu_log_cycle(),
					(long long) pg_atomic_read_u64(&s->control->service.cycles)),
			 DMU_LOG_ALONE,
			 error->sqlerrcode != 0 ? errdetail_internal("%s", error->message) :
			 stop <= DMU_STOP_CANCEL ?
			 errdetail_internal("%s", dmu_queue_stop_reason(s->control)) : 0,
			 error->hint[0] != '\0' ? errhint("%s", error->hint) : 0));
}

void
dmu_service_main(Datum main_arg)
{
	Service    *s = MemoryContextAllocZero(TopMemoryContext, sizeof(Service));
	DmuError   *error = MemoryContextAllocZero(TopMemoryContext,
											   sizeof(DmuError));
	int			number;

	s->handle = DatumGetUInt32(main_arg);
	s->context = AllocSetContextCreate(TopMemoryContext,
									   "datamart_users service",
									   ALLOCSET_DEFAULT_SIZES);
	s->control = dmu_launch_attach(main_arg, &number);
	if (s->control == NULL)
		return;
	dmu_renew_listen();
	before_shmem_exit(service_exit, PointerGetDatum(s));
	MemoryContextSwitchTo(s->context);

	PG_TRY();
	{
		dmu_launch_assume_session(s->control);

		/* Once more: this one runs while we still have the cycle lock. */
		before_shmem_exit(service_exit, PointerGetDatum(s));
		dmu_timers_start(s->control);
		if (dmu_queue_stop(s->control) == DMU_STOP_NONE)
			begin_service(s);
		while (dmu_queue_stop(s->control) == DMU_STOP_NONE)
			go_round(s);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, s->context);
		note_error(s, error);
	}
	PG_END_TRY();
	dmu_timers_stop();
	MemoryContextSwitchTo(s->context);

	PG_TRY();
	{
		end_service(s);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, s->context);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("%s: service could not write its end into the history: %s",
						dmu_log_cycle(), error->message)));
		note_error(s, error);
	}
	PG_END_TRY();
	log_end(s);

	dmu_directory_leave();
	dmu_queue_set_phase(s->control, DMU_PHASE_FINISHED);
}
