/*-------------------------------------------------------------------------
 *
 * priority_query.h
 *		The text of the prioritisation; a part of priority.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PRIORITY_QUERY_H
#define DMU_PRIORITY_QUERY_H

#include "settings.h"
#include "warehouse.h"

/* What differs between the text to run and the text to read. */
typedef struct DmuQueryParts
{
	const char *with;			/* in front of what reads the ids */
	const char *ids;			/* a FROM item with a column id */
	const char *array;			/* the ids as an array, or NULL */
	const char *limit;			/* NULL: all of them, in no order */
	const char *days[DMU_NRECENCY];
	const char *thresholds[DMU_NACTIVITY];
} DmuQueryParts;

/* One SELECT of the columns of a DmuQueueRow, in their order; palloc'd. */
extern char *dmu_priority_build(const DmuWarehouse *warehouse,
								const DmuQueryParts *parts);

/*
 * What is read of the facts alone: id, number, last action, or of some of them
 * only the id; ids may be null.  Who has no such facts is left out.  Palloc'd.
 */
typedef enum DmuCounted
{
	DMU_COUNT_IDS,				/* those in the bigint[] that is $1 */
	DMU_COUNT_FLAGGED,			/* all flagged, if each is there once */
	DMU_COUNT_ALL,				/* everybody */
	DMU_COUNT_SINCE,			/* ids, facts of the last $1 days, an integer */
	DMU_COUNT_BETWEEN			/* of these only what is more than $2 days old */
} DmuCounted;

extern char *dmu_priority_build_counts(const DmuWarehouse *warehouse,
									   DmuCounted counted);

#endif							/* DMU_PRIORITY_QUERY_H */
