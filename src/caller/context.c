/*-------------------------------------------------------------------------
 *
 * context.c
 *		The transaction that a cycle is called in, and its snapshot.
 *
 *		A backend that waits for a cycle waits on its latch, where the deadlock
 *		check does not see it; so it must hold nothing that the work of a cycle
 *		could wait for, and nothing that a cycle does not see.  Drivers begin a
 *		transaction block by themselves.  One that has done nothing yet is as
 *		good as none, and what it has done shows in the transaction's state: xid,
 *		locks, open cursors.  Advisory locks are not looked at, as sessions keep
 *		them outside of transactions as well: see watch.c.
 *
 *		This file knows nothing of cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "context.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "datamart_users.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "tcop/pquery.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

/* Modes that readers and writers of rows take, as a mask. */
#define WEAK_LOCKS \
	(LOCKBIT_ON(AccessShareLock) | LOCKBIT_ON(RowShareLock) | \
	 LOCKBIT_ON(RowExclusiveLock))

/*
 * True for statements that are sent one behind the other and share a
 * transaction, though there was no BEGIN.  Since 18 the server makes a block
 * of them.  In a block that a BEGIN has opened, the flag says no more than
 * that there was a statement before.
 */
static bool
is_pipelined(void)
{
	bool		implicit;

	if ((MyXactFlags & XACT_FLAGS_PIPELINING) == 0)
		return false;
	if (!IsTransactionBlock())
		return true;
	EndImplicitTransactionBlock();
	implicit = !IsTransactionBlock();
	if (implicit)
		BeginImplicitTransactionBlock();
	return implicit;
}

/*
 * One that was made in this transaction, and does not run.  The unnamed one of
 * the extended protocol stays there when it has been read.
 */
static bool
is_open(Portal portal)
{
	return PortalIsValid(portal) && portal->status == PORTAL_READY &&
		portal->createSubid != InvalidSubTransactionId &&
		(portal->name[0] != '\0' || !portal->atEnd);
}

/*
 * The name of a cursor that is open beside what runs, NULL if there is none;
 * palloc'd.  One WITH HOLD of an earlier transaction holds nothing but rows.
 */
static const char *
open_cursor(void)
{
	DmuCatalogQuery query;
	const char *found = NULL;

	dmu_catalog_begin(&query, CurrentMemoryContext,
					  "SELECT name FROM pg_cursors ORDER BY name",
					  0, NULL, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed && found == NULL; i++)
	{
		char	   *name = dmu_catalog_text(i, 1);

		if (is_open(GetPortalByName(name)))
			found = name;
	}
	dmu_catalog_end(&query);
	return found;
}

/*
 * Can this lock of ours be in the way of a cycle?  What initdb has created is
 * read and written everywhere, and everybody reads what is the extension's.
 */
static bool
may_be_in_the_way(Oid relation, LOCKMASK held)
{
	char		relkind = get_rel_relkind(relation);

	/* Where one of these is locked, so is its table. */
	if (relkind == RELKIND_INDEX || relkind == RELKIND_PARTITIONED_INDEX ||
		relkind == RELKIND_TOASTVALUE)
		return false;
	if (relation < FirstNormalObjectId)
		return (held & ~WEAK_LOCKS) != 0;
	return held != LOCKBIT_ON(AccessShareLock) ||
		getExtensionOfObject(RelationRelationId, relation) !=
		get_extension_oid(DMU_EXTENSION_NAME, true);
}

/* A relation that this transaction has locked, InvalidOid if there is none. */
static Oid
locked_relation(void)
{
	LockData   *data = GetLockStatusData();
	Oid			found = InvalidOid;

	for (int i = 0; i < data->nelements && !OidIsValid(found); i++)
	{
		const LockInstanceData *lock = &data->locks[i];
		Oid			relation = (Oid) lock->locktag.locktag_field2;

		if (lock->pid == MyProcPid &&
			lock->locktag.locktag_type == LOCKTAG_RELATION &&
			lock->holdMask != 0 &&
			may_be_in_the_way(relation, lock->holdMask))
			found = relation;
	}
	pfree(data->locks);
	pfree(data);
	return found;
}

/* "detail" is a whole sentence. */
static void
refuse(const char *function, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("%s cannot run inside a transaction block", function),
			 errdetail_internal("%s", detail),
			 errhint("Commit first, or call it in autocommit mode: in a statement of its own, outside BEGIN ... COMMIT, savepoints and exception blocks.")));
}

static void
check_block(const char *function)
{
	const char *cursor;
	Oid			relation;

	if (IsolationUsesXactSnapshot())
		refuse(function, "It can run in a block that is READ COMMITTED; this one keeps its snapshot.");
	cursor = open_cursor();
	if (cursor != NULL)
		refuse(function, psprintf("The block has cursor \"%s\" open.", cursor));
	relation = locked_relation();
	if (OidIsValid(relation))
	{
		char	   *name = get_rel_name(relation);

		refuse(function, psprintf("The block has locked relation \"%s\"; workers would wait for its locks, and it for its workers.",
								  name != NULL ? name : psprintf("%u", relation)));
	}
}

void
dmu_context_check(const char *function)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot run a cycle during recovery"),
				 errhint("Run it on the primary server.")));
	if (IsSubTransaction())
		refuse(function, "There is a savepoint, or an exception block.");
	if (is_pipelined())
		refuse(function, "It is in a pipeline, behind statements that are not committed yet.");
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run in a transaction that has already written", function),
				 errdetail("Its workers do not see what is not committed, and may wait for its locks."),
				 errhint("Commit first, or call it in autocommit mode, in a statement of its own.")));
	if (IsTransactionBlock())
		check_block(function);
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot run a cycle in a read-only transaction"),
				 errhint("Begin it with READ WRITE, or set default_transaction_read_only to off in this session.")));
}

void
dmu_context_release_snapshot(const CallContext * call)
{
	bool		keeps_snapshot = IsolationUsesXactSnapshot();

	if (call->atomic && keeps_snapshot)
		return;
	if (keeps_snapshot)
	{
		SPI_connect_ext(SPI_OPT_NONATOMIC);
		SPI_commit();
		SPI_finish();
		return;
	}

	/*
	 * Without a commit, as that would undo SET LOCAL, but with what
	 * SPI_commit() does for it: the loops of PL/pgSQL around us read the rest
	 * of their rows now, and CALL has no snapshot any more.
	 */
	if (!call->atomic)
		HoldPinnedPortals();
	if (ActivePortal != NULL && ActiveSnapshotSet() &&
		ActivePortal->portalSnapshot == GetActiveSnapshot())
	{
		ActivePortal->portalSnapshot = NULL;
		PopActiveSnapshot();
	}
}

void
dmu_context_restore_snapshot(void)
{
	if (!ActiveSnapshotSet())
		EnsurePortalSnapshotExists();
}
