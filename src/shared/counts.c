/*-------------------------------------------------------------------------
 *
 * counts.c
 *		What was counted for a version of a datamart user's row, in an unlogged
 *		table of ours.
 *
 *		The ETL changes the row of whoever it adds facts for, in the same
 *		transaction or after it.  So a count holds for as long as the row has
 *		the version that it was made with, in whatever snapshot; nothing has to
 *		be told to the table, and it may be empty at any time.
 *
 *		A row of the table holds some two hundred datamart users, in order of
 *		their ids, and is as large as a page.  Rows that were written together
 *		are a run.  What was counted is added as a new run, together with the
 *		runs that are hardly larger, without what has become useless in them: so
 *		there are few runs, and a datamart user is written a few times, however
 *		small the steps are in which a backlog grows.
 *
 *		The table has no index, and is read and written without SQL: no trigger,
 *		rule or policy that somebody puts on it can run.  This file neither knows
 *		how facts are counted nor which counts can be remembered.
 *
 *-------------------------------------------------------------------------
 */
#include "counts.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "ownersql.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/xid8.h"

/* The columns. */
enum
{
	COLUMN_USERS,
	COLUMN_FACTS,
	COLUMN_RUN,
	COLUMN_AS_OF,
	COLUMN_FINGERPRINT,
	COLUMN_ENTRIES,
	NCOLUMNS
};

static const Oid column_types[NCOLUMNS] = {
	OIDOID, OIDOID, INT8OID, XID8OID, BYTEAOID, BYTEAOID
};

/* Entries in a row, so that it fits on a page beside the other columns. */
#define CHUNK ((int) ((MaxHeapTupleSize - 160) / sizeof(DmuCount)))

/*
 * After that many xids a version is not compared any more.  Half of that would
 * have passed for none, and all of them before one comes again.
 */
#define XIDS_MAX INT64CONST(1000000000)

/* Useless entries that are no reason to write. */
#define USELESS_MAX 4096

/* One row of the table. */
typedef struct Chunk
{
	ItemPointerData tid;
	bool		ours;			/* of these users and facts */
	bool		valid;			/* and can be compared with */
	int64		run;
	int64		n;				/* entries */
	bytea	   *entries;		/* where "ours" */
} Chunk;

/* One run, while it is decided what to write. */
typedef struct Run
{
	int64		name;
	int64		n;				/* entries */
	bool		merged;			/* into the new one */
} Run;

/* To be stored when the transaction commits; in its memory context. */
static DmuCounts *pending = NULL;

DmuCount   *
dmu_counts_find(const DmuCounts *counts, int64 dimension_user_id)
{
	int64		low = 0;
	int64		high = counts->n;

	while (low < high)
	{
		int64		middle = low + (high - low) / 2;

		if (counts->list[middle].dimension_user_id < dimension_user_id)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == counts->n ||
		counts->list[low].dimension_user_id != dimension_user_id)
		return NULL;
	return &counts->list[low];
}

/* Opens the table if that needs no waiting, and it is as we have made it. */
static Relation
open_table(LOCKMODE lockmode)
{
	Oid			schema = dmu_owner_schema();
	Oid			table = OidIsValid(schema) ?
	get_relname_relid("datamart_users_counts", schema) : InvalidOid;
	Relation	relation;
	bool		fits;

	if (!OidIsValid(table) || !ConditionalLockRelationOid(table, lockmode))
		return NULL;
	relation = try_relation_open(table, NoLock);
	if (relation == NULL)
		return NULL;

	/* What somebody has put there would not run, or miss what we write. */
	fits = relation->rd_rel->relkind == RELKIND_RELATION &&
		relation->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED &&
		relation->rd_rel->relam == HEAP_TABLE_AM_OID &&
		relation->trigdesc == NULL && relation->rd_rules == NULL &&
		!relation->rd_rel->relrowsecurity &&
		RelationGetIndexList(relation) == NIL &&
		RelationGetDescr(relation)->natts == NCOLUMNS;
	for (int i = 0; fits && i < NCOLUMNS; i++)
		fits = TupleDescAttr(RelationGetDescr(relation), i)->atttypid == column_types[i];
	if (!fits)
	{
		relation_close(relation, lockmode);
		return NULL;
	}
	return relation;
}

