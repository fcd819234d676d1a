/*-------------------------------------------------------------------------
 *
 * rewrites.c
 *		Relations emptied, rewritten or replaced under the snapshot of a
 *		refresh.
 *
 *		TRUNCATE, ALTER TABLE where it rewrites, REFRESH MATERIALIZED VIEW, and
 *		whoever exchanges a table or a partition for another one, or has a view
 *		select from another one, put a new file in the place of the old.  To a snapshot from before, that file is empty
 *		or has rows of later; so a refresh that first reads it then would store
 *		what never was, and no serialization error tells.
 *
 *		What tells is the invalidation message that such a change sends to all
 *		sessions.  It has been received when the relation is locked to be read,
 *		as it was sent before the lock that kept us out was released.  Messages
 *		come for much else, too: ANALYZE, temporary tables of others, DDL of
 *		our own.  So they are only collected; before the commit, the catalog as
 *		our snapshot sees it is compared with the catalog of now, for those
 *		relations.  Both are read as if our own transaction had done nothing.
 *
 *		Only relations that were read count, and these are locked until the end
 *		of the transaction; but for those read in a subtransaction that was
 *		aborted, which are noted before it gives its locks back.
 *
 *		This file knows nothing of datamart users, attempts or SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "rewrites.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "relforms.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/*
 * Relations that are told apart; more have the whole catalog compared.  It is
 * searched from end to end for every message.
 */
#define DMU_MAX_HEARD 1024

/* Relations to lock in the next attempt; those beyond it may collide again. */
#define DMU_MAX_KNOWN 16

/* A relation that a message has come for. */
typedef struct Heard
{
	Oid			relid;
	bool		read;			/* was locked when a subtransaction aborted */
} Heard;

static bool initialised = false;
static bool listening = false;
static Heard heard[DMU_MAX_HEARD];
static int	nheard = 0;
static bool heard_all = false;	/* any relation may have changed */
static bool heard_schema = false;	/* some schema has */
static bool read_any = false;	/* any relation may have been read */
static bool raised = false;

/* Oldest transaction that the snapshot does not know to be over. */
static TransactionId oldest_unknown = InvalidTransactionId;

/* Those that were rewritten under attempts for this datamart user. */
static Oid	known[DMU_MAX_KNOWN];
static int	nknown = 0;

/*
 * RelcacheCallbackFunction.  May be called anywhere, so allocates nothing and
 * raises nothing.
 */
static void
relation_invalidated(Datum arg, Oid relid)
{
	if (!listening || heard_all)
		return;
	if (!OidIsValid(relid))
	{
		heard_all = true;
		return;
	}

	/* Nobody truncates the server's own. */
	if (relid < FirstNormalObjectId)
		return;
	for (int i = 0; i < nheard; i++)
	{
		if (heard[i].relid == relid)
			return;
	}
	if (nheard == DMU_MAX_HEARD)
	{
		heard_all = true;
		return;
	}
	heard[nheard++] = (Heard)
	{
		relid, false
	};
}

/* SyscacheCallbackFunction, under the same rules. */
static void
schema_invalidated(Datum arg, int cacheid, uint32 hashvalue)
{
	heard_schema = true;
}

static bool
is_locked(Oid relid)
{
	return CheckRelationOidLockedByMe(relid, AccessShareLock, true);
}

