/*-------------------------------------------------------------------------
 *
 * cancel.c
 *		What a cancel does to a process of a cycle.
 *
 *		A refresh can be canceled like the query of a client.  What a process
 *		does for the cycle, such as to write down a failure, is not to be lost
 *		to a cancel that was meant for the refresh before; nor must it wait for
 *		ever.  So there a cancel is put aside, but not the one by which the
 *		server ends the wait for a lock.
 *
 *		Who has sent it is remembered: a person, or the process itself.
 *
 *		This file knows nothing of cycles and transactions.
 *
 *-------------------------------------------------------------------------
 */
#include "cancel.h"

#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timeout.h"

/* True until the process is connected to its database. */
static volatile sig_atomic_t connecting = true;

/* Since dmu_cancel_clear(). */
static volatile sig_atomic_t canceled = false;

/*
 * The process that has sent the first one since dmu_cancel_take(), 0 if nobody
 * has, -1 if it is not known.  Not this process itself: the server's timers
 * send signals, and a procedure may.
 */
static volatile sig_atomic_t sender = 0;

/* Between dmu_cancel_keep() and dmu_cancel_restore(). */
static volatile sig_atomic_t keeping = false;
static volatile sig_atomic_t kept = false;
static uint32 holdoff_count = 0;

void
dmu_cancel_request(void)
{
	if (keeping && !get_timeout_indicator(LOCK_TIMEOUT, false))
	{
		kept = true;
		return;
	}
	if (connecting)
		ProcDiePending = true;
	else
		QueryCancelPending = true;
	canceled = true;
	InterruptPending = true;
}

static void
handle_signal(int signo, siginfo_t * info, void *context)
{
	int			save_errno = errno;

	/* A child of a procedure's, before it becomes another program. */
	if (MyProcPid != (int) getpid())
	{
		signal(signo, SIG_DFL);
		raise(signo);
		return;
	}

	/* Only what kill() sends tells of a process. */
	if (sender == 0 && info->si_code > 0)
		sender = -1;
	else if (sender == 0 && info->si_pid != MyProcPid)
		sender = info->si_pid != 0 ? info->si_pid : -1;
	dmu_cancel_request();
	SetLatch(MyLatch);
	errno = save_errno;
}

void
dmu_cancel_init(void)
{
	struct sigaction action = {.sa_flags = SA_RESTART | SA_SIGINFO};

	/* As pqsignal() does it, which does not hand on who it was. */
	action.sa_sigaction = handle_signal;
	sigemptyset(&action.sa_mask);
	if (sigaction(SIGINT, &action, NULL) != 0)
		elog(FATAL, "could not set the handler of a signal: %m");
}

void
dmu_cancel_connected(void)
{
	connecting = false;
}

void
dmu_cancel_keep(void)
{
	if (keeping)
		return;
	keeping = true;
	if (QueryCancelPending)
	{
		QueryCancelPending = false;
		kept = true;
	}
	holdoff_count = QueryCancelHoldoffCount;
	QueryCancelHoldoffCount = 0;
}

void
dmu_cancel_restore(void)
{
	if (!keeping)
		return;
	QueryCancelHoldoffCount = holdoff_count;
	keeping = false;
	if (kept)
	{
		kept = false;
		dmu_cancel_request();
	}
}

void
dmu_cancel_clear(void)
{
	kept = false;
	canceled = false;
	QueryCancelPending = false;
}

bool
dmu_cancel_was_taken(void)
{
	return canceled && !QueryCancelPending;
}

bool
dmu_cancel_take(int *taken_from)
{
	bool		pending;

	/* In this order: a cancel that stays pending keeps its sender. */
	*taken_from = sender;
	sender = 0;
	pending = QueryCancelPending;
	QueryCancelPending = false;
	return pending;
}

int
dmu_cancel_sender(void)
{
	return QueryCancelPending ? 0 : sender;
}
