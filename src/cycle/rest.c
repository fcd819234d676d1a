/*-------------------------------------------------------------------------
 *
 * rest.c
 *		The rest of a worker of a service that has nothing to do, and why one
 *		leaves: for good, or to another process.
 *
 *		At rest it holds nothing that anybody could wait for, and costs nothing
 *		but its memory.
 *
 *		This file claims and refreshes nobody.
 *
 *-------------------------------------------------------------------------
 */
#include "rest.h"

#include "launch.h"
#include "log.h"
#include "miscadmin.h"
#include "ownersql.h"
#include "pgstat.h"
#include "settings.h"
#include "storage/latch.h"
#include "storage/sinval.h"
#include "suspects.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* The worker of a service that stays, however long there is nothing to do. */
#define DMU_LAST_TO_REST (DMU_COORDINATOR + 1)

/* How often a worker of a service looks at its memory, milliseconds. */
#define DMU_WEIGH 1000

/* True if it gives back its slot when it has rested for long. */
static bool
may_leave(int number)
{
	return number > DMU_LAST_TO_REST && dmu_worker_idle_timeout > 0;
}

/*
 * Holds nothing that anybody could wait for, and tells what it has counted.  Who
 * was woken and came too late has taken the protection again.  An idle process
 * of the background takes no part in catching up on invalidations by itself; one
 * that falls too far behind loses all its plans.
 */
void
dmu_rest_wait(DmuControl *control, int number, bool begins)
{
	if (begins)
	{
		dmu_queue_call_coordinator(control);
		if (control->follows_crash)
			dmu_suspects_forget(control->request.users, number);
		pgstat_report_stat(true);
		debug_query_string = NULL;
		pgstat_report_activity(STATE_IDLE, NULL);
	}
	dmu_owner_unprotect();
	while (catchupInterruptPending)
		ProcessCatchupInterrupt();
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
					 (may_leave(number) ? WL_TIMEOUT : 0),
					 dmu_worker_idle_timeout, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

bool
dmu_rest_is_over(int number, TimestampTz since)
{
	if (!may_leave(number) ||
		!TimestampDifferenceExceeds(since, GetCurrentTimestamp(),
									dmu_worker_idle_timeout))
		return false;
	ereport(LOG,
			(errmsg("%s: gives back its process, because it had nothing to do for %d ms",
					dmu_log_worker(number), dmu_worker_idle_timeout),
			 DMU_LOG_ALONE));
	return true;
}

/*
 * True if this process has grown beyond its limit and is the one to leave: one
 * at a time, so that the others keep their plans meanwhile.
 */
bool
dmu_rest_has_grown(DmuControl *control, int number, TimestampTz *weighed_at)
{
	Size		limit = (Size) dmu_worker_memory_limit * 1024;
	TimestampTz now = GetCurrentTimestamp();
	Size		size;
	uint32		expected = 0;

	if (limit == 0 ||
		!TimestampDifferenceExceeds(*weighed_at, now, DMU_WEIGH))
		return false;
	*weighed_at = now;
	size = MemoryContextMemAllocated(TopMemoryContext, true);
	if (size <= limit ||
		!pg_atomic_compare_exchange_u32(&control->service.leaving,
										&expected, MyProcPid))
		return false;
	ereport(LOG,
			(errmsg("%s: leaves to another process, because it has %zu kB of memory",
					dmu_log_worker(number), size / 1024),
			 DMU_LOG_ALONE));
	return true;
}

/* The same for one whose settings have changed, that has taken nobody. */
bool
dmu_rest_is_outdated(DmuControl *control, int number)
{
	uint32		expected = 0;

	if (!dmu_launch_is_outdated(control) ||
		!pg_atomic_compare_exchange_u32(&control->service.leaving,
										&expected, MyProcPid))
		return false;
	ereport(LOG,
			(errmsg("%s: leaves to another process, because settings have changed",
					dmu_log_worker(number)),
			 DMU_LOG_ALONE));
	return true;
}