static bool
is_current(const DmuCounts *counts, FullTransactionId as_of,
		   const bytea * fingerprint)
{
	int64		age = (int64) (U64FromFullTransactionId(counts->as_of) -
							   U64FromFullTransactionId(as_of));

	/* Somebody else may have looked a moment after us. */
	return age > -XIDS_MAX && age < XIDS_MAX &&
		FullTransactionIdIsNormal(as_of) &&
		VARSIZE_ANY_EXHDR(fingerprint) == DMU_FINGERPRINT_LEN &&
		memcmp(VARDATA_ANY(fingerprint), counts->fingerprint,
			   DMU_FINGERPRINT_LEN) == 0;
}

/* False if there are no more rows. */
static bool
next_chunk(const DmuCounts *counts, Relation relation, TableScanDesc scan,
		   Chunk *chunk)
{
	HeapTuple	tuple = heap_getnext(scan, ForwardScanDirection);
	Datum		values[NCOLUMNS];
	bool		nulls[NCOLUMNS];

	if (tuple == NULL)
		return false;
	heap_deform_tuple(tuple, RelationGetDescr(relation), values, nulls);
	memset(chunk, 0, sizeof(*chunk));
	chunk->tid = tuple->t_self;
	for (int i = 0; i < NCOLUMNS; i++)
	{
		if (nulls[i])
			return true;
	}
	chunk->ours = DatumGetObjectId(values[COLUMN_USERS]) == counts->users &&
		DatumGetObjectId(values[COLUMN_FACTS]) == counts->facts;
	if (!chunk->ours)
	{
		/* Nobody will ask for those of a table that has gone. */
		chunk->ours = !SearchSysCacheExists1(RELOID, values[COLUMN_USERS]);
		return true;
	}
	chunk->run = DatumGetInt64(values[COLUMN_RUN]);
	chunk->entries = DatumGetByteaPP(values[COLUMN_ENTRIES]);
	chunk->n = VARSIZE_ANY_EXHDR(chunk->entries) / sizeof(DmuCount);
	chunk->valid = is_current(counts,
							  DatumGetFullTransactionId(values[COLUMN_AS_OF]),
							  DatumGetByteaPP(values[COLUMN_FINGERPRINT]));
	return true;
}

/* The number of a run in "counts", or -1 if there are too many. */
static int
number_of_run(DmuCounts *counts, int64 name)
{
	for (int i = 0; i < counts->nruns; i++)
	{
		if (counts->runs[i] == name)
			return i;
	}
	if (counts->nruns == DMU_MAX_RUNS)
		return -1;
	counts->runs[counts->nruns] = name;
	return counts->nruns++;
}

static bool
is_same_version(const DmuCount *a, const DmuCount *b)
{
	return a->xmin == b->xmin && TransactionIdIsNormal(a->xmin) &&
		a->block == b->block && a->offset == b->offset &&
		a->relation == b->relation;
}

/* Both are in order of the ids. */
static void
recall_chunk(DmuCounts *counts, const Chunk *chunk, int run)
{
	const char *entries = VARDATA_ANY(chunk->entries);
	DmuCount   *wanted = counts->list;
	DmuCount   *end = counts->list + counts->n;
	DmuCount	entry;

	for (int64 i = 0; i < chunk->n; i++)
	{
		memcpy(&entry, entries + i * sizeof(DmuCount), sizeof(DmuCount));
		if (i == 0)
		{
			DmuCount   *high = end;

			while (wanted < high)
			{
				DmuCount   *middle = wanted + (high - wanted) / 2;

				if (middle->dimension_user_id < entry.dimension_user_id)
					wanted = middle + 1;
				else
					high = middle;
			}
		}
		while (wanted < end &&
			   wanted->dimension_user_id < entry.dimension_user_id)
			wanted++;
		if (wanted == end)
			return;
		if (wanted->dimension_user_id != entry.dimension_user_id ||
			!is_same_version(wanted, &entry))
			continue;
		wanted->action_count = entry.action_count;
		wanted->last_action = entry.last_action;
		wanted->flags = DMU_COUNT_KNOWN | (entry.flags & DMU_COUNT_HAS_LAST);
		wanted->run = (uint8) run;
	}
}

void
dmu_counts_recall(DmuCounts *counts)
{
	Relation	relation = open_table(AccessShareLock);
	TableScanDesc scan;
	Chunk		chunk;

	if (relation == NULL)
		return;
	scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);
	while (next_chunk(counts, relation, scan, &chunk))
	{
		int			run = -1;

		CHECK_FOR_INTERRUPTS();
		counts->nstored += chunk.n;
		if (chunk.valid)
			run = number_of_run(counts, chunk.run);
		if (run >= 0)
			recall_chunk(counts, &chunk, run);
	}
	table_endscan(scan);
	relation_close(relation, AccessShareLock);
}

