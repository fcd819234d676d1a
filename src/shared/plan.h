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

/* How a query may be run, and what is known of it. */
#define DMU_PLAN_PARALLEL 0x01	/* by parallel workers */
#define DMU_PLAN_WHOLE_TABLE 0x02	/* it groups all rows of a table by the
									 * column that an index of it may begin
									 * with */
#define DMU_PLAN_LOOKUPS 0x04	/* if there is a way, each row of one side is
								 * looked up in an index of the other,
								 * whatever that is said to cost */

#define DMU_PLAN_FEW 0x08		/* its ids are DMU_PLAN_FEW_MAX at most */
#define DMU_PLAN_SEARCH 0x10	/* it reads those rows of a table that an
								 * index may be on */

#define DMU_PLAN_FEW_MAX 100

/*
 * Plans one SELECT with the current role's rights; the planner knows the
 * values of the parameters that are constant.  Parsed, planned and run with the
 * session's search_path, so that what a view or a policy behind the query runs
 * finds what it would in a statement of the caller's; the text has to qualify
 * its names and operators.  Needs a transaction and an active snapshot.
 * Palloc'd in a context below the current one.
 */
extern DmuPlan *dmu_plan_make(const char *sql, ParamListInfo params,
							  int flags);

/* True if it reads a foreign table, at whatever depth. */
extern bool dmu_plan_is_foreign(const DmuPlan *plan);

/* What it costs, in the planner's units, and how many rows the planner expects. */
extern double dmu_plan_cost(const DmuPlan *plan);
extern double dmu_plan_rows(const DmuPlan *plan);

/*
 * Searches of an index for each row of a function, if all else that it reads is
 * in these indexes; otherwise -1.
 */
extern int	dmu_plan_lookups(const DmuPlan *plan);

/* What a plan does that only scans one table. */
typedef struct DmuPlanScan
{
	AttrNumber	condition;		/* boolean column that is true in its rows */
	AttrNumber	first;			/* column that its first result is */
	Oid			first_type;		/* whose representation that column has: int2,
								 * int4 or int8 */
} DmuPlanScan;

/*
 * True if all it does is read this table from end to end, in this process,
 * for the rows where a column of it is true, and if its first result is a
 * column, as bigint.
 */
extern bool dmu_plan_is_scan(const DmuPlan *plan, Oid relation,
							 DmuPlanScan *scan);

/* Runs it once, rows go to "dest" one by one, and frees it. */
extern void dmu_plan_run(DmuPlan *plan, DestReceiver *dest);

extern void dmu_plan_free(DmuPlan *plan);

#endif							/* DMU_PLAN_H */
