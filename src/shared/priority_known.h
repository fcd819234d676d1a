/*-------------------------------------------------------------------------
 *
 * priority_known.h
 *		The order of those whose facts are counted; a part of priority.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PRIORITY_KNOWN_H
#define DMU_PRIORITY_KNOWN_H

#include "counts.h"
#include "priority.h"

/*
 * Puts the list in order of the ids; of who is there more than once only one
 * entry stays, of which nothing can be remembered.
 */
extern void dmu_known_sort(DmuCounts *counts);

/*
 * Counts the facts of those of whom that is not known, with the current role's
 * rights.  False if what the facts are stored in has changed meanwhile, so that
 * nothing in the list could be relied on; it is empty then.  Needs an active snapshot.
 */
extern bool dmu_known_count(const DmuWarehouse *warehouse, DmuCounts *counts);

/*
 * Does what dmu_priority_run() does, when all are counted; runs no SQL.  The
 * rows are exactly those of its query, in the same order.
 */
extern void dmu_known_run(const DmuWarehouse *warehouse, DmuCounts *counts,
						  int max_users, DmuQueueRowConsumer consume,
						  void *arg);

#endif							/* DMU_PRIORITY_KNOWN_H */