/* True if it is worth a place in the table. */
static bool
is_storable(const DmuCount *count)
{
	return (count->flags & DMU_COUNT_KNOWN) != 0 &&
		TransactionIdIsNormal(count->xmin);
}

/* How many are, of one run or (-1) of all. */
static int64
storable(const DmuCounts *counts, int run)
{
	int64		n = 0;

	for (int64 i = 0; i < counts->n; i++)
	{
		if (is_storable(&counts->list[i]) &&
			(run < 0 || counts->list[i].run == run))
			n++;
	}
	return n;
}

bool
dmu_counts_are_news(const DmuCounts *counts)
{
	return storable(counts, DMU_COUNT_NEW) > 0 ||
		counts->nstored > 2 * storable(counts, -1) + USELESS_MAX;
}

static int
compare_runs(const void *a, const void *b)
{
	const Run  *left = (const Run *) a;
	const Run  *right = (const Run *) b;

	if (left->n != right->n)
		return left->n < right->n ? -1 : 1;
	return (left->name > right->name) - (left->name < right->name);
}

static Run *
find_run(Run *runs, int nruns, int64 name)
{
	for (int i = 0; i < nruns; i++)
	{
		if (runs[i].name == name)
			return &runs[i];
	}
	return NULL;
}

/* What the table has now, by runs; returns the name of the last one. */
static int64
list_runs(const DmuCounts *counts, Relation relation, Snapshot snapshot,
		  Run *runs, int *nruns, bool *too_many)
{
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);
	Chunk		chunk;
	int64		last = 0;

	*nruns = 0;
	*too_many = false;
	while (next_chunk(counts, relation, scan, &chunk))
	{
		Run		   *run;

		last = Max(last, chunk.run);
		if (!chunk.valid)
			continue;
		run = find_run(runs, *nruns, chunk.run);
		if (run == NULL && *nruns == DMU_MAX_RUNS)
		{
			*too_many = true;
			continue;
		}
		if (run == NULL)
		{
			run = &runs[(*nruns)++];
			memset(run, 0, sizeof(Run));
			run->name = chunk.run;
		}
		run->n += chunk.n;
	}
	table_endscan(scan);
	return last;
}

/*
 * Marks the runs that become part of the new one: each that is not larger than
 * twice what comes before it, or all of them where half would be useless.
 */
static void
choose_runs(const DmuCounts *counts, Run *runs, int nruns, bool all)
{
	int64		size = storable(counts, DMU_COUNT_NEW);
	int64		rest = 0;

	qsort(runs, nruns, sizeof(Run), compare_runs);
	for (int i = 0; i < nruns; i++)
	{
		if (runs[i].n <= 2 * size)
		{
			runs[i].merged = true;
			size += runs[i].n;
		}
		else
			rest += runs[i].n;
	}
	if (all || rest + size > 2 * storable(counts, -1) + USELESS_MAX)
	{
		for (int i = 0; i < nruns; i++)
			runs[i].merged = true;
	}
}

/* Removes the rows of these runs, and those that are of no use to anybody. */
static void
remove_chunks(const DmuCounts *counts, Relation relation, Snapshot snapshot,
			  Run *runs, int nruns)
{
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);
	Chunk		chunk;

	while (next_chunk(counts, relation, scan, &chunk))
	{
		Run		   *run = chunk.valid ? find_run(runs, nruns, chunk.run) : NULL;

		if (chunk.valid ? (run == NULL || run->merged) : chunk.ours)
			simple_heap_delete(relation, &chunk.tid);
	}
	table_endscan(scan);
}

