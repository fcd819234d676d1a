/*-------------------------------------------------------------------------
 *
 * plan.h
 *		Queries of ours over the warehouse's tables, planned so that no wrong
 *		estimate makes them quadratic.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PLAN_H
#define DMU_PLAN_H

#include "postgres.h"

#include "nodes/params.h"
#include "tcop/dest.h"

typedef struct DmuPlan DmuPlan;

/*
 * Plans one SELECT with the current role's rights; the planner knows the
 * values of the parameters that are constant.  Parsed, planned and run with the
 * session's search_path, so that what a view or a policy behind the query runs
 * finds what it would in a statement of the caller's; the text has to qualify
 * its names and operators.  Needs a transaction and an active snapshot.
 * Palloc'd in a context below the current one.
 *
 * "parallel" allows parallel workers.
 */
extern DmuPlan *dmu_plan_make(const char *sql, ParamListInfo params,
							  bool parallel);

/* True if it reads a foreign table, at whatever depth. */
extern bool dmu_plan_is_foreign(const DmuPlan *plan);

/* What the planner reckons it costs, in its own units, and how many rows. */
extern double dmu_plan_cost(const DmuPlan *plan);
extern double dmu_plan_rows(const DmuPlan *plan);

/* Runs it once, rows go to "dest" one by one, and frees it. */
extern void dmu_plan_run(DmuPlan *plan, DestReceiver *dest);

extern void dmu_plan_free(DmuPlan *plan);

#endif							/* DMU_PLAN_H */
