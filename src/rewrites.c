/*-------------------------------------------------------------------------
 *
 * rewrites.c
 *		Relations emptied, rewritten or replaced under the snapshot of a
 *		refresh.
 *
 *		TRUNCATE, ALTER TABLE where it rewrites, REFRESH MATERIALIZED VIEW, and
 *		whoever exchanges a table or a partition for another one put a new file
 *		in the place of the old.  To a snapshot from before, that file is empty
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
#include "catalog/pg_inherits.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

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

/* A relation as a snapshot sees it. */
typedef struct Form
{
	bool		exists;
	char		kind;
	Oid			relfilenode;
	Oid			schema;
	NameData	name;
	List	   *parents;		/* of which it is a child or partition */
} Form;

/* The catalogs, and the two points of time that are compared. */
typedef struct Comparison
{
	Relation	classes;
	Relation	inheritance;
	Snapshot	ours;
	Snapshot	latest;
	Form		offender;		/* the first one found */
} Comparison;

static bool initialised = false;
static bool listening = false;
static Heard heard[DMU_MAX_HEARD];
static int	nheard = 0;
static bool heard_all = false;	/* any relation may have changed */
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

static bool
has_rows_of_its_own(char kind)
{
	return kind == RELKIND_RELATION || kind == RELKIND_MATVIEW ||
		kind == RELKIND_PARTITIONED_TABLE;
}

static List *
look_up_parents(const Comparison *c, Oid relid, Snapshot snapshot)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *parents = NIL;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(c->inheritance, InheritsRelidSeqnoIndexId, true,
							  snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		parents = lappend_oid(parents,
							  ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	return parents;
}

static SysScanDesc
begin_class_scan(Relation classes, Oid relid, Snapshot snapshot)
{
	ScanKeyData key;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	return systable_beginscan(classes, ClassOidIndexId, true, snapshot, 1, &key);
}

static Form
look_up(const Comparison *c, Oid relid, Snapshot snapshot)
{
	Form		form = {.exists = false};
	SysScanDesc scan = begin_class_scan(c->classes, relid, snapshot);
	HeapTuple	tuple = systable_getnext(scan);

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class row = (Form_pg_class) GETSTRUCT(tuple);

		form.exists = true;
		form.kind = row->relkind;
		form.relfilenode = row->relfilenode;
		form.schema = row->relnamespace;
		form.name = row->relname;
	}
	systable_endscan(scan);
	if (form.exists && has_rows_of_its_own(form.kind))
		form.parents = look_up_parents(c, relid, snapshot);
	return form;
}

/*
 * The relation is another one than before: other rows, or it has taken a
 * name or a place among partitions that was another one's.  One that our
 * snapshot does not know at all was created after it.
 */
static bool
is_another(const Form *before, const Form *after)
{
	return !before->exists ||
		before->relfilenode != after->relfilenode ||
		before->schema != after->schema ||
		strcmp(NameStr(before->name), NameStr(after->name)) != 0 ||
		!equal(before->parents, after->parents);
}

/*
 * Remembers the relation if it has changed under what we have read.
 *
 * A partition or child that has gone is missing from what was read of its
 * parent after that, without having been locked itself.
 */
static void
compare(Comparison *c, Oid relid)
{
	Form		before = look_up(c, relid, c->ours);
	Form		after = look_up(c, relid, c->latest);
	const Form *either = after.exists ? &after : &before;
	bool		changed = false;
	ListCell   *lc;

	if (!either->exists || !has_rows_of_its_own(either->kind))
		return;

	if (after.exists && is_another(&before, &after) && was_read(relid))
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
	if (changed && !c->offender.exists)
		c->offender = *either;
}

/*
 * Compares whatever has changed in the catalog since our snapshot: rows that
 * it does not know yet, and rows it knows that have been replaced.
 */
static void
compare_all(Comparison *c)
{
	Snapshot	snapshots[] = {c->latest, c->ours};

	for (int i = 0; i < (int) lengthof(snapshots); i++)
	{
		SysScanDesc scan = systable_beginscan(c->classes, InvalidOid, false,
											  snapshots[i], 0, NULL);
		HeapTuple	tuple;

		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			HeapTupleHeader header = tuple->t_data;
			Form_pg_class row = (Form_pg_class) GETSTRUCT(tuple);

			if (row->oid < FirstNormalObjectId)
				continue;
			if (snapshots[i] == c->latest ?
				XidInMVCCSnapshot(HeapTupleHeaderGetXmin(header), c->ours) :
				!(header->t_infomask & HEAP_XMAX_INVALID))
				compare(c, row->oid);
		}
		systable_endscan(scan);
	}
}

/* A copy of a snapshot, active, to which our own transaction did nothing. */
static Snapshot
push_without_ourselves(Snapshot snapshot)
{
	PushCopiedSnapshot(snapshot);
	GetActiveSnapshot()->curcid = FirstCommandId;
	return GetActiveSnapshot();
}

void
dmu_rewrites_check(void)
{
	Comparison	c = {.offender.exists = false};
	int			n = nheard;

	if (!listening)
		return;
	listening = false;
	if (n == 0 && !heard_all)
		return;

	c.ours = push_without_ourselves(GetTransactionSnapshot());
	c.latest = push_without_ourselves(GetLatestSnapshot());
	c.classes = table_open(RelationRelationId, AccessShareLock);
	c.inheritance = table_open(InheritsRelationId, AccessShareLock);
	if (heard_all)
		compare_all(&c);
	else
	{
		for (int i = 0; i < n; i++)
			compare(&c, heard[i].relid);
	}
	table_close(c.inheritance, AccessShareLock);
	table_close(c.classes, AccessShareLock);
	PopActiveSnapshot();
	PopActiveSnapshot();

	if (!c.offender.exists)
		return;
	raised = true;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("relation \"%s\" was emptied, rewritten or replaced during the refresh",
					quote_qualified_identifier(get_namespace_name(c.offender.schema),
											   NameStr(c.offender.name))),
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
 * is another's.  The partitions that a partitioned table has lost have left
 * no trace; so a message alone is enough for it.
 */
static bool
is_newer(HeapTuple tuple)
{
	char		kind = ((Form_pg_class) GETSTRUCT(tuple))->relkind;

	return has_rows_of_its_own(kind) &&
		(kind == RELKIND_PARTITIONED_TABLE ||
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
		SysScanDesc scan = begin_class_scan(classes, heard[i].relid, NULL);
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
