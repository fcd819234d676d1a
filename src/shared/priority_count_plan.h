/*-------------------------------------------------------------------------
 *
 * priority_count_plan.h
 *		The plans by which facts are counted; a part of priority_count.h.
 *
 *		Made with the current role's rights, see dmu_plan_make(), whose owner is
 *		the caller.  Raises what the planner raises.  Needs an active snapshot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PRIORITY_COUNT_PLAN_H
#define DMU_PRIORITY_COUNT_PLAN_H

#include "counts.h"
#include "plan.h"
#include "utils/array.h"

/*
 * Counts the facts of those whose ids are "wanted", a bigint[] of "n", and maybe
 * of others; of "counts" only the numbers are read.
 */
extern DmuPlan *dmu_count_plan_counting(const DmuWarehouse *warehouse,
										const DmuCounts *counts,
										ArrayType *wanted, int64 n);

/* Looks who has facts of that recency class, 0 for the most recent one. */
extern DmuPlan *dmu_count_plan_looking(const DmuWarehouse *warehouse,
									   int recency_class);

/* True if it is cheaper to look first than to count all "n" at once. */
extern bool dmu_count_plan_is_worth_looking(const DmuWarehouse *warehouse,
											const DmuPlan *looking,
											const DmuPlan *counting, int64 n);

#endif							/* DMU_PRIORITY_COUNT_PLAN_H */
