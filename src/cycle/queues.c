/*-------------------------------------------------------------------------
 *
 * queues.c
 *		The queues of a service, one after the other.
 *
 *		Whenever a look has found something else to do than the queue has, that
 *		one is closed and another one takes its place, while workers finish what
 *		they have claimed.  Which those are is known exactly from where the
 *		queue was closed, and what became of them from their entries.  So nobody
 *		is in two queues, and nobody is lost: whoever is at work when a look
 *		begins, or is claimed during it, is left to the next look.
 *
 *		Part of the coordinator, which alone uses it.  Knows no SQL and no
 *		processes.
 *
 *-------------------------------------------------------------------------
 */
#include "queues.h"

#include "notes.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * Who was taken and not refreshed comes again no sooner than after this,
 * milliseconds: a row that somebody keeps locked would else cost a worker a
 * second at every look.
 */
#define DMU_SIT_OUT 10000

/* A queue of which not everybody is settled, or the present one. */
typedef struct QueueKept
{
	struct QueueKept *next;
	DmuQueueMap map;
	uint32		settled;		/* so many of the head, without a gap */
} QueueKept;

/* Who is not to come now. */
typedef struct SittingOut
{
	int64		dimension_user_id;	/* hash key */
	TimestampTz until;
} SittingOut;

typedef struct Ids
{
	int64	   *list;			/* palloc'd */
	uint32		n;
	uint32		capacity;
} Ids;

struct DmuQueues
{
	DmuControl *control;
	MemoryContext context;
	QueueKept  *kept;			/* the present one first, if there is one */
	HTAB	   *sitting_out;
	DmuQueueEntry *put_off;
	uint32		nput_off;
	uint32		put_off_capacity;
	int32		taken[DMU_NPRIORITIES]; /* settled in this cycle */
	int64		taken_since;	/* settled since somebody asked for that */
	uint32		at_work;		/* claimed, and not settled */
	int64		behind;			/* wait, and are not in the present queue */

	/* What of the present queue nobody had claimed when it was last filtered. */
	uint32		left_from;
	uint32		left_to;		/* behind the last one */
};

DmuQueues  *
dmu_queues_create(DmuControl *control)
{
	DmuQueues  *queues = MemoryContextAllocZero(TopMemoryContext,
												sizeof(DmuQueues));
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(SittingOut)};

	queues->control = control;
	queues->context = AllocSetContextCreate(TopMemoryContext,
											"datamart_users queues",
											ALLOCSET_DEFAULT_SIZES);
	ctl.hcxt = queues->context;
	queues->sitting_out = hash_create("datamart_users sitting out", 64, &ctl,
									  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return queues;
}

static void
sit_out(DmuQueues *queues, int64 id)
{
	SittingOut *who = hash_search(queues->sitting_out, &id, HASH_ENTER, NULL);

	who->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DMU_SIT_OUT);
}

static void
let_come_again(DmuQueues *queues)
{
	TimestampTz now = GetCurrentTimestamp();
	HASH_SEQ_STATUS status;
	SittingOut *who;

	hash_seq_init(&status, queues->sitting_out);
	while ((who = hash_seq_search(&status)) != NULL)
	{
		/* The clock may have been set back. */
		if (now >= who->until ||
			who->until > TimestampTzPlusMilliseconds(now, DMU_SIT_OUT))
			(void) hash_search(queues->sitting_out, &who->dimension_user_id,
							   HASH_REMOVE, NULL);
	}
}

static void
put_off(DmuQueues *queues, const DmuQueueEntry *entry)
{
	if (queues->nput_off == queues->put_off_capacity)
	{
		Size		size;

		queues->put_off_capacity = Max(2 * queues->put_off_capacity, 64);
		size = queues->put_off_capacity * sizeof(DmuQueueEntry);
		queues->put_off = queues->put_off == NULL ?
			MemoryContextAlloc(queues->context, size) :
			repalloc_huge(queues->put_off, size);
	}
	queues->put_off[queues->nput_off++] = *entry;
}

/* Its turn is over, what it came to is in the slot of its worker. */
static void
settle_over(DmuQueues *queues, const DmuQueueEntry *entry)
{
	if (entry->fresh)
		dmu_notes_fresh(entry->dimension_user_id);
	else
		sit_out(queues, entry->dimension_user_id);
}

/* True if it is settled. */
static bool
settle_entry(DmuQueues *queues, DmuQueueEntry *entry)
{
	uint8		turn = *(volatile uint8 *) &entry->turn;

	if (turn == DMU_TURN_SETTLED)
		return true;
	if (turn == DMU_TURN_FIRST)
	{
		queues->at_work++;
		return false;
	}
	pg_read_barrier();
	if (turn == DMU_TURN_AGAIN)
		put_off(queues, entry);
	else
		settle_over(queues, entry);
	queues->taken[entry->priority]++;
	queues->taken_since++;
	entry->turn = DMU_TURN_SETTLED;
	return true;
}

