/*-------------------------------------------------------------------------
 *
 * transaction.c
 *		The role that a worker process works as.
 *
 *		A security context must not be set when a transaction begins
 *		(StartTransaction() in access/transam/xact.c asserts it), and must be
 *		set until it has committed, deferred triggers included.  A commit leaves
 *		it as it is, an abort falls back to what was there at the beginning.
 *		So it is put on and taken off at the one place where transactions
 *		begin and commit.
 *
 *-------------------------------------------------------------------------
 */
#include "transaction.h"

#include "access/xact.h"
#include "cancel.h"
#include "directory.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/guc.h"

static Oid	session_role = InvalidOid;
static int	session_context = 0;

void
dmu_transaction_assume(Oid role, int security_context)
{
	session_role = role;
	session_context = security_context;
	SetUserIdAndSecContext(role, 0);
}

void
dmu_transaction_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	dmu_directory_begin_transaction();
	SetUserIdAndSecContext(session_role, session_context);
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
}

void
dmu_transaction_be_durable(const char *wanted)
{
	if (strcmp(wanted, "off") == 0)
		wanted = "local";
	(void) set_config_option("synchronous_commit", wanted,
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
							 true, 0, false);
}

/* XactCallback: a wait of the commit itself is for cancels to end. */
static void
waits_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_ABORT)
		dmu_cancel_restore();
}

void
dmu_transaction_limit_locks(int wait)
{
	char		value[16];

	if (LockTimeout > 0 && LockTimeout <= wait)
		return;
	snprintf(value, sizeof(value), "%d", wait);
	(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

void
dmu_transaction_limit_waits(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(waits_end, NULL);
	registered = true;
	dmu_cancel_keep();
	dmu_transaction_limit_locks(DMU_LOCK_WAIT);
}

void
dmu_transaction_commit(MemoryContext context)
{
	CommitTransactionCommand();
	SetUserIdAndSecContext(session_role, 0);
	MemoryContextSwitchTo(context);
}