/* SubXactCallback; it is called before the locks are released. */
static void
subtransaction_ends(SubXactEvent event, SubTransactionId mySubid,
					SubTransactionId parentSubid, void *arg)
{
	if (!listening || event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (int i = 0; i < nheard; i++)
		heard[i].read = heard[i].read || is_locked(heard[i].relid);
	read_any = read_any || heard_all;
}

void
dmu_rewrites_init(void)
{
	if (initialised)
		return;
	CacheRegisterRelcacheCallback(relation_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, schema_invalidated, (Datum) 0);
	RegisterSubXactCallback(subtransaction_ends, NULL);
	initialised = true;
}

void
dmu_rewrites_reset(void)
{
	nknown = 0;
}

void
dmu_rewrites_begin(void)
{
	listening = false;
	raised = false;
	for (int i = 0; i < nknown; i++)
		LockRelationOid(known[i], AccessShareLock);
}

void
dmu_rewrites_listen(void)
{
	/*
	 * A commit is seen by new snapshots before its messages are sent.  So
	 * what has been received by here, the snapshot will see.
	 */
	nheard = 0;
	heard_all = false;
	heard_schema = false;
	read_any = false;
	listening = true;
	oldest_unknown = GetTransactionSnapshot()->xmin;
}

bool
dmu_rewrites_raised(void)
{
	return raised;
}

/* To be locked in the next attempt. */
static void
remember(Oid relid)
{
	for (int i = 0; i < nknown; i++)
	{
		if (known[i] == relid)
			return;
	}
	if (nknown < DMU_MAX_KNOWN)
		known[nknown++] = relid;
}

/* Have we read it, as far as can be known? */
static bool
was_read(Oid relid)
{
	if (read_any || is_locked(relid))
		return true;
	for (int i = 0; i < nheard; i++)
	{
		if (heard[i].relid == relid)
			return heard[i].read;
	}
	return false;
}

/*
 * Remembers the relation if it has changed under what we have read, and names
 * it in "offender" if that is the first one.
 *
 * A partition or child that has gone is missing from what was read of its
 * parent after that, without having been locked itself.
 */
static void
compare(const DmuRelforms *forms, Oid relid, DmuRelform *offender)
{
	DmuRelform	before = dmu_relforms_get(forms, relid, forms->ours);
	DmuRelform	after = dmu_relforms_get(forms, relid, forms->latest);
	const DmuRelform *either = after.exists ? &after : &before;
	bool		changed = false;
	ListCell   *lc;

	if (!either->exists || !dmu_relforms_has_rows(either->kind))
		return;

	if (after.exists && was_read(relid) &&
		dmu_relforms_differ(forms, &before, &after))
	{
		changed = true;
		remember(relid);
		foreach(lc, after.parents)
			remember(lfirst_oid(lc));
	}
	foreach(lc, before.parents)
	{
		Oid			parent = lfirst_oid(lc);

		if (!list_member_oid(after.parents, parent) && was_read(parent))
		{
			changed = true;
			remember(parent);
		}
	}
	if (changed && !offender->exists)
		*offender = *either;
}

/*
 * Compares all that may have changed since our snapshot: what it does not know
 * yet, what it knows and has been replaced in the catalog, what has its schema
 * renamed, and views, whose query is somewhere else.
 */
static void
compare_all(const DmuRelforms *forms, DmuRelform *offender)
{
	Snapshot	snapshots[] = {forms->latest, forms->ours};

	for (int i = 0; i < (int) lengthof(snapshots); i++)
	{
		SysScanDesc scan = systable_beginscan(forms->classes, InvalidOid, false,
											  snapshots[i], 0, NULL);
		HeapTuple	tuple;

		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			HeapTupleHeader header = tuple->t_data;
			Form_pg_class row = (Form_pg_class) GETSTRUCT(tuple);
			bool		suspect;

			if (snapshots[i] == forms->latest)
				suspect = list_member_oid(forms->renamed, row->relnamespace) ||
					row->relkind == RELKIND_VIEW ||
					XidInMVCCSnapshot(HeapTupleHeaderGetXmin(header),
									  forms->ours);
			else
				suspect = !(header->t_infomask & HEAP_XMAX_INVALID);
			if (suspect && row->oid >= FirstNormalObjectId)
				compare(forms, row->oid, offender);
		}
		systable_endscan(scan);
	}
}

void
dmu_rewrites_check(void)
{
	DmuRelforms forms;
	DmuRelform	offender = {.exists = false};
	int			n = nheard;

	if (!listening)
		return;
	listening = false;
	if (n == 0 && !heard_all && !heard_schema)
		return;

	dmu_relforms_open(&forms);
	if ((heard_schema && dmu_relforms_find_renamed(&forms)) || heard_all)
		compare_all(&forms, &offender);
	else
	{
		for (int i = 0; i < n; i++)
			compare(&forms, heard[i].relid, &offender);
	}
	dmu_relforms_close(&forms);

	if (!offender.exists)
		return;
	raised = true;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("relation \"%s\" was emptied, rewritten or replaced during the refresh",
					quote_qualified_identifier(get_namespace_name(offender.schema),
											   NameStr(offender.name))),
			 errdetail("The refresh reads a snapshot from before that.")));
}

bool
dmu_rewrites_catch(void)
{
	int			kept = 0;

	if (!listening)
		return false;
	listening = false;
	for (int i = 0; i < nheard; i++)
	{
		if (heard[i].read || is_locked(heard[i].relid))
			heard[kept++] = heard[i];
	}
	nheard = kept;
	return nheard > 0 || heard_all;
}

/*
 * Our own changes have been rolled back, so what is newer than our snapshot
 * is another's.  The partitions that a partitioned table has lost, and the
 * query that a view had, have left no trace; so a message alone is enough for
 * these.
 */
static bool
is_newer(HeapTuple tuple)
{
	char		kind = ((Form_pg_class) GETSTRUCT(tuple))->relkind;

	return dmu_relforms_has_rows(kind) &&
		(kind == RELKIND_PARTITIONED_TABLE || kind == RELKIND_VIEW ||
		 TransactionIdFollowsOrEquals(HeapTupleHeaderGetXmin(tuple->t_data),
									  oldest_unknown));
}

bool
dmu_rewrites_explain(void)
{
	Relation	classes;
	bool		result = heard_all;

	classes = table_open(RelationRelationId, AccessShareLock);
	for (int i = 0; i < nheard; i++)
	{
		SysScanDesc scan = dmu_relforms_scan(classes, heard[i].relid, NULL);
		HeapTuple	tuple = systable_getnext(scan);

		if (HeapTupleIsValid(tuple) && is_newer(tuple))
		{
			remember(heard[i].relid);
			result = true;
		}
		systable_endscan(scan);
	}
	table_close(classes, AccessShareLock);
	return result;
}