/* True if nothing is left of it. */
static bool
settle_queue(DmuQueues *queues, QueueKept *kept)
{
	DmuQueue   *queue = kept->map.queue;
	uint32		head;
	uint32		tail;
	bool		all = true;

	dmu_queue_claimed(queue, &head, &tail);
	for (uint32 i = kept->settled; i < head; i++)
	{
		if (!settle_entry(queues, &queue->entries[i]))
			all = false;
		else if (all)
			kept->settled = i + 1;
	}
	for (uint32 i = queue->nentries - tail; i < queue->nentries; i++)
		all &= settle_entry(queues, &queue->entries[i]);
	return all && queue->closed;
}

void
dmu_queues_settle(DmuQueues *queues)
{
	QueueKept **link = &queues->kept;

	queues->at_work = 0;
	while (*link != NULL)
	{
		QueueKept  *kept = *link;

		if (settle_queue(queues, kept))
		{
			*link = kept->next;
			dmu_queue_unmap(&kept->map);
			pfree(kept);
		}
		else
			link = &kept->next;
	}
}

void
dmu_queues_lose(DmuQueues *queues, int64 dimension_user_id)
{
	for (QueueKept *kept = queues->kept; kept != NULL; kept = kept->next)
	{
		DmuQueue   *queue = kept->map.queue;
		uint32		head;
		uint32		tail;

		dmu_queue_claimed(queue, &head, &tail);
		for (uint32 i = 0; i < queue->nentries; i++)
		{
			DmuQueueEntry *entry = &queue->entries[i];

			if ((i < head || i >= queue->nentries - tail) &&
				entry->dimension_user_id == dimension_user_id &&
				entry->turn == DMU_TURN_FIRST)
				entry->turn = DMU_TURN_OVER;
		}
	}
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

static void
add_id(Ids *ids, int64 id)
{
	if (ids->n == ids->capacity)
	{
		ids->capacity *= 2;
		ids->list = repalloc_huge(ids->list, ids->capacity * sizeof(int64));
	}
	ids->list[ids->n++] = id;
}

/* Those claimed and not settled before the look, and put off; in order. */
static Ids
list_claimed(DmuQueues *queues, bool close)
{
	Ids			ids = {.capacity = 64};

	ids.list = palloc(ids.capacity * sizeof(int64));
	for (QueueKept *kept = queues->kept; kept != NULL; kept = kept->next)
	{
		DmuQueue   *queue = kept->map.queue;
		uint32		head;
		uint32		tail;

		if (close)
			dmu_queue_close(queue, &head, &tail);
		else
			dmu_queue_claimed(queue, &head, &tail);
		if (kept == queues->kept)
		{
			queues->left_from = head;
			queues->left_to = queue->nentries - tail;
		}
		for (uint32 i = kept->settled; i < queue->nentries; i++)
		{
			const DmuQueueEntry *entry = &queue->entries[i];

			if ((i < head || i >= queue->nentries - tail) &&
				entry->turn != DMU_TURN_SETTLED)
				add_id(&ids, entry->dimension_user_id);
		}
	}
	for (uint32 i = 0; i < queues->nput_off; i++)
		add_id(&ids, queues->put_off[i].dimension_user_id);
	qsort(ids.list, ids.n, sizeof(int64), compare_ids);
	return ids;
}

uint32
dmu_queues_filter(DmuQueues *queues, DmuQueueEntry *entries, uint32 nentries,
				  bool close)
{
	Ids			ids = list_claimed(queues, close);
	uint32		left = 0;

	let_come_again(queues);
	for (uint32 i = 0; i < nentries; i++)
	{
		const int64 *id = &entries[i].dimension_user_id;

		if (bsearch(id, ids.list, ids.n, sizeof(int64), compare_ids) != NULL ||
			hash_search(queues->sitting_out, id, HASH_FIND, NULL) != NULL)
			continue;
		entries[left++] = entries[i];
	}
	pfree(ids.list);
	return left;
}

DmuQueue   *
dmu_queues_current(DmuQueues *queues)
{
	if (queues->kept == NULL || queues->kept->map.queue->closed)
		return NULL;
	return queues->kept->map.queue;
}

bool
dmu_queues_is_same(DmuQueues *queues, const DmuQueueEntry *entries,
				   uint32 nentries, int64 behind)
{
	DmuQueue   *queue = dmu_queues_current(queues);
	int64		left = (int64) queues->left_to - queues->left_from;

	if (queue == NULL || left == 0)
		return nentries == 0;

	/*
	 * Some may have been claimed since; but who was claimed before, and is
	 * flagged again, is to come once more.
	 */
	if (behind > 0 ? left > nentries || 2 * left < queue->nentries :
		left != nentries)
		return false;
	for (uint32 i = queues->left_from; i < queues->left_to; i++, entries++)
	{
		const DmuQueueEntry *entry = &queue->entries[i];

		if (entry->dimension_user_id != entries->dimension_user_id ||
			entry->priority != entries->priority ||
			entry->actions != entries->actions ||
			entry->has_failure != entries->has_failure)
			return false;
	}
	queues->behind = behind + nentries - left;
	return true;
}

void
dmu_queues_publish(DmuQueues *queues, const DmuQueueEntry *entries,
				   uint32 nentries, int64 behind)
{
	QueueKept  *kept;

	Assert(dmu_queues_current(queues) == NULL);
	queues->behind = behind;
	if (nentries == 0)
	{
		dmu_queue_publish(queues->control, DSM_HANDLE_INVALID);
		return;
	}
	kept = MemoryContextAllocZero(queues->context, sizeof(QueueKept));
	dmu_queue_make(&kept->map, entries, nentries);
	kept->next = queues->kept;
	queues->kept = kept;
	dmu_queue_publish(queues->control, kept->map.handle);
}

void
dmu_queues_close(DmuQueues *queues)
{
	uint32		head;
	uint32		tail;

	for (QueueKept *kept = queues->kept; kept != NULL; kept = kept->next)
		dmu_queue_close(kept->map.queue, &head, &tail);
	dmu_queue_publish(queues->control, DSM_HANDLE_INVALID);
}

uint32
dmu_queues_waiting(DmuQueues *queues)
{
	DmuQueue   *queue = dmu_queues_current(queues);

	return queue == NULL ? 0 : dmu_queue_left(queue);
}

uint32
dmu_queues_at_work(DmuQueues *queues)
{
	return queues->at_work;
}

uint32
dmu_queues_left_out(DmuQueues *queues)
{
	return queues->at_work + queues->nput_off +
		(uint32) hash_get_num_entries(queues->sitting_out);
}

int64
dmu_queues_take_taken(DmuQueues *queues)
{
	int64		taken = queues->taken_since;

	queues->taken_since = 0;
	return taken;
}

DmuQueueEntry *
dmu_queues_put_off(DmuQueues *queues, uint32 *nentries)
{
	*nentries = queues->nput_off;
	return queues->put_off;
}

void
dmu_queues_settle_put_off(DmuQueues *queues)
{
	uint32		left = 0;

	for (uint32 i = 0; i < queues->nput_off; i++)
	{
		if (queues->put_off[i].turn == DMU_TURN_AGAIN)
			queues->put_off[left++] = queues->put_off[i];
		else
			settle_over(queues, &queues->put_off[i]);
	}
	queues->nput_off = left;
}

/* How many the workers have done in this cycle, by size. */
static void
count_done(DmuControl *control, uint32 *sizes)
{
	DmuWorkLeft sum;

	memset(&sum, 0, sizeof(sum));
	for (int i = 0; i < control->nslots; i++)
		dmu_estimate_sum(&control->slots[i].work, &sum);
	for (int i = 0; i < DMU_NSIZES; i++)
		sizes[i] = (uint32) sum.done[i];
}

/* With one that is not done. */
static void
count_left(const DmuQueueEntry *entry, uint32 *sizes)
{
	if (entry->turn == DMU_TURN_FIRST || entry->turn == DMU_TURN_AGAIN)
		sizes[dmu_estimate_size(entry->actions)]++;
}

/*
 * Those who are not in the queue are no more relevant than its last one, so most
 * of them have no more actions.
 */
static void
count_behind(DmuQueues *queues, uint32 *sizes)
{
	DmuQueue   *queue = dmu_queues_current(queues);

	if (queue != NULL && queue->nentries > 0)
		sizes[dmu_estimate_size(queue->entries[queue->nentries - 1].actions)] +=
			(uint32) queues->behind;
}

void
dmu_queues_count(DmuQueues *queues)
{
	DmuControl *control = queues->control;
	int32		found[DMU_NPRIORITIES];
	uint32		sizes[DMU_NSIZES];
	int32		sum = 0;

	count_done(control, sizes);
	for (uint32 i = 0; i < queues->nput_off; i++)
		count_left(&queues->put_off[i], sizes);
	memcpy(found, queues->taken, sizeof(found));
	for (QueueKept *kept = queues->kept; kept != NULL; kept = kept->next)
	{
		DmuQueue   *queue = kept->map.queue;
		uint32		head;
		uint32		tail;

		dmu_queue_claimed(queue, &head, &tail);
		for (uint32 i = kept->settled; i < queue->nentries; i++)
		{
			if (queue->closed && i >= head && i < queue->nentries - tail)
				continue;
			if (queue->entries[i].turn != DMU_TURN_SETTLED)
				found[queue->entries[i].priority]++;
			count_left(&queue->entries[i], sizes);
		}
	}
	count_behind(queues, sizes);
	for (int p = 0; p < DMU_NPRIORITIES; p++)
	{
		control->found_by_priority[p] = found[p];
		sum += found[p];
	}
	control->found = sum;
	memcpy(control->found_by_size, sizes, sizeof(sizes));
}

void
dmu_queues_end_cycle(DmuQueues *queues)
{
	for (uint32 i = 0; i < queues->nput_off; i++)
		sit_out(queues, queues->put_off[i].dimension_user_id);
	queues->nput_off = 0;
	queues->behind = 0;
	memset(queues->taken, 0, sizeof(queues->taken));
}
