/*-------------------------------------------------------------------------
 *
 * stretch.c
 *		The cycle of a service: a stretch of work, a row of the history.
 *
 *		It begins when a look finds somebody, and ends when there has been
 *		nobody for a while, or when it has lasted long enough.  Nobody is at
 *		work between two of them.  Work is for the workers; the coordinator
 *		takes part only when there is none, and with those that collided, when
 *		nobody else works; so a look is never late for a long refresh.
 *
 *		This file neither looks who waits nor knows when the next look is.
 *
 *-------------------------------------------------------------------------
 */
#include "stretch.h"

#include "begin.h"
#include "finish.h"
#include "notes.h"
#include "ownersql.h"
#include "pgstat.h"
#include "stop.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker.h"

/* How long a cycle lasts at the most, and how long it waits for more, ms. */
#define DMU_CYCLE_LASTS 600000
#define DMU_CYCLE_LINGERS 5000

/* What those that are put off may take of the end of a cycle, milliseconds. */
#define DMU_CYCLE_CLOSES 5000

struct DmuStretch
{
	DmuControl *control;
	DmuQueues  *queues;
	DmuStaff   *staff;
	DmuWorker  *worker;			/* this process; NULL until it is needed */
	MemoryContext context;		/* the service's, reset after every round */
	bool		in_cycle;
	bool		told;			/* the end of the service is in the history */
	TimestampTz quiet_since;	/* nobody waits or is at work; 0 = somebody */
	TimestampTz closing_since;	/* the cycle is to end; 0 = it goes on */
	bool		busy;			/* has done something in this round */
};

DmuStretch *
dmu_stretch_create(DmuControl *control, DmuQueues *queues, DmuStaff *staff,
				   MemoryContext context)
{
	DmuStretch *s = MemoryContextAllocZero(TopMemoryContext,
										   sizeof(DmuStretch));

	s->control = control;
	s->queues = queues;
	s->staff = staff;
	s->context = context;
	return s;
}

bool
dmu_stretch_is_on(const DmuStretch *s)
{
	return s->in_cycle;
}

bool
dmu_stretch_is_closing(const DmuStretch *s)
{
	return s->closing_since != 0;
}

bool
dmu_stretch_is_busy(const DmuStretch *s)
{
	return s->busy;
}

void
dmu_stretch_begin(DmuStretch *s, int64 backlog, TimestampTz looked_at)
{
	DmuControl *control = s->control;

	control->backlog = backlog;
	control->max_users = control->request.max_users;
	dmu_begin_cycle(control, looked_at, s->context);
	s->in_cycle = true;
	s->quiet_since = 0;
	s->closing_since = 0;
	pg_atomic_fetch_add_u64(&control->service.cycles, 1);
}

/* True if "ms" have passed since; also if the clock was set back. */
static bool
passed(TimestampTz since, int ms)
{
	TimestampTz now = GetCurrentTimestamp();

	return now < since || TimestampDifferenceExceeds(since, now, ms);
}

/* This process as a worker. */
static DmuWorker *
own_worker(DmuStretch *s)
{
	if (s->worker == NULL)
		s->worker = dmu_worker_begin(s->control, DMU_COORDINATOR);
	return s->worker;
}

/* Nobody is at work: the history has its row, and the next one may begin. */
static void
end_cycle(DmuStretch *s)
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
	s->closing_since = 0;
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
}

/* One of those that are put off, when nobody else works. */
static void
take_again(DmuStretch *s, DmuQueueEntry *entries, uint32 nentries)
{
	uint32		position = 0;

	s->busy = dmu_worker_take_again(own_worker(s), entries, nentries, &position);
	dmu_queues_settle_put_off(s->queues);
}

static void
tend_cycle(DmuStretch *s)
{
	DmuQueueEntry *put_off;
	uint32		nput_off;
	uint32		waiting;

	if (s->closing_since == 0 && passed(s->control->started_at, DMU_CYCLE_LASTS))
	{
		s->closing_since = GetCurrentTimestamp();
		dmu_queues_close(s->queues);
	}

	/* In this order: who does not wait any more is seen at work, or settled. */
	waiting = dmu_queues_waiting(s->queues);
	dmu_queues_settle(s->queues);
	put_off = dmu_queues_put_off(s->queues, &nput_off);
	dmu_notes_on_the_way(s->control, GetCurrentTimestamp());

	if (waiting > 0 || dmu_queues_at_work(s->queues) > 0)
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

static void
see_to_workers(DmuStretch *s)
{
	uint32		waiting = dmu_queues_waiting(s->queues);
	int64		wanted = (int64) waiting + dmu_queues_at_work(s->queues);

	if (waiting == 0 ||
		dmu_staff_hire(s->staff, (int) Min(wanted, s->control->request.workers)) > 0)
		return;
	s->busy = dmu_worker_take(own_worker(s), dmu_queues_current(s->queues));
	dmu_queues_settle(s->queues);
}

bool
dmu_stretch_tend(DmuStretch *s)
{
	s->busy = false;
	tend_cycle(s);
	if (s->in_cycle && dmu_queue_stop(s->control) == DMU_STOP_NONE)
		see_to_workers(s);
	return !s->in_cycle && !s->told;
}

void
dmu_stretch_renew(DmuStretch *s)
{
	if (s->worker != NULL && !dmu_worker_renew(s->worker))
		s->worker = NULL;
}

void
dmu_stretch_finish(DmuStretch *s, int64 backlog)
{
	DmuControl *control = s->control;
	DmuQueueEntry *entries;
	uint32		nentries;

	dmu_queues_settle(s->queues);
	if (dmu_queue_stop(control) < DMU_STOP_CANCEL)
		dmu_queues_close(s->queues);
	else if (!s->in_cycle && !s->told && control->error.sqlerrcode != 0 &&
			 dmu_queue_phase(control) > DMU_PHASE_CREATED)
		dmu_stretch_begin(s, backlog, GetCurrentTimestamp());
	if (!s->in_cycle)
		return;
	dmu_queues_count(s->queues);
	entries = dmu_queues_put_off(s->queues, &nentries);
	dmu_finish_settle(control, entries, nentries);
}
