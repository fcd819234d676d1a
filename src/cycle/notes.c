/*-------------------------------------------------------------------------
 *
 * notes.c
 *		What the coordinator writes down on the way: since when its backlog
 *		waits, what was counted for it, and how far the cycle is.
 *
 *		None of it is needed for the cycle, so no error here is one of the
 *		cycle, nobody's lock holds it up for more than a moment, and no commit
 *		waits for the disk.
 *
 *-------------------------------------------------------------------------
 */
#include "notes.h"

#include "counts.h"
#include "errors.h"
#include "history.h"
#include "log.h"
#include "miscadmin.h"
#include "since.h"
#include "slot.h"
#include "transaction.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How often something is written, milliseconds. */
#define DMU_NOTES_INTERVAL 5000

/*
 * What a service has counted is written at once if there are so many: it looks
 * again before that time has passed.
 */
#define DMU_NOTES_COUNTS 100

/* What we wait for any lock. */
#define DMU_NOTES_LOCK_WAIT "200ms"

/* Of the cycle at which this process is. */
typedef struct Notes
{
	DmuLook    *look;			/* NULL: it has found nobody yet */
	bool		look_is_written;
	TimestampTz written_at;		/* the last time */
	uint32		settled;		/* so many entries at the head of the queue */
	DmuCounts  *storing;		/* while that is stored */

	/* Of a service, whose queues come and go: who is fresh. */
	bool		gathers;
	int64	   *gathered;
	uint32		ngathered;
	uint32		capacity;
} Notes;

static Notes notes;

/* Entries of the queue that are fresh, and have not been forgotten yet. */
typedef struct Fresh
{
	DmuQueue   *queue;			/* NULL if it is empty */
	int64	   *ids;			/* in order of the queue */
	uint32	   *positions;
	int			n;
} Fresh;

/* What is to be written, inside a transaction. */
typedef void (*NoteWriter) (DmuControl *control, const Fresh *fresh);

