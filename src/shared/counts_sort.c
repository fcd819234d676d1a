/*-------------------------------------------------------------------------
 *
 * counts_sort.c
 *		Puts those who wait in order of their ids.
 *
 *		Every look does this with the whole backlog, which comes in the order in
 *		which the rows lie in their table.
 *
 *		This file knows of an entry only that it has an id and a row version.
 *
 *-------------------------------------------------------------------------
 */
#include "counts.h"

#define ST_SORT sort_counts
#define ST_ELEMENT_TYPE DmuCount
#define ST_COMPARE(a, b) \
	((a)->dimension_user_id < (b)->dimension_user_id ? -1 : \
	 (a)->dimension_user_id > (b)->dimension_user_id)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* Ids are dense if there are at most so many numbers for each. */
#define DENSE 8

static bool
is_in_order(const DmuCounts *counts)
{
	for (int64 i = 1; i < counts->n; i++)
	{
		if (counts->list[i - 1].dimension_user_id >=
			counts->list[i].dimension_user_id)
			return false;
	}
	return true;
}

/*
 * For each number from the least id on the place in the list of whoever has it,
 * from 1 on, or 0; palloc'd.  NULL if the ids are not dense, or one is there
 * twice.
 */
static uint32 *
places_of_ids(const DmuCounts *counts, uint64 *nnumbers)
{
	int64		least = counts->list[0].dimension_user_id;
	int64		greatest = least;
	uint32	   *places;

	for (int64 i = 1; i < counts->n; i++)
	{
		least = Min(least, counts->list[i].dimension_user_id);
		greatest = Max(greatest, counts->list[i].dimension_user_id);
	}
	if ((uint64) greatest - (uint64) least >= (uint64) counts->n * DENSE)
		return NULL;
	*nnumbers = (uint64) greatest - (uint64) least + 1;
	places = palloc_extended(*nnumbers * sizeof(uint32),
							 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int64 i = 0; i < counts->n; i++)
	{
		uint32	   *place = &places[counts->list[i].dimension_user_id - least];

		if (*place != 0)
		{
			pfree(places);
			return NULL;
		}
		*place = (uint32) i + 1;
	}
	return places;
}

/* Puts at each index the entry from the place that is told for it. */
static void
follow_places(DmuCount *list, uint32 *places, int64 n)
{
	for (int64 i = 0; i < n; i++)
	{
		DmuCount	first = list[i];
		int64		hole = i;

		while (places[hole] != i)
		{
			int64		next = places[hole];

			list[hole] = list[next];
			places[hole] = (uint32) hole;
			hole = next;
		}
		list[hole] = first;
		places[hole] = (uint32) hole;
	}
}

/*
 * Ids that a sequence has made are dense, and nobody has to be compared with
 * anybody: that takes a third of the time.  False if they are not.
 */
static bool
sort_dense(DmuCounts *counts)
{
	uint64		nnumbers;
	uint32	   *places = places_of_ids(counts, &nnumbers);
	int64		n = 0;

	if (places == NULL)
		return false;
	for (uint64 number = 0; number < nnumbers; number++)
	{
		if (places[number] != 0)
			places[n++] = places[number] - 1;
	}
	follow_places(counts->list, places, n);
	pfree(places);
	return true;
}

void
dmu_counts_sort(DmuCounts *counts)
{
	int64		n = 0;

	counts->unique = true;
	if (is_in_order(counts) || sort_dense(counts))
		return;
	sort_counts(counts->list, counts->n);
	for (int64 i = 0; i < counts->n; i++)
	{
		if (n > 0 && counts->list[n - 1].dimension_user_id ==
			counts->list[i].dimension_user_id)
			counts->list[n - 1].xmin = InvalidTransactionId;
		else
			counts->list[n++] = counts->list[i];
	}
	counts->unique = n == counts->n;
	counts->n = n;
}
