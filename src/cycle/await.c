/*-------------------------------------------------------------------------
 *
 * await.c
 *		Waiting for the workers of a cycle.
 *
 *		Part of the coordinator.  While it waits it heeds a cancel, writes down
 *		what is due, and is in nobody's way.
 *
 *		This file does not know what the workers have done, nor what comes
 *		after it.
 *
 *-------------------------------------------------------------------------
 */
#include "await.h"

#include "blockers.h"
#include "log.h"
#include "miscadmin.h"
#include "notes.h"
#include "ownersql.h"
#include "slot.h"
#include "stop.h"
#include "storage/latch.h"
#include "trouble.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* How often the others are looked after: while they work, while they stop. */
#define DMU_LOOK_INTERVAL 500
#define DMU_STOP_INTERVAL 100

/* True if a worker that has been at the same thing for a while waits for us. */
static bool
is_in_the_way(DmuControl *control)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int number = DMU_COORDINATOR + 1; number <= control->nslots; number++)
	{
		DmuSlot    *slot = dmu_slot(control, number);
		int			pid = (int) pg_atomic_read_u32(&slot->live_pid);
		TimestampTz since = (TimestampTz) pg_atomic_read_u64(&slot->since);

		if (pid != 0 &&
			TimestampDifferenceExceeds(since, now, DMU_LOOK_INTERVAL) &&
			dmu_blocked_by_me(pid))
			return true;
	}
	return false;
}

/*
 * The coordinator waits on its latch for processes that may wait for locks.
 * Nobody would notice a deadlock with its own one, that on the extension; so
 * it is given up where a worker has got behind it.
 */
static void
get_out_of_the_way(DmuControl *control, MemoryContext context)
{
	MemoryContext old_context = MemoryContextSwitchTo(context);

	if (dmu_owner_is_protected() && is_in_the_way(control))
	{
		dmu_owner_unprotect();
		ereport(LOG,
				(errmsg("%s: lets somebody drop the extension, for whom a worker waits",
						dmu_log_cycle()),
				 DMU_LOG_ALONE));
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(context);
}

static void
take_notes(DmuControl *control, MemoryContext context)
{
	MemoryContext old_context = MemoryContextSwitchTo(context);

	if (dmu_queue_phase(control) >= DMU_PHASE_WORKING &&
		dmu_queue_stop(control) < DMU_STOP_CANCEL)
		dmu_notes_on_the_way(control, GetCurrentTimestamp());
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(context);
}

void
dmu_await_workers(DmuControl *control, BackgroundWorkerHandle **workers,
				  int nworkers)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "datamart_users wait",
												  ALLOCSET_SMALL_SIZES);

	TimestampTz woken = 0;

	HOLD_CANCEL_INTERRUPTS();
	while (dmu_launch_any_running(workers, nworkers))
	{
		bool		stopping;

		dmu_trouble_take_cancel(control);
		CHECK_FOR_INTERRUPTS();
		stopping = dmu_queue_stop(control) >= DMU_STOP_CANCEL;
		if (stopping)
			dmu_queue_wake_again(&control->head, &woken);
		get_out_of_the_way(control, context);
		take_notes(control, context);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 stopping ? DMU_STOP_INTERVAL : DMU_LOOK_INTERVAL,
						 WAIT_EVENT_BGWORKER_SHUTDOWN);
		ResetLatch(MyLatch);
	}
	dmu_trouble_take_cancel(control);
	RESUME_CANCEL_INTERRUPTS();
	MemoryContextDelete(context);
}
