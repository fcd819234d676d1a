/*-------------------------------------------------------------------------
 *
 * slot.c
 *		What one worker writes into the shared memory of its cycle.
 *
 *		A slot has one writer.  Other processes read it at any time: counters
 *		are single atomic words, and no reader needs two of them to agree.
 *
 *		This file runs no SQL and no transaction, and starts no process.
 *
 *-------------------------------------------------------------------------
 */
#include "slot.h"

#include "utils/timestamp.h"

DmuSlot    *
dmu_slot(DmuControl *control, int number)
{
	Assert(number >= 1 && number <= control->nslots);
	return &control->slots[number - 1];
}

/* The pids are its process's, and so is that it has joined. */
void
dmu_slot_init(DmuSlot *slot)
{
	pg_atomic_init_u32(&slot->state, DMU_WORKER_EMPTY);
	pg_atomic_init_u32(&slot->priority, 0);
	pg_atomic_init_u64(&slot->dimension_user_id, 0);
	pg_atomic_init_u64(&slot->since, 0);
	for (int p = 0; p < DMU_NPRIORITIES; p++)
	{
		for (int o = 0; o < DMU_NOUTCOMES; o++)
			pg_atomic_init_u64(&slot->outcomes[p][o], 0);
		pg_atomic_init_u64(&slot->total_usec[p], 0);
		pg_atomic_init_u64(&slot->max_usec[p], 0);
	}
	pg_atomic_init_u32(&slot->actions, 0);
	pg_atomic_init_u64(&slot->planned_alone, 0);
	pg_atomic_init_u64(&slot->free_since, 0);
	dmu_estimate_init(&slot->work);
	dmu_profile_init(&slot->profile);
}

void
dmu_slot_set_state(DmuSlot *slot, DmuWorkerState state)
{
	/* Writing down a failure is part of the time of its datamart user. */
	if (state != DMU_WORKER_RECORDING)
	{
		uint64		now = (uint64) GetCurrentTimestamp();

		pg_atomic_write_u64(&slot->since, now);
		if (state == DMU_WORKER_IDLE)
			pg_atomic_write_u64(&slot->free_since, now);
	}
	pg_atomic_write_u32(&slot->state, state);
}

void
dmu_slot_begin(DmuSlot *slot, const DmuQueueEntry *entry)
{
	pg_atomic_write_u64(&slot->dimension_user_id,
						(uint64) entry->dimension_user_id);
	pg_atomic_write_u32(&slot->priority, entry->priority);
	pg_atomic_write_u32(&slot->actions, entry->actions);
	dmu_slot_set_state(slot, DMU_WORKER_REFRESHING);
}

/*
 * The slot has one writer, so read and write need not be one step; the writes
 * are atomic for the sake of readers only.
 */
static void
slot_add(pg_atomic_uint64 *counter, uint64 amount)
{
	pg_atomic_write_u64(counter, pg_atomic_read_u64(counter) + amount);
}

/* What the worker has just done. */
static const DmuSlowRefresh *
last_refresh(DmuSlot *slot, TimestampTz now, DmuOutcome outcome)
{
	DmuSlowRefresh *last = &slot->profile.last;

	/* The clock may have been set back. */
	last->usec = Max(now - (TimestampTz) pg_atomic_read_u64(&slot->since), 0);
	last->dimension_user_id = (int64) pg_atomic_read_u64(&slot->dimension_user_id);
	last->actions = pg_atomic_read_u32(&slot->actions);
	last->priority = (DmuPriority) pg_atomic_read_u32(&slot->priority);
	last->outcome = outcome;
	return last;
}

void
dmu_slot_end(DmuControl *control, DmuSlot *slot, DmuOutcome outcome)
{
	TimestampTz now = GetCurrentTimestamp();
	const DmuSlowRefresh *last = last_refresh(slot, now, outcome);

	dmu_profile_add(&slot->profile, control->queued_at, now, last);

	dmu_estimate_add(&slot->work, last->actions, 1, last->usec);
	slot_add(&slot->outcomes[last->priority][outcome], 1);
	slot_add(&slot->total_usec[last->priority], last->usec);
	if ((uint64) last->usec > pg_atomic_read_u64(&slot->max_usec[last->priority]))
		pg_atomic_write_u64(&slot->max_usec[last->priority], last->usec);
	dmu_slot_set_state(slot, DMU_WORKER_IDLE);
}

void
dmu_slot_plans_alone(DmuSlot *slot)
{
	slot_add(&slot->planned_alone, 1);
}

void
dmu_slot_postpone(DmuSlot *slot)
{
	const DmuSlowRefresh *last = last_refresh(slot, GetCurrentTimestamp(),
											  DMU_DEFERRED);

	dmu_estimate_add(&slot->work, last->actions, 0, last->usec);
	slot_add(&slot->total_usec[last->priority], last->usec);
	dmu_slot_set_state(slot, DMU_WORKER_IDLE);
}

