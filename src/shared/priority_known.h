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
 * Does what dmu_priority_run() does, when dmu_count_facts() has counted; runs no SQL.  The
 * rows are exactly those of its query, in the same order.
 */
extern void dmu_known_run(const DmuWarehouse *warehouse, DmuCounts *counts,
						  int max_users, DmuQueueRowConsumer consume,
						  void *arg);

#endif							/* DMU_PRIORITY_KNOWN_H */
