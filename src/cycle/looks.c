/*-------------------------------------------------------------------------
 *
 * looks.c
 *		The looks of a service: who waits now, and when to look again.
 *
 *		A look queues what will be taken until some looks later, in the place of
 *		what the queue has.  The locks of somebody else are no reason to end a
 *		service: the next look will do.
 *
 *		This file neither refreshes anybody nor ends a cycle, and starts no
 *		process.
 *
 *-------------------------------------------------------------------------
 */
#include "looks.h"

#include "allowed.h"
#include "errors.h"
#include "fill.h"
#include "log.h"
#include "notes.h"
#include "pgstat.h"
#include "renew.h"
#include "transaction.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

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

struct DmuLooks
{
	DmuControl *control;
	DmuQueues  *queues;
	DmuStretch *stretch;
	MemoryContext context;		/* the service's, reset after every round */
	MemoryContext look_context; /* of the last look */
	DmuLook		look;
	TimestampTz next_look;
	TimestampTz earliest_look;	/* even if the queue is empty before that */
	TimestampTz last_end;		/* of the last look */
	int64		usual_look;		/* what looks take, microseconds, averaged */
	int64		behind;			/* who waits, and is not in the queue */
	int32		max_users;		/* that the next look is to queue */
	bool		blocked;		/* the last look met somebody's locks */
	uint64		stored;			/* see renew.h */
	bool		renew;			/* settings have changed */
};

DmuLooks   *
dmu_looks_create(DmuControl *control, DmuQueues *queues, DmuStretch *stretch,
				 MemoryContext context)
{
	DmuLooks   *s = MemoryContextAllocZero(TopMemoryContext, sizeof(DmuLooks));

	s->control = control;
	s->queues = queues;
	s->stretch = stretch;
	s->context = context;
	s->max_users = DMU_LOOK_MIN;
	return s;
}

/*
 * Inside PG_CATCH(): if it was somebody else's locks the next look will do, and
 * all others are raised.  As long as that lasts the log has it once.
 */
static void
let_pass(DmuLooks *s)
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
try_to_begin_cycle(DmuLooks *s, TimestampTz looked_at)
{
	PG_TRY();
	{
		dmu_stretch_begin(s->stretch, s->look.backlog, looked_at);
	}
	PG_CATCH();
	{
		let_pass(s);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(s->context);
	return dmu_stretch_is_on(s->stretch);
}

/* Who the look has found is in the queue afterwards, unless it is to look again. */
static void
fill_queue(DmuLooks *s, DmuQueueEntry *entries, uint32 nentries)
{
	DmuControl *control = s->control;
	TimestampTz looked_at = s->look.at;
	uint32		left = dmu_queues_filter(s->queues, entries, nentries, false);

	s->behind = Max(0, s->look.waiting - nentries);
	if (dmu_stretch_is_on(s->stretch) ?
		!dmu_queues_is_same(s->queues, entries, left, s->behind) : left > 0)
	{
		bool		begins = !dmu_stretch_is_on(s->stretch);

		if (begins && !try_to_begin_cycle(s, looked_at))
			return;
		left = dmu_queues_filter(s->queues, entries, left, true);
		if (begins)
		{
			/* Workers reckon from then as soon as they can claim. */
			control->queued_at = GetCurrentTimestamp();
			control->workers_wanted = Max(1, Min(control->request.workers, (int32) left));
		}
		dmu_queues_publish(s->queues, entries, left, s->behind);
		if (begins)
		{
			dmu_queues_count(s->queues);
			dmu_queue_set_phase(control, DMU_PHASE_WORKING);
		}
	}
	s->blocked = false;
	if (dmu_stretch_is_on(s->stretch))
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
ask_warehouse(DmuLooks *s, MemoryContext context, DmuLook *found,
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
plan_next_look(DmuLooks *s)
{
	int64		taken = dmu_queues_take_taken(s->queues) * DMU_LOOKS_AHEAD;

	taken = Max(taken, s->max_users / 2);
	s->max_users = (int32) Min(Max(taken, DMU_LOOK_MIN),
							   s->control->request.max_users);
}

void
dmu_looks_take(DmuLooks *s)
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
	s->last_end = start + took;
	s->earliest_look = s->last_end + s->usual_look;
	s->next_look = Max(start + control->request.poll * 1000, s->earliest_look);
	plan_next_look(s);
	pg_atomic_write_u64(&control->service.look_usec, (uint64) took);
	pg_atomic_write_u64(&control->service.looked_at, (uint64) start);
	pg_atomic_fetch_add_u64(&control->service.looks, 1);
}

void
dmu_looks_begin(DmuLooks *s)
{
	(void) dmu_renew_is_due(&s->stored);
}

int64
dmu_looks_backlog(const DmuLooks *s)
{
	return s->look.backlog;
}

TimestampTz
dmu_looks_next(const DmuLooks *s)
{
	return s->next_look;
}

bool
dmu_looks_is_due(const DmuLooks *s)
{
	TimestampTz now = GetCurrentTimestamp();

	/* The clock may have been set back. */
	return now >= s->next_look || now < s->last_end;
}

void
dmu_looks_make_due(DmuLooks *s)
{
	s->next_look = GetCurrentTimestamp();
}

void
dmu_looks_hasten(DmuLooks *s)
{
	if (s->behind > 0 && s->next_look > s->earliest_look &&
		dmu_queues_waiting(s->queues) <= (uint32) s->max_users / DMU_LOOKS_AHEAD)
		s->next_look = s->earliest_look;
}

bool
dmu_looks_take_renewal(DmuLooks *s)
{
	bool		renew = s->renew;

	s->renew = false;
	return renew;
}
