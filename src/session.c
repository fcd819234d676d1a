/*-------------------------------------------------------------------------
 *
 * session.c
 *		The role that a worker process works as.
 *
 *		A security context must not be set when a transaction begins
 *		(StartTransaction() in access/transam/xact.c asserts it), and must be
 *		set until it has committed, deferred triggers included.  A commit leaves
 *		it as it is, an abort falls back to what was there at the beginning.
 *		So it is taken off and put on at the one place where transactions
 *		begin.
 *
 *-------------------------------------------------------------------------
 */
#include "session.h"

#include "access/xact.h"
#include "miscadmin.h"

static Oid	session_role = InvalidOid;
static int	session_context = 0;

void
dmu_session_assume(Oid role, int security_context)
{
	session_role = role;
	session_context = security_context;
}

void
dmu_session_begin(void)
{
	SetUserIdAndSecContext(session_role, 0);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SetUserIdAndSecContext(session_role, session_context);
}

void
dmu_session_commit(MemoryContext context)
{
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}
