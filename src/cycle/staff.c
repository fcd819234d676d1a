/*-------------------------------------------------------------------------
 *
 * staff.c
 *		The workers of a service, beside its coordinator.
 *
 *		They come when there is more to do than those there can take up, and
 *		leave by themselves when there has been nothing for a while.  Where no
 *		process is to be had the service goes on with those that it has, and
 *		tries again later.
 *
 *		Part of the coordinator.
 *
 *-------------------------------------------------------------------------
 */
#include "staff.h"

#include "await.h"
#include "finish.h"
#include "log.h"
#include "slot.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How long until another process is tried after one could not be had, ms. */
#define DMU_HIRE_AGAIN 10000

struct DmuStaff
{
	DmuControl *control;
	dsm_handle	handle;
	MemoryContext context;
	BackgroundWorkerHandle **workers;	/* by slot from 2 on; NULL: nobody */
	int			nslots;			/* without that of the coordinator */
	int			nworkers;
	TimestampTz short_since;	/* 0 = processes are not short */
	bool		warned;
};

DmuStaff   *
dmu_staff_create(DmuControl *control, dsm_handle handle)
{
	DmuStaff   *staff = MemoryContextAllocZero(TopMemoryContext,
											   sizeof(DmuStaff));

	staff->control = control;
	staff->handle = handle;
	staff->nslots = control->nslots - 1;
	staff->context = AllocSetContextCreate(TopMemoryContext,
										   "datamart_users staff",
										   ALLOCSET_SMALL_SIZES);
	staff->workers = MemoryContextAllocZero(staff->context,
											Max(staff->nslots, 1) * sizeof(BackgroundWorkerHandle *));
	return staff;
}

static void
run_short(DmuStaff *staff, const char *detail)
{
	staff->short_since = GetCurrentTimestamp();
	if (!staff->warned)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("%s: service goes on with %d workers, of %d that it may have",
						dmu_log_cycle(), staff->nworkers, staff->nslots),
				 detail != NULL ? errdetail_internal("%s", detail) : 0,
				 errhint("You might need to increase max_worker_processes.")));
	staff->warned = true;
}

void
dmu_staff_reap(DmuStaff *staff, DmuQueues *queues)
{
	for (int i = 0; i < staff->nslots; i++)
	{
		int			number = i + DMU_COORDINATOR + 1;
		DmuSlot    *slot = dmu_slot(staff->control, number);
		pid_t		pid;
		BgwHandleStatus status;

		if (staff->workers[i] == NULL)
			continue;
		status = GetBackgroundWorkerPid(staff->workers[i], &pid);
		if (status == BGWH_STARTED || status == BGWH_NOT_YET_STARTED)
			continue;
		pfree(staff->workers[i]);
		staff->workers[i] = NULL;
		staff->nworkers--;
		if (pg_atomic_read_u32(&staff->control->service.leaving) ==
			pg_atomic_read_u32(&slot->pid))
		{
			pg_atomic_write_u32(&staff->control->service.leaving, 0);
			dmu_queue_nudge(staff->control);
		}
		pg_atomic_write_u32(&staff->control->workers_registered,
							staff->nworkers);
		if (pg_atomic_read_u32(&slot->joined) == 0)
		{
			const DmuError *error = &staff->control->missing_error;

			run_short(staff, error->sqlerrcode != 0 ? error->message : NULL);
			pg_atomic_write_u32(&staff->control->missing_claimed, 0);
			continue;
		}
		if (dmu_finish_lost_worker(staff->control, number))
			dmu_queues_lose(queues,
							(int64) pg_atomic_read_u64(&slot->dimension_user_id));
	}
}

int
dmu_staff_hire(DmuStaff *staff, int wanted)
{
	MemoryContext old_context;

	wanted = Min(wanted, staff->nslots);
	if (staff->nworkers >= wanted ||
		(staff->short_since != 0 &&
		 !TimestampDifferenceExceeds(staff->short_since, GetCurrentTimestamp(),
									 DMU_HIRE_AGAIN)))
		return staff->nworkers;

	staff->short_since = 0;
	old_context = MemoryContextSwitchTo(staff->context);
	for (int i = 0; i < staff->nslots && staff->nworkers < wanted; i++)
	{
		if (staff->workers[i] != NULL)
			continue;
		pg_atomic_write_u32(&dmu_slot(staff->control, i + DMU_COORDINATOR + 1)->joined, 0);
		if (!dmu_launch_register(staff->handle, i + DMU_COORDINATOR + 1,
								 &staff->workers[i]))
		{
			staff->workers[i] = NULL;
			run_short(staff, NULL);
			break;
		}
		staff->nworkers++;
	}
	if (staff->nworkers == staff->nslots)
		staff->warned = false;
	pg_atomic_write_u32(&staff->control->workers_registered, staff->nworkers);
	MemoryContextSwitchTo(old_context);
	return staff->nworkers;
}

void
dmu_staff_are_idle(DmuStaff *staff)
{
	for (int i = 0; i < staff->nslots; i++)
	{
		DmuSlot    *slot = dmu_slot(staff->control, i + DMU_COORDINATOR + 1);

		if (staff->workers[i] != NULL &&
			pg_atomic_read_u32(&slot->joined) != 0 &&
			pg_atomic_read_u32(&slot->live_pid) != 0)
			dmu_slot_set_state(slot, DMU_WORKER_IDLE);
	}
}

void
dmu_staff_recall(DmuStaff *staff)
{
	for (int i = 0; i < staff->nslots; i++)
	{
		DmuSlot    *slot = dmu_slot(staff->control, i + DMU_COORDINATOR + 1);

		if (staff->workers[i] != NULL &&
			pg_atomic_read_u32(&slot->joined) == 0)
			TerminateBackgroundWorker(staff->workers[i]);
	}

	/* That they have not come is nobody's fault. */
	staff->warned = true;
}

void
dmu_staff_wait(DmuStaff *staff)
{
	BackgroundWorkerHandle **left =
	palloc(Max(staff->nslots, 1) * sizeof(BackgroundWorkerHandle *));
	int			nleft = 0;

	for (int i = 0; i < staff->nslots; i++)
	{
		if (staff->workers[i] != NULL)
			left[nleft++] = staff->workers[i];
	}
	dmu_await_workers(staff->control, left, nleft);
	pfree(left);
}

void
dmu_staff_terminate(DmuStaff *staff)
{
	for (int i = 0; i < staff->nslots; i++)
	{
		if (staff->workers[i] != NULL)
			TerminateBackgroundWorker(staff->workers[i]);
	}
}
