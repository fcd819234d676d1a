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
 *		This file knows nothing of cycles and transactions.
 *
 *-------------------------------------------------------------------------
 */
#include "cancel.h"

#include <signal.h>

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timeout.h"

/* True until the process is connected to its database. */
static volatile sig_atomic_t connecting = true;

/* Since dmu_cancel_clear(). */
static volatile sig_atomic_t canceled = false;

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
handle_signal(SIGNAL_ARGS)
{
	int			save_errno = errno;

	dmu_cancel_request();
	SetLatch(MyLatch);
	errno = save_errno;
}

void
dmu_cancel_init(void)
{
	pqsignal(SIGINT, handle_signal);
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
