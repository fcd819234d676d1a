/*-------------------------------------------------------------------------
 *
 * watch.c
 *		What a backend has to look after while it waits for a cycle.
 *
 *		It waits on its latch, so it hears neither of a client that has gone
 *		nor of a deadlock that it is part of, unless it looks.
 *
 *-------------------------------------------------------------------------
 */
#include "watch.h"

#include "blockers.h"
#include "compat.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "progress.h"
#include "settings.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A client that has gone is noticed here, and not when we have a result. */
static void
check_client(void)
{
	if (MyProcPort == NULL || whereToSendOutput != DestRemote ||
		!WaitEventSetCanReportClosed())
		return;
	if (!pq_check_connection())
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
	CHECK_FOR_INTERRUPTS();
}

/* What it waits for, in words, or NULL if it does not wait; palloc'd. */
static char *
blocked_object(int pid)
{
	BlockedProcsData *data = GetBlockerStatusData(pid);

	for (int i = 0; i < data->nlocks; i++)
	{
		const LockInstanceData *lock = &data->locks[i];
		StringInfoData text;

		if (lock->pid != pid || lock->waitLockMode == NoLock)
			continue;

		initStringInfo(&text);
		if ((lock->locktag.locktag_type == LOCKTAG_RELATION ||
			 lock->locktag.locktag_type == LOCKTAG_TUPLE) &&
			lock->locktag.locktag_field1 == MyDatabaseId)
		{
			char	   *name = get_rel_name(lock->locktag.locktag_field2);

			if (name != NULL)
			{
				appendStringInfo(&text, "relation \"%s\"", name);
				return text.data;
			}
		}
		DescribeLockTag(&text, &lock->locktag);
		return text.data;
	}
	return NULL;
}

static void
raise_blocked(DmuSlot *slot, int pid)
{
	char	   *object = blocked_object(pid);
	uint32		state = pg_atomic_read_u32(&slot->state);
	char	   *work = "";

	if (state == DMU_WORKER_REFRESHING || state == DMU_WORKER_RECORDING)
		work = psprintf(", at work on datamart user " INT64_FORMAT ",",
						(int64) pg_atomic_read_u64(&slot->dimension_user_id));

	ereport(ERROR,
			(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
			 errmsg("deadlock detected between this session and the cycle that it waits for"),
			 errdetail("Process %d of the cycle%s waits for %s, which is locked by this session (process %d) or by one that waits for it.",
					   pid, work, object != NULL ? object : "a lock", MyProcPid),
			 errhint("Call the function in a statement and a transaction of its own.")));
}

/*
 * Only a process that has been at the same thing for a while can be waiting;
 * the lock table is left alone otherwise.
 */
static void
check_blocked(DmuControl *control, TimestampTz now)
{
	for (int i = 0; i < control->nslots; i++)
	{
		DmuSlot    *slot = &control->slots[i];
		int			pid = (int) pg_atomic_read_u32(&slot->live_pid);
		TimestampTz since = (TimestampTz) pg_atomic_read_u64(&slot->since);

		/*
		 * The coordinator has other work, before and after its datamart
		 * users.
		 */
		if (pid == 0 ||
			(i > 0 && pg_atomic_read_u32(&slot->state) == DMU_WORKER_DONE) ||
			!TimestampDifferenceExceeds(since, now, DMU_WATCH_INTERVAL))
			continue;
		if (dmu_blocked_by_me(pid))
			raise_blocked(slot, pid);
	}
}

void
dmu_watch_begin(DmuWatch *watch)
{
	watch->context = AllocSetContextCreate(CurrentMemoryContext,
										   "datamart_users watch",
										   ALLOCSET_DEFAULT_SIZES);
	watch->looked_at = GetCurrentTimestamp();
	watch->reported_at = watch->looked_at;
}

void
dmu_watch_look(DmuWatch *watch, DmuControl *control)
{
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext old_context;

	if (!TimestampDifferenceExceeds(watch->looked_at, now, DMU_WATCH_INTERVAL))
		return;
	watch->looked_at = now;

	old_context = MemoryContextSwitchTo(watch->context);
	check_client();
	check_blocked(control, now);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(watch->context);
}

void
dmu_watch_report(DmuWatch *watch, DmuControl *control)
{
	TimestampTz now = GetCurrentTimestamp();

	if (dmu_progress_interval == 0 ||
		dmu_queue_phase(control) < DMU_PHASE_QUEUED ||
		!TimestampDifferenceExceeds(watch->reported_at, now,
									dmu_progress_interval))
		return;
	dmu_progress_notice(control);
	watch->reported_at = now;
}

void
dmu_watch_end(DmuWatch *watch)
{
	MemoryContextDelete(watch->context);
}
