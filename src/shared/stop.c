/*-------------------------------------------------------------------------
 *
 * stop.c
 *		The stop flag of a cycle, and the reason why it was set.
 *
 *		Any process may set it, in a cycle of another build, too; so all that
 *		such a cycle needs for that is in the head of its control segment.  The
 *		flag only gets stronger.
 *
 *		This file runs no SQL and no transaction, starts no process, and does
 *		not know what a process does that finds the flag set.
 *
 *-------------------------------------------------------------------------
 */
#include "stop.h"

#include <signal.h>

#include "compat.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/timestamp.h"

/* How long until a signal is sent once more, milliseconds. */
#define DMU_WAKE_INTERVAL 1000

DmuStop
dmu_queue_stop(DmuControl *control)
{
	return (DmuStop) pg_atomic_read_u32(&control->head.stop);
}

/*
 * The pid is that of a process which has not exited yet, or was not a moment
 * ago; that it has become another background worker of the same database
 * since can be ruled out as little as pg_cancel_backend() can.
 */
static void
wake_process(const DmuControlHead *head, int pid)
{
	PGPROC	   *proc;

	if (pid == 0 || pid == MyProcPid)
		return;
	proc = BackendPidGetProc(pid);
	if (proc != NULL && dmu_is_background_worker(proc) &&
		(proc->databaseId == head->database || !OidIsValid(proc->databaseId)))
		(void) kill(pid, SIGINT);
}

void
dmu_queue_wake(DmuControlHead *head)
{
	DmuControl *control = dmu_queue_whole(head);

	if (control == NULL)
	{
		wake_process(head, head->coordinator_pid);
		return;
	}
	for (int i = 0; i < control->nslots; i++)
		wake_process(head,
					 (int) pg_atomic_read_u32(&control->slots[i].live_pid));
}

void
dmu_queue_wake_again(DmuControlHead *head, TimestampTz *last)
{
	TimestampTz now = GetCurrentTimestamp();

	if (*last != 0 && !TimestampDifferenceExceeds(*last, now, DMU_WAKE_INTERVAL))
		return;
	if (*last != 0)
		dmu_queue_wake(head);
	*last = now;
}

/*
 * The flag comes before the signal, and a process writes down its pid before
 * it reads the flag: whoever misses the one does not miss the other.
 */
static void
request_stop(DmuControlHead *head, DmuStop stop)
{
	uint32		current = pg_atomic_read_u32(&head->stop);

	while (current < (uint32) stop)
	{
		if (pg_atomic_compare_exchange_u32(&head->stop, &current, stop))
			break;
	}
	if (stop >= DMU_STOP_CANCEL)
		dmu_queue_wake(head);
}

void
dmu_queue_request_stop(DmuControl *control, DmuStop stop)
{
	request_stop(&control->head, stop);
}

static void
tell_reason(DmuControl *control, const char *reason)
{
	uint32		expected = 0;

	if (pg_atomic_compare_exchange_u32(&control->stop_told, &expected, 1))
	{
		strlcpy(control->stop_reason, reason, sizeof(control->stop_reason));
		pg_write_barrier();
		pg_atomic_write_u32(&control->stop_told, 2);
	}
}

void
dmu_queue_cancel(DmuControlHead *head, const char *reason)
{
	DmuControl *control = dmu_queue_whole(head);

	if (control != NULL)
		tell_reason(control, reason);
	request_stop(head, DMU_STOP_CANCEL);
}

void
dmu_queue_end_service(DmuControl *control, const char *reason)
{
	tell_reason(control, reason);
	request_stop(&control->head, DMU_STOP_TIME_LIMIT);
	dmu_queue_nudge(control);
}

const char *
dmu_queue_stop_reason(DmuControl *control)
{
	if (pg_atomic_read_u32(&control->stop_told) != 2)
		return "canceled by a session that could not leave word of who it is";
	pg_read_barrier();
	return control->stop_reason;
}

void
dmu_queue_stop_with_error(DmuControl *control, DmuStop stop,
						  const DmuError *error)
{
	uint32		expected = 0;

	if (pg_atomic_compare_exchange_u32(&control->error_claimed, &expected, 1))
		control->error = *error;
	dmu_queue_request_stop(control, stop);
}
