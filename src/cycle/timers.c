/*-------------------------------------------------------------------------
 *
 * timers.c
 *		The timers of a worker process: how a refresh is stopped from outside.
 *
 *		Whoever wants a cycle to stop sets a flag in its control segment and is
 *		free to die at once: every worker looks at the flag ten times a second,
 *		in the midst of a refresh, and cancels itself.  So there is no signal
 *		to send to a process that may have become another one, and no
 *		survivor is needed to see it through.  statement_timeout does the same
 *		with SIGALRM, but is not enforced in background workers.
 *
 *		A procedure can swallow query_canceled.  It is cancelled again at every
 *		tick, and when the grace is over its process terminates itself; that
 *		no handler in SQL can catch.
 *
 *		All that runs in the handlers is async-signal-safe.
 *
 *-------------------------------------------------------------------------
 */
#include "timers.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* How often the stop flag is looked at, milliseconds. */
#define DMU_TICK 100

static TimeoutId tick_timeout;
static TimeoutId user_timeout;
static bool registered = false;

static DmuControl *volatile watched = NULL;
static volatile sig_atomic_t out_of_time = false;

/*
 * When the refresh was first cancelled, 0 if it was not.  Read by the handler
 * of the tick alone; a torn value could at worst delay or hasten the end of a
 * process that does not heed its cancel.
 */
static volatile TimestampTz canceled_at = 0;

static void
cancel_refresh(void)
{
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

static void
handle_tick(void)
{
	TimestampTz now;

	if (watched == NULL)
		return;

	if (dmu_queue_stop(watched) < DMU_STOP_CANCEL && !out_of_time)
	{
		canceled_at = 0;
		return;
	}

	now = GetCurrentTimestamp();
	if (canceled_at == 0)
		canceled_at = now;

	if (TimestampDifferenceExceeds(canceled_at, now, DMU_CANCEL_GRACE))
		kill(MyProcPid, SIGTERM);
	else
		cancel_refresh();
}

static void
handle_user_timeout(void)
{
	out_of_time = true;
	cancel_refresh();
}

/*
 * before_shmem_exit callback: the control segment is unmapped soon after, and
 * the process may live to see another tick.
 */
static void
timers_exit(int code, Datum arg)
{
	watched = NULL;
	disable_timeout(tick_timeout, false);
	disable_timeout(user_timeout, false);
}

void
dmu_timers_start(DmuControl *control)
{
	if (!registered)
	{
		before_shmem_exit(timers_exit, (Datum) 0);
		tick_timeout = RegisterTimeout(USER_TIMEOUT, handle_tick);
		user_timeout = RegisterTimeout(USER_TIMEOUT, handle_user_timeout);
		registered = true;
	}

	out_of_time = false;
	canceled_at = 0;
	watched = control;
	enable_timeout_every(tick_timeout,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 DMU_TICK),
						 DMU_TICK);
}

void
dmu_timers_stop(void)
{
	if (!registered)
		return;
	watched = NULL;
	disable_timeout(tick_timeout, false);
	disable_timeout(user_timeout, false);
	QueryCancelPending = false;
}

void
dmu_timers_begin(int timeout)
{
	out_of_time = false;
	canceled_at = 0;
	if (timeout > 0)
		enable_timeout_after(user_timeout, timeout);
}

bool
dmu_timers_out_of_time(void)
{
	return out_of_time;
}

bool
dmu_timers_end(void)
{
	bool		result;

	if (get_timeout_active(user_timeout))
		disable_timeout(user_timeout, false);
	result = out_of_time;
	out_of_time = false;
	if (result)
		QueryCancelPending = false;
	return result;
}
