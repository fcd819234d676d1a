/*-------------------------------------------------------------------------
 *
 * progress.c
 *		How far a running cycle is, from its shared memory.
 *
 *		Reads what the workers count anyway, so looking costs them nothing.
 *		Knows no SQL and changes nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "progress.h"

#include "directory.h"
#include "slot.h"
#include "stop.h"
#include "utils/timestamp.h"

void
dmu_progress_begin(DmuProgressScan *scan)
{
	memset(scan, 0, sizeof(*scan));
	scan->nhandles = dmu_directory_list(&scan->handles);
}

/* The next control segment, of whatever build and phase. */
static DmuControlHead *
next_segment(DmuProgressScan *scan)
{
	while (scan->next < scan->nhandles)
	{
		DmuControlHead *head;

		if (scan->seg != NULL)
			dsm_detach(scan->seg);
		head = dmu_queue_attach(scan->handles[scan->next++], &scan->seg);
		if (head != NULL)
			return head;
	}
	return NULL;
}

/* The next one whose cycle has not ended. */
static DmuControlHead *
next_begun(DmuProgressScan *scan)
{
	DmuControlHead *head;

	do
	{
		head = next_segment(scan);
	} while (head != NULL && !dmu_queue_is_running(head));
	return head;
}

/* The next one of these that has an id. */
static DmuControlHead *
next_running(DmuProgressScan *scan)
{
	DmuControlHead *head;

	do
	{
		head = next_begun(scan);
	} while (head != NULL && head->cycle_id == 0);
	return head;
}

DmuControl *
dmu_progress_next(DmuProgressScan *scan)
{
	DmuControlHead *head;

	while ((head = next_running(scan)) != NULL)
	{
		DmuControl *control = dmu_queue_whole(head);

		if (control != NULL)
			return control;
		ereport(WARNING,
				(errmsg("cycle " INT64_FORMAT " of datamart_users was started by another build of the library",
						head->cycle_id),
				 errdetail("Nothing more can be told of it in this session.")));
	}
	return NULL;
}

DmuControl *
dmu_progress_next_service(DmuProgressScan *scan)
{
	DmuControlHead *head;

	while ((head = next_begun(scan)) != NULL)
	{
		DmuControl *control = dmu_queue_whole(head);

		if (control != NULL && control->request.poll > 0 &&
			dmu_queue_phase(control) > DMU_PHASE_CREATED)
			return control;
	}
	return NULL;
}

void
dmu_progress_end(DmuProgressScan *scan)
{
	if (scan->seg != NULL)
		dsm_detach(scan->seg);
	pfree(scan->handles);
}

/* Ends a scan at the cycle that was looked for. */
static DmuControlHead *
end_at(DmuProgressScan *scan, DmuControlHead *head, dsm_segment **seg)
{
	*seg = NULL;
	if (head != NULL)
	{
		*seg = scan->seg;
		scan->seg = NULL;
	}
	dmu_progress_end(scan);
	return head;
}

DmuControlHead *
dmu_progress_attach_datamart(Oid users, dsm_segment **seg)
{
	DmuProgressScan scan;
	DmuControlHead *head;

	dmu_progress_begin(&scan);
	do
	{
		head = next_begun(&scan);
	} while (head != NULL && head->users != users);
	return end_at(&scan, head, seg);
}

DmuControlHead *
dmu_progress_attach_cycle(int64 cycle_id, dsm_segment **seg)
{
	DmuProgressScan scan;
	DmuControlHead *head;

	dmu_progress_begin(&scan);
	do
	{
		head = next_running(&scan);
	} while (head != NULL && head->cycle_id != cycle_id);
	return end_at(&scan, head, seg);
}

DmuControlHead *
dmu_progress_attach_only(dsm_segment **seg)
{
	DmuProgressScan scan;
	DmuControlHead *head;
	Oid			users = InvalidOid;
	int			ncycles = 0;

	*seg = NULL;
	dmu_progress_begin(&scan);
	while ((head = next_begun(&scan)) != NULL)
	{
		users = head->users;
		ncycles++;
	}
	dmu_progress_end(&scan);

	if (ncycles > 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%d cycles of datamart_users are running in this database",
						ncycles),
				 errhint("Pass the cycle_id of one of them, see datamart_users_progress.")));
	return ncycles == 0 ? NULL : dmu_progress_attach_datamart(users, seg);
}

int
dmu_progress_remove_running(int64 *cycle_ids, int ncycles)
{
	DmuProgressScan scan;
	DmuControlHead *head;

	dmu_progress_begin(&scan);
	while ((head = next_segment(&scan)) != NULL)
	{
		int			left = 0;

		for (int i = 0; i < ncycles; i++)
		{
			if (cycle_ids[i] != head->cycle_id)
				cycle_ids[left++] = cycle_ids[i];
		}
		ncycles = left;
	}
	dmu_progress_end(&scan);
	return ncycles;
}

static void
refuse_beside_service(DmuControl *service)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("the service of datamart_users is running in this database"),
			 errdetail("It is for the datamart users of %s, and was started by role \"%s\" at %s; its coordinator has process ID %d.",
					   service->request.users_name,
					   NameStr(service->role_name),
					   timestamptz_to_str(service->service.since),
					   (int) service->head.coordinator_pid),
			 errhint("It refreshes whoever is modified; stop it with datamart_users_stop_service().")));
}

