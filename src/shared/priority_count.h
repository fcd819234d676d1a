/*-------------------------------------------------------------------------
 *
 * priority_count.h
 *		Counting the facts of those who wait; a part of priority.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PRIORITY_COUNT_H
#define DMU_PRIORITY_COUNT_H

#include "counts.h"

/* A date as the time column has it, whose type is date, or either timestamp. */
extern int64 dmu_count_raw_date(Oid type, Datum date);

/* The first time of that recency class, 0 for the most recent one; today's. */
extern int64 dmu_count_recent(Oid type, int recency_class);

/*
 * Counts facts, with the current role's rights, until it is known who the
 * first "max_users" are, or for DMU_WHOLE_BACKLOG until everybody's are
 * counted.  False if what the facts are stored in has changed meanwhile, so
 * that nothing in the list could be relied on; it is empty then.  Needs an
 * active snapshot.
 */
extern bool dmu_count_facts(const DmuWarehouse *warehouse, DmuCounts *counts,
							int max_users);

#endif							/* DMU_PRIORITY_COUNT_H */
