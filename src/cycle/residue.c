/*-------------------------------------------------------------------------
 *
 * residue.c
 *		What a refresh leaves in its session.
 *
 *		A worker refreshes many datamart users in one session, with a procedure
 *		that may have been written for a session each.  Here is what DISCARD
 *		ALL does for a pooler, with two differences: settings go back to what
 *		the cycle began with, and plans stay, as they are why a worker has one
 *		session.  Where nothing was left, nothing is done.
 *
 *		What can be undone as a part of the refresh is: if that fails, it fails
 *		the refresh that is to blame, and nobody begins in what is left.  An
 *		abort undoes the same by itself.
 *
 *		What no session can undo stays: connections of dblink, the state of
 *		random(), libraries, global variables of other languages.
 *
 *		This file knows nothing of datamart users.
 *
 *-------------------------------------------------------------------------
 */
#include "residue.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "utils/guc.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

/* Settings changed at this level or within are the refresh's. */
static int	guc_level = 0;

void
dmu_residue_begin(void)
{
	guc_level = NewGUCNestLevel();
}

void
dmu_residue_undo(void)
{
	/*
	 * The cycle's settings are to hold for what follows, the commit itself
	 * too.
	 */
	AtEOXact_GUC(false, guc_level);

	/* Set for temporary functions and types as well. */
	if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
	{
		/* For long values in the catalog; see PreCommit_on_commit_actions(). */
		PushActiveSnapshot(GetTransactionSnapshot());
		ResetTempTableNamespace();
		PopActiveSnapshot();
	}
}

void
dmu_residue_drop(void)
{
	/*
	 * Cursors WITH HOLD; those for which an error came when they were already
	 * held, as late in the commit as that, survive even the abort.
	 */
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	ResetSequenceCaches();
}
