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
 *		This file reads; counts_store.c writes, counts_table.c knows the table, and
 *		counts_fingerprint.c which counts can be remembered.  None knows how facts
 *		are counted.
 *
 *-------------------------------------------------------------------------
 */
#include "counts_table.h"

#include "access/relation.h"
#include "compat.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

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

/*
 * What an entry of the table says is entered, if that is more than is known
 * from another one.
 */
static void
recall_entry(DmuCounts *counts, DmuCount *wanted, const DmuCount *entry, int run)
{
	if ((entry->flags & DMU_COUNT_EARLIER) == 0)
	{
		if ((wanted->flags & DMU_COUNT_KNOWN) == 0)
			counts->nknown++;
		wanted->flags = DMU_COUNT_KNOWN | (entry->flags & DMU_COUNT_HAS_LAST);
	}
	else if ((wanted->flags & DMU_COUNT_KNOWN) == 0 &&
			 ((wanted->flags & DMU_COUNT_EARLIER) == 0 ||
			  entry->last_action < wanted->last_action))
		wanted->flags = DMU_COUNT_EARLIER;
	else
		return;
	wanted->action_count = entry->action_count;
	wanted->last_action = entry->last_action;
	wanted->run = (uint8) run;
}

/* Both are in order of the ids. */
static void
recall_chunk(DmuCounts *counts, const DmuCountChunk *chunk, int run)
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
		recall_entry(counts, wanted, &entry, run);
	}
}

void
dmu_counts_recall(DmuCounts *counts)
{
	Relation	relation = dmu_counts_open(AccessShareLock);
	TableScanDesc scan;
	DmuCountChunk chunk;

	if (relation == NULL)
		return;
	scan = dmu_table_beginscan(relation, GetActiveSnapshot());
	while (dmu_counts_next(counts, relation, scan, &chunk))
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

void
dmu_counts_drop(DmuCounts *counts, const int64 *ids, int64 nids)
{
	int64		i = 0;

	for (int64 j = 0; j < counts->n; j++)
	{
		while (i < nids && ids[i] < counts->list[j].dimension_user_id)
			i++;
		if (i == nids || ids[i] != counts->list[j].dimension_user_id)
			continue;
		if ((counts->list[j].flags & DMU_COUNT_KNOWN) != 0 &&
			counts->list[j].run != DMU_COUNT_NEW &&
			TransactionIdIsValid(counts->list[j].xmin))
			counts->nknown--;
		counts->list[j].xmin = InvalidTransactionId;
	}
}