static void
insert_chunk(const DmuCounts *counts, Relation relation, int64 run,
			 const DmuCount *entries, int n)
{
	Size		size = n * sizeof(DmuCount);
	bytea	   *fingerprint = palloc(VARHDRSZ + DMU_FINGERPRINT_LEN);
	bytea	   *packed = palloc(VARHDRSZ + size);
	Datum		values[NCOLUMNS];
	bool		nulls[NCOLUMNS] = {false};
	HeapTuple	tuple;

	SET_VARSIZE(fingerprint, VARHDRSZ + DMU_FINGERPRINT_LEN);
	memcpy(VARDATA(fingerprint), counts->fingerprint, DMU_FINGERPRINT_LEN);
	SET_VARSIZE(packed, VARHDRSZ + size);
	memcpy(VARDATA(packed), entries, size);
	values[COLUMN_USERS] = ObjectIdGetDatum(counts->users);
	values[COLUMN_FACTS] = ObjectIdGetDatum(counts->facts);
	values[COLUMN_RUN] = Int64GetDatum(run);
	values[COLUMN_AS_OF] = FullTransactionIdGetDatum(counts->as_of);
	values[COLUMN_FINGERPRINT] = PointerGetDatum(fingerprint);
	values[COLUMN_ENTRIES] = PointerGetDatum(packed);
	tuple = heap_form_tuple(RelationGetDescr(relation), values, nulls);
	simple_heap_insert(relation, tuple);
	heap_freetuple(tuple);
	pfree(packed);
	pfree(fingerprint);
}

static void
insert_run(const DmuCounts *counts, Relation relation, int64 name, Run *runs,
		   int nruns)
{
	DmuCount   *entries = palloc(CHUNK * sizeof(DmuCount));
	int			n = 0;
	bool		takes[DMU_COUNT_NEW + 1] = {false};

	takes[DMU_COUNT_NEW] = true;
	for (int i = 0; i < counts->nruns; i++)
	{
		Run		   *run = find_run(runs, nruns, counts->runs[i]);

		/* What somebody else has taken away since may be lost with it. */
		takes[i] = run == NULL || run->merged;
	}
	for (int64 i = 0; i < counts->n; i++)
	{
		const DmuCount *count = &counts->list[i];

		if (!is_storable(count) || !takes[count->run])
			continue;
		entries[n] = *count;
		entries[n].run = 0;
		entries[n++].flags &= DMU_COUNT_HAS_LAST;
		if (n == CHUNK)
		{
			CHECK_FOR_INTERRUPTS();
			insert_chunk(counts, relation, name, entries, n);
			n = 0;
		}
	}
	if (n > 0)
		insert_chunk(counts, relation, name, entries, n);
	pfree(entries);
}

bool
dmu_counts_store(const DmuCounts *counts)
{
	/* One that writes at a time, and no vacuum that removes rows meanwhile. */
	Relation	relation = open_table(ShareUpdateExclusiveLock);
	Snapshot	snapshot;
	Run			runs[DMU_MAX_RUNS];
	int			nruns;
	bool		too_many;
	int64		last;

	if (relation == NULL)
		return false;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	last = list_runs(counts, relation, snapshot, runs, &nruns, &too_many);
	choose_runs(counts, runs, nruns, too_many);
	remove_chunks(counts, relation, snapshot, runs, nruns);
	UnregisterSnapshot(snapshot);
	insert_run(counts, relation, last + 1, runs, nruns);

	/* Until the end of the transaction nobody else is to write. */
	relation_close(relation, NoLock);
	return true;
}

/* XactCallback */
static void
store_pending(XactEvent event, void *arg)
{
	DmuCounts  *counts = pending;
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	pending = NULL;
	if (counts == NULL || event != XACT_EVENT_PRE_COMMIT)
		return;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		(void) dmu_counts_store(counts);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

void
dmu_counts_store_at_commit(const DmuCounts *counts)
{
	static bool registered = false;
	MemoryContext old_context;

	if (IsTransactionBlock() || IsSubTransaction() || XactReadOnly ||
		IsolationIsSerializable() || IsInParallelMode() ||
		!dmu_counts_are_news(counts))
		return;
	if (!registered)
		RegisterXactCallback(store_pending, NULL);
	registered = true;

	old_context = MemoryContextSwitchTo(TopTransactionContext);
	pending = palloc(sizeof(DmuCounts));
	*pending = *counts;
	pending->list = palloc_extended(Max(counts->n, 1) * sizeof(DmuCount),
									MCXT_ALLOC_HUGE);
	memcpy(pending->list, counts->list, counts->n * sizeof(DmuCount));
	MemoryContextSwitchTo(old_context);
}

void
dmu_counts_drop(DmuCounts *counts, const int64 *ids, int64 nids)
{
	int64		i = 0;

	for (int64 j = 0; j < counts->n; j++)
	{
		while (i < nids && ids[i] < counts->list[j].dimension_user_id)
			i++;
		if (i < nids && ids[i] == counts->list[j].dimension_user_id)
			counts->list[j].xmin = InvalidTransactionId;
	}
}
