/*-------------------------------------------------------------------------
 *
 * timers.c
 *		How a refresh is stopped from outside, and by its time limits.
 *
 *		Whoever wants a cycle to stop sets a flag in its control segment, wakes
 *		its processes by SIGINT (stop.c) and is free to die at once.  No timer
 *		runs meanwhile: every signal cuts short what a procedure does outside
 *		the server, such as to sleep or to wait for a socket.
 *
 *		One signal is not enough.  A procedure can swallow query_canceled, and
 *		another error may come first.  Either ends a transaction or a
 *		subtransaction; then the flag is looked at, and if it is set, a tick
 *		cancels again ten times a second.  When the grace is over the process
 *		terminates itself; that no handler in SQL can catch.
 *
 *		The time limits work in the same way, from the moment at which they run
 *		out.  statement_timeout is enforced here because the server does not in
 *		background workers.
 *
 *		All that runs in the handlers is async-signal-safe.  Of the cycle this
 *		file knows the stop flag only, and does without one.
 *
 *-------------------------------------------------------------------------
 */
#include "timers.h"

#include <signal.h>

#include "access/xact.h"
#include "cancel.h"
#include "miscadmin.h"
#include "stop.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* How often something that has to stop is canceled, milliseconds. */
#define DMU_TICK 100

/* How long a standby is waited for at the end of a stopped cycle. */
#define DMU_FINISH_GRACE 1000

static TimeoutId tick_timeout;
static TimeoutId user_timeout;
static TimeoutId call_timeout;
static bool registered = false;

static DmuControl *watched = NULL;

/* The tick runs, or has to: the cycle is to stop. */
static bool ticking = false;

/* The cycle has ended but for its last commits. */
static volatile sig_atomic_t finishing = false;

/* DmuLimit; the first one stays. */
static volatile sig_atomic_t out_of_time = DMU_LIMIT_NONE;

/*
 * When the refresh was first canceled, 0 if it was not.  Read by the handlers
 * alone; a torn value could at worst delay or hasten the end of a process that
 * does not heed its cancel.
 */
static volatile TimestampTz canceled_at = 0;

/* In a handler: cancels, or terminates what has not heeded that. */
static void
insist(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (canceled_at == 0)
		canceled_at = now;
	if (TimestampDifferenceExceeds(canceled_at, now, DMU_CANCEL_GRACE))
		kill(MyProcPid, SIGTERM);
	else
	{
		dmu_cancel_request();
		SetLatch(MyLatch);
	}
}

static void
handle_tick(void)
{
	/* By the signal, so that it is known whether somebody has taken it. */
	if (finishing)
		kill(MyProcPid, SIGINT);
	else
		insist();
}

static void
handle_user_timeout(void)
{
	if (out_of_time == DMU_LIMIT_NONE)
		out_of_time = DMU_LIMIT_USER;
	insist();
}

static void
handle_call_timeout(void)
{
	if (out_of_time == DMU_LIMIT_NONE)
		out_of_time = DMU_LIMIT_CALL;
	insist();
}

/* before_shmem_exit callback: the process may live to see another tick. */
static void
timers_exit(int code, Datum arg)
{
	watched = NULL;
	disable_timeout(tick_timeout, false);
	disable_timeout(user_timeout, false);
	disable_timeout(call_timeout, false);
}

static void
start_every(TimeoutId timeout, int first)
{
	enable_timeout_every(timeout,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 first),
						 DMU_TICK);
}

void
dmu_timers_look(void)
{
	if (watched == NULL || ticking ||
		dmu_queue_stop(watched) < DMU_STOP_CANCEL)
		return;
	ticking = true;
	canceled_at = 0;
	start_every(tick_timeout, DMU_TICK);
}

/* XactCallback and SubXactCallback: whatever was canceled may go on. */
static void
transaction_aborts(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		dmu_timers_look();
}

static void
subtransaction_aborts(SubXactEvent event, SubTransactionId subxact,
					  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		dmu_timers_look();
}

static void
register_once(void)
{
	if (registered)
		return;
	before_shmem_exit(timers_exit, (Datum) 0);
	tick_timeout = RegisterTimeout(USER_TIMEOUT, handle_tick);
	user_timeout = RegisterTimeout(USER_TIMEOUT, handle_user_timeout);
	call_timeout = RegisterTimeout(USER_TIMEOUT, handle_call_timeout);
	RegisterXactCallback(transaction_aborts, NULL);
	RegisterSubXactCallback(subtransaction_aborts, NULL);
	registered = true;
}

void
dmu_timers_start(DmuControl *control)
{
	register_once();
	out_of_time = DMU_LIMIT_NONE;
	canceled_at = 0;
	watched = control;
	dmu_timers_look();
}

void
dmu_timers_stop(void)
{
	if (!registered)
		return;
	watched = NULL;
	ticking = false;
	finishing = false;
	disable_timeout(tick_timeout, false);
	disable_timeout(user_timeout, false);
	disable_timeout(call_timeout, false);
	QueryCancelPending = false;
}

void
dmu_timers_finish(DmuControl *control)
{
	if (finishing || dmu_queue_stop(control) < DMU_STOP_CANCEL)
		return;
	ticking = true;
	register_once();
	finishing = true;
	start_every(tick_timeout, DMU_FINISH_GRACE);
}

void
dmu_timers_begin(int timeout)
{
	out_of_time = DMU_LIMIT_NONE;
	canceled_at = 0;
	if (timeout > 0)
		start_every(user_timeout, timeout);
}

void
dmu_timers_begin_call(int timeout)
{
	/* That of an earlier attempt, which ended in another way. */
	if (out_of_time == DMU_LIMIT_CALL)
		out_of_time = DMU_LIMIT_NONE;
	if (timeout > 0)
		start_every(call_timeout, timeout);
}

void
dmu_timers_end_call(void)
{
	if (registered && get_timeout_active(call_timeout))
		disable_timeout(call_timeout, false);
}

DmuLimit
dmu_timers_out_of_time(void)
{
	return (DmuLimit) out_of_time;
}

DmuLimit
dmu_timers_end(void)
{
	DmuLimit	limit;

	dmu_timers_end_call();
	if (get_timeout_active(user_timeout))
		disable_timeout(user_timeout, false);
	limit = (DmuLimit) out_of_time;
	out_of_time = DMU_LIMIT_NONE;
	if (limit != DMU_LIMIT_NONE)
		QueryCancelPending = false;
	return limit;
}