static void
set_locally(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

static void
write_counts(DmuControl *control)
{
	DmuTally	tallies[DMU_NPRIORITIES];
	DmuTally	total;
	DmuCycleCounts counts = {
		.cycle_id = control->head.cycle_id,
		.backlog = control->backlog,
		.max_users = control->max_users,
		.found = control->found,
		.workers = (int32) pg_atomic_read_u32(&control->workers_registered),
		.prioritisation_usec = control->queued_at - control->started_at,
		.found_by_priority = control->found_by_priority,
		.by_priority = tallies,
		.total = &total,
	};

	for (int p = 0; p < DMU_NPRIORITIES; p++)
		dmu_queue_tally(control, p, &tallies[p]);
	dmu_queue_tally(control, -1, &total);
	dmu_history_save_counts(&counts);
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

/* The first time, whom the cycle has found without those who are fresh. */
static void
write_look(DmuControl *control, const Fresh *fresh)
{
	const DmuLook *look = notes.look;
	int64	   *done = palloc_extended(Max(fresh->n, 1) * sizeof(int64),
									   MCXT_ALLOC_HUGE);
	int64	   *left = palloc_extended(Max(look->nids, 1) * sizeof(int64),
									   MCXT_ALLOC_HUGE);
	int			nleft = 0;

	memcpy(done, fresh->ids, fresh->n * sizeof(int64));
	qsort(done, fresh->n, sizeof(int64), compare_ids);
	for (int i = 0; i < look->nids; i++)
	{
		if (bsearch(&look->ids[i], done, fresh->n, sizeof(int64),
					compare_ids) == NULL)
			left[nleft++] = look->ids[i];
	}
	dmu_since_remember(control->request.users, left, nleft, look->at);
}

/* NoteWriter */
static void
note_waiting(DmuControl *control, const Fresh *fresh)
{
	if (notes.look->since_is_told)
	{
		if (!notes.look_is_written)
			dmu_since_forget_all(control->request.users);
	}
	else if (!notes.look_is_written)
		write_look(control, fresh);
	else if (fresh->n > 0)
		dmu_since_forget(control->request.users, fresh->ids, fresh->n);
}

/* Begins what note() runs. */
static void
begin_note(void)
{
	dmu_transaction_begin();
	set_locally("lock_timeout", DMU_NOTES_LOCK_WAIT);
	set_locally("synchronous_commit", "off");
	dmu_transaction_limit_waits();
}

/* NoteWriter */
static void
note_progress(DmuControl *control, const Fresh *fresh)
{
	write_counts(control);
	note_waiting(control, fresh);
}

/* NoteWriter; what notes.storing points to. */
static void
note_action_counts(DmuControl *control, const Fresh *fresh)
{
	(void) dmu_counts_store(notes.storing);
}

/* In a transaction of its own; false if that failed. */
static bool
note(DmuControl *control, NoteWriter writer, const Fresh *fresh,
	 const char *what)
{
	MemoryContext context = CurrentMemoryContext;
	DmuError   *error = palloc(sizeof(DmuError));
	uint32		held = QueryCancelHoldoffCount;
	volatile bool noted = false;

	PG_TRY();
	{
		begin_note();
		writer(control, fresh);
		dmu_transaction_commit(context);
		noted = true;
	}
	PG_CATCH();
	{
		dmu_error_catch(error, context);

		/* An error lets cancels in. */
		QueryCancelHoldoffCount = held;
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("%s: could not write down %s: %s",
						dmu_log_cycle(), what, error->message)));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	pfree(error);
	return noted;
}

static void
add_fresh(Fresh *fresh, uint32 position)
{
	const DmuQueueEntry *entry = &fresh->queue->entries[position];

	if (!entry->fresh)
		return;
	fresh->ids[fresh->n] = entry->dimension_user_id;
	fresh->positions[fresh->n++] = position;
}

/*
 * Among those that were claimed, without those at the head that are settled;
 * so a long queue is not read again and again.  What is just being settled may
 * be missed.  With "all" nothing is.
 */
static void
find_fresh(DmuControl *control, Fresh *fresh, bool all)
{
	DmuQueue   *queue;
	uint64		taken;
	uint32		head;
	uint32		tail;
	uint32		from = all ? 0 : notes.settled;

	if (notes.gathers)
	{
		fresh->n = (int) notes.ngathered;
		fresh->ids = palloc_extended(Max(fresh->n, 1) * sizeof(int64),
									 MCXT_ALLOC_HUGE);
		fresh->positions = NULL;
		if (fresh->n > 0)
			memcpy(fresh->ids, notes.gathered, fresh->n * sizeof(int64));
		return;
	}
	queue = dmu_queue_open(control);
	taken = queue == NULL ? 0 : pg_atomic_read_u64(&queue->taken);
	head = (uint32) taken;
	tail = (uint32) (taken >> 32);
	while (!all && from < head && !queue->entries[from].fresh &&
		   queue->entries[from].turn == DMU_TURN_OVER)
		from++;
	notes.settled = from;

	fresh->queue = queue;
	fresh->ids = palloc_extended(Max(head - from + tail, 1) * sizeof(int64),
								 MCXT_ALLOC_HUGE);
	fresh->positions = palloc_extended(Max(head - from + tail, 1) * sizeof(uint32),
									   MCXT_ALLOC_HUGE);
	fresh->n = 0;
	for (uint32 i = from; i < head; i++)
		add_fresh(fresh, i);
	for (uint32 i = 0; i < tail; i++)
		add_fresh(fresh, queue->nentries - 1 - i);
}

/* Stores what a look has counted, if there is anything, and frees it. */
static void
store_counts(DmuControl *control, DmuLook *look)
{
	notes.storing = look->counts;
	if (dmu_counts_are_news(look->counts))
		(void) note(control, note_action_counts, NULL, "what it counted");
	notes.storing = NULL;
	pfree(look->counts->list);
	pfree(look->counts);
	look->counts = NULL;
}

/*
 * Once for each look: what it counted holds for the row versions that it saw,
 * which those who were refreshed have no more.
 */
static void
write_action_counts(DmuControl *control, const Fresh *fresh)
{
	int64	   *done;

	if (notes.look->counts == NULL)
		return;
	done = palloc_extended(Max(fresh->n, 1) * sizeof(int64), MCXT_ALLOC_HUGE);
	memcpy(done, fresh->ids, fresh->n * sizeof(int64));
	qsort(done, fresh->n, sizeof(int64), compare_ids);
	dmu_counts_drop(notes.look->counts, done, fresh->n);
	pfree(done);
	store_counts(control, notes.look);
}

/* What it did not get to stays fresh for the next time. */
static void
write_down(DmuControl *control, bool with_counts)
{
	Fresh		fresh;

	find_fresh(control, &fresh, !with_counts);
	write_action_counts(control, &fresh);
	if (note(control, with_counts ? note_progress : note_waiting, &fresh,
			 "how far it is and who waits"))
	{
		notes.look_is_written = true;
		notes.ngathered = 0;
		for (int i = 0; i < fresh.n && fresh.positions != NULL; i++)
			fresh.queue->entries[fresh.positions[i]].fresh = false;
	}
	pfree(fresh.ids);
	if (fresh.positions != NULL)
		pfree(fresh.positions);
}

void
dmu_notes_begin(DmuLook *look)
{
	notes.look = look;
	notes.written_at = look->at;
}

void
dmu_notes_look(DmuLook *look)
{
	if (notes.look == NULL)
		notes.written_at = look->at;
	notes.look = look;
	notes.look_is_written = false;
	notes.gathers = true;
}

void
dmu_notes_counts(DmuControl *control, DmuLook *look)
{
	if (look->counts != NULL && dmu_counts_new(look->counts) >= DMU_NOTES_COUNTS)
		store_counts(control, look);
}

void
dmu_notes_fresh(int64 dimension_user_id)
{
	if (notes.ngathered == notes.capacity)
	{
		notes.capacity = Max(2 * notes.capacity, 1024);
		notes.gathered = notes.gathered == NULL ?
			MemoryContextAlloc(TopMemoryContext, notes.capacity * sizeof(int64)) :
			repalloc_huge(notes.gathered, notes.capacity * sizeof(int64));
	}
	notes.gathered[notes.ngathered++] = dimension_user_id;
}

void
dmu_notes_forget(void)
{
	notes.look = NULL;
	notes.ngathered = 0;
}

void
dmu_notes_on_the_way(DmuControl *control, TimestampTz now)
{
	/* The clock may have been set back. */
	if (notes.look == NULL ||
		(now >= notes.written_at &&
		 now - notes.written_at < DMU_NOTES_INTERVAL * INT64CONST(1000)))
		return;
	notes.written_at = now;
	write_down(control, true);
}

void
dmu_notes_end(DmuControl *control)
{
	if (notes.look != NULL)
		write_down(control, false);
}
