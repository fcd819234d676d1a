/*-------------------------------------------------------------------------
 *
 * counts_store.c
 *		Writes down what was counted.
 *
 *		A row of the table holds some two hundred datamart users, in order of
 *		their ids, and is as large as a page.  Rows that were written together
 *		are a run.  What was counted is added as a new run, together with the
 *		runs that are hardly larger, without what has become useless in them: so
 *		there are few runs, and a datamart user is written a few times, however
 *		small the steps are in which a backlog grows.
 *
 *-------------------------------------------------------------------------
 */
#include "counts_table.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "compat.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

/* Entries in a row, so that it fits on a page beside the other columns. */
#define CHUNK ((int) ((MaxHeapTupleSize - 160) / sizeof(DmuCount)))

/* Useless entries that are no reason to write. */
#define USELESS_MAX 4096

/* One run, while it is decided what to write. */
typedef struct Run
{
	int64		name;
	int64		n;				/* entries */
	bool		merged;			/* into the new one */
} Run;

/* To be stored when the transaction commits; in its memory context. */
static DmuCounts *pending = NULL;

/* True if it is worth a place in the table. */
static bool
is_storable(const DmuCount *count)
{
	return (count->flags & (DMU_COUNT_KNOWN | DMU_COUNT_EARLIER)) != 0 &&
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

int64
dmu_counts_new(const DmuCounts *counts)
{
	return counts->counted ? storable(counts, DMU_COUNT_NEW) : 0;
}

bool
dmu_counts_are_news(const DmuCounts *counts)
{
	/* Those are storable, and the usual answer takes no walk over all. */
	if (!counts->counted &&
		counts->nstored <= 2 * counts->nknown + USELESS_MAX)
		return false;
	return dmu_counts_new(counts) > 0 ||
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
	TableScanDesc scan = dmu_table_beginscan(relation, snapshot);
	DmuCountChunk chunk;
	int64		last = 0;

	*nruns = 0;
	*too_many = false;
	while (dmu_counts_next(counts, relation, scan, &chunk))
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
	int64		size = dmu_counts_new(counts);
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
	TableScanDesc scan = dmu_table_beginscan(relation, snapshot);
	DmuCountChunk chunk;

	while (dmu_counts_next(counts, relation, scan, &chunk))
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
	Datum		values[DMU_COUNTS_NCOLUMNS];
	bool		nulls[DMU_COUNTS_NCOLUMNS] = {false};
	HeapTuple	tuple;

	SET_VARSIZE(fingerprint, VARHDRSZ + DMU_FINGERPRINT_LEN);
	memcpy(VARDATA(fingerprint), counts->fingerprint, DMU_FINGERPRINT_LEN);
	SET_VARSIZE(packed, VARHDRSZ + size);
	memcpy(VARDATA(packed), entries, size);
	values[DMU_COUNTS_USERS] = ObjectIdGetDatum(counts->users);
	values[DMU_COUNTS_FACTS] = ObjectIdGetDatum(counts->facts);
	values[DMU_COUNTS_RUN] = Int64GetDatum(run);
	values[DMU_COUNTS_AS_OF] = FullTransactionIdGetDatum(counts->as_of);
	values[DMU_COUNTS_FINGERPRINT] = PointerGetDatum(fingerprint);
	values[DMU_COUNTS_ENTRIES] = PointerGetDatum(packed);
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
		entries[n++].flags &= DMU_COUNT_HAS_LAST | DMU_COUNT_EARLIER;
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
	Relation	relation = dmu_counts_open(ShareUpdateExclusiveLock);
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

	/* The server wants whoever writes to hold one. */
	insert_run(counts, relation, last + 1, runs, nruns);
	UnregisterSnapshot(snapshot);

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