void
dmu_progress_refuse_second(Oid users)
{
	dsm_segment *seg;
	DmuControlHead *head = dmu_progress_attach_datamart(users, &seg);
	DmuControl *running;

	running = head != NULL ? dmu_queue_whole(head) : NULL;
	if (running != NULL && running->request.poll > 0)
		refuse_beside_service(running);
	if (head == NULL || head->cycle_id == 0)
	{
		if (seg != NULL)
			dsm_detach(seg);
		return;
	}

	running = dmu_queue_whole(head);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cycle " INT64_FORMAT " of datamart_users is already running in this database",
					head->cycle_id),
			 running == NULL ?
			 errdetail("It was started by another build of the library; its coordinator has process ID %d.",
					   (int) head->coordinator_pid) :
			 errdetail("It is for the datamart users of %s, and was started by role \"%s\" at %s; its coordinator has process ID %d.",
					   running->request.users_name,
					   NameStr(running->role_name),
					   timestamptz_to_str(running->started_at),
					   (int) head->coordinator_pid),
			 errhint("Wait for it with datamart_users_wait_cycle(" INT64_FORMAT "), or stop it with datamart_users_cancel_cycle(" INT64_FORMAT ").",
					 head->cycle_id, head->cycle_id)));
}

void
dmu_progress_read(DmuControl *control, DmuProgress *progress)
{
	progress->at = GetCurrentTimestamp();
	dmu_queue_tally(control, -1, &progress->total);
	progress->done = dmu_tally_done(&progress->total);
}

/* The present speed is that of this many seconds. */
#define DMU_RATE_SECONDS 10

double
dmu_progress_rate(DmuControl *control, const DmuProgress *now)
{
	int64		elapsed = now->at - control->queued_at;
	int64		recent = 0;

	if (dmu_queue_phase(control) < DMU_PHASE_QUEUED || elapsed <= 0)
		return 0;
	if (elapsed > (DMU_RATE_SECONDS + 1) * USECS_PER_SEC)
	{
		for (int i = 0; i < control->nslots; i++)
			recent += dmu_profile_recent(&control->slots[i].profile, now->at,
										 DMU_RATE_SECONDS);
		if (recent > 0)
			return (double) recent / DMU_RATE_SECONDS;
	}
	return now->done * (double) USECS_PER_SEC / elapsed;
}

/* What nobody lives to see is not known, and fits into no interval. */
#define DMU_LEFT_MAX (100 * 365.0 * SECS_PER_DAY * USECS_PER_SEC)

double
dmu_progress_time_left(DmuControl *control, const DmuProgress *now)
{
	double		left;

	if (dmu_queue_phase(control) < DMU_PHASE_QUEUED)
		return -1;
	left = dmu_queue_time_left(control, now->at);
	return left > DMU_LEFT_MAX ? -1 : left;
}

const char *
dmu_progress_phase_name(DmuControl *control)
{
	if (dmu_queue_stop(control) != DMU_STOP_NONE)
		return "stopping";
	if (dmu_queue_phase(control) < DMU_PHASE_QUEUED)
		return "prioritising";
	return "working";
}

const char *
dmu_progress_state_name(DmuControl *control, int slot)
{
	switch ((DmuWorkerState) pg_atomic_read_u32(&control->slots[slot].state))
	{
		case DMU_WORKER_EMPTY:
			/* The coordinator has other things to do first. */
			return slot == 0 ? dmu_progress_phase_name(control) : "starting";
		case DMU_WORKER_IDLE:
			return "idle";
		case DMU_WORKER_REFRESHING:
			return "refreshing";
		case DMU_WORKER_RECORDING:
			return "recording a failure";
		case DMU_WORKER_DONE:
			return "done";
	}
	return "unknown";
}

/* "1:02:03", "2:03" or "3 s": what is left, for people. */
static void
format_time_left(char *buffer, size_t size, int64 seconds)
{
	if (seconds >= SECS_PER_HOUR)
		snprintf(buffer, size, "%d:%02d:%02d h",
				 (int) (seconds / SECS_PER_HOUR),
				 (int) (seconds / SECS_PER_MINUTE % MINS_PER_HOUR),
				 (int) (seconds % SECS_PER_MINUTE));
	else if (seconds >= SECS_PER_MINUTE)
		snprintf(buffer, size, "%d:%02d min",
				 (int) (seconds / SECS_PER_MINUTE),
				 (int) (seconds % SECS_PER_MINUTE));
	else
		snprintf(buffer, size, "%d s", (int) seconds);
}

void
dmu_progress_notice(DmuControl *control)
{
	int32		found = control->found;
	DmuProgress now;
	double		rate;
	double		usec;
	char		left[64] = "unknown time";

	if (found == 0)
		return;
	dmu_progress_read(control, &now);
	rate = dmu_progress_rate(control, &now);
	usec = dmu_progress_time_left(control, &now);
	if (usec >= 0)
		format_time_left(left, sizeof(left),
						 (int64) (usec / USECS_PER_SEC + 0.5));

	ereport(NOTICE,
			(errmsg_plural("datamart_users cycle %lld: %lld/%d datamart user (%d%%), %.1f per second, %s left",
						   "datamart_users cycle %lld: %lld/%d datamart users (%d%%), %.1f per second, %s left",
						   found, (long long) control->head.cycle_id,
						   (long long) now.done, found,
						   (int) (now.done * 100 / found), rate, left)));
}

void
dmu_progress_result(DmuControl *control, DmuStatus status,
					DmuCycleResult *result)
{
	memset(result, 0, sizeof(*result));
	result->cycle_id = control->head.cycle_id;
	result->status = status;
	result->backlog = control->backlog;
	result->found = control->found;
	for (int i = 0; i < control->nslots; i++)
	{
		if (pg_atomic_read_u32(&control->slots[i].state) != DMU_WORKER_EMPTY)
			result->workers++;
	}
	result->started_at = control->started_at;
	result->finished_at = GetCurrentTimestamp();
	dmu_queue_tally(control, -1, &result->total);
}