void
dmu_slot_count(DmuSlot *slot, DmuPriority priority, DmuOutcome outcome)
{
	slot_add(&slot->outcomes[priority][outcome], 1);
}

void
dmu_slot_tally(DmuSlot *slot, int priority, DmuTally *tally)
{
	for (int p = 0; p < DMU_NPRIORITIES; p++)
	{
		if (priority >= 0 && p != priority)
			continue;
		for (int o = 0; o < DMU_NOUTCOMES; o++)
			tally->outcomes[o] += pg_atomic_read_u64(&slot->outcomes[p][o]);
		tally->total_usec += pg_atomic_read_u64(&slot->total_usec[p]);
		tally->max_usec = Max(tally->max_usec,
							  (int64) pg_atomic_read_u64(&slot->max_usec[p]));
	}
}

void
dmu_queue_tally(DmuControl *control, int priority, DmuTally *tally)
{
	memset(tally, 0, sizeof(DmuTally));
	for (int i = 0; i < control->nslots; i++)
		dmu_slot_tally(&control->slots[i], priority, tally);
}

void
dmu_queue_profile(DmuControl *control, DmuProfile *profile)
{
	dmu_profile_init(profile);
	for (int i = 0; i < control->nslots; i++)
		dmu_profile_merge(profile, &control->slots[i].profile);
}

/* Of a slot whose worker took part; else 0. */
static TimestampTz
free_since(DmuControl *control, int number)
{
	return (TimestampTz) pg_atomic_read_u64(&dmu_slot(control, number)->free_since);
}

void
dmu_queue_idle(DmuControl *control, DmuIdle *idle)
{
	TimestampTz end = 0;

	memset(idle, 0, sizeof(DmuIdle));
	for (int number = 1; number <= control->nslots; number++)
	{
		if (free_since(control, number) <= end)
			continue;
		end = free_since(control, number);
		idle->worker = number;
		idle->last = dmu_slot(control, number)->profile.last;
	}
	for (int number = 1; number <= control->nslots; number++)
	{
		if (free_since(control, number) == 0)
			continue;
		idle->workers++;
		/* With a service it may have been free before the cycle began. */
		idle->usec += Max(end - Max(free_since(control, number),
									control->queued_at), 0);
		idle->total_usec += Max(end - control->queued_at, 0);
	}
}

int64
dmu_queue_planned_alone(DmuControl *control)
{
	int64		sum = 0;

	for (int i = 0; i < control->nslots; i++)
		sum += (int64) pg_atomic_read_u64(&control->slots[i].planned_alone);
	return sum;
}

/*
 * Whom a worker is at work on: the microseconds that were spent on him already
 * and are not to come.  Who has taken longer than was to be expected tells what
 * others of his size will take, though he is not done yet.
 */
static double
count_begun(DmuSlot *slot, DmuWorkLeft *sum, TimestampTz now)
{
	TimestampTz since = (TimestampTz) pg_atomic_read_u64(&slot->since);
	int			size = dmu_estimate_size(pg_atomic_read_u32(&slot->actions));
	double		expected = dmu_estimate_one(sum, size);
	int64		begun = Max(now - since, 0);

	if (expected < 0 || begun <= expected)
		return begun;
	sum->done[size]++;
	sum->usec[size] += begun;
	sum->left[size] = Max(sum->left[size] - 1, 0);
	return 0;
}

double
dmu_queue_time_left(DmuControl *control, TimestampTz now)
{
	DmuWorkLeft sum;
	int64		left = 0;
	int			workers = 0;
	double		begun = 0;
	double		usec;

	memset(&sum, 0, sizeof(sum));
	for (int i = 0; i < control->nslots; i++)
		dmu_estimate_sum(&control->slots[i].work, &sum);
	for (int i = 0; i < DMU_NSIZES; i++)
	{
		sum.left[i] = Max((int64) control->found_by_size[i] - sum.done[i], 0);
		left += sum.left[i];
	}
	if (left == 0)
		return 0;

	for (int i = 0; i < control->nslots; i++)
	{
		DmuSlot    *slot = &control->slots[i];
		uint32		state = pg_atomic_read_u32(&slot->state);

		workers += state == DMU_WORKER_IDLE || state == DMU_WORKER_REFRESHING ||
			state == DMU_WORKER_RECORDING;
		if (state == DMU_WORKER_REFRESHING || state == DMU_WORKER_RECORDING)
			begun += count_begun(slot, &sum, now);
	}
	usec = dmu_estimate_left(&sum);
	return usec < 0 ? usec :
		Max(usec - begun, 0) / Max(Min(workers, left), 1);
}

int64
dmu_tally_done(const DmuTally *tally)
{
	int64		done = 0;

	for (int o = 0; o < DMU_NOUTCOMES; o++)
		done += tally->outcomes[o];
	return done;
}
