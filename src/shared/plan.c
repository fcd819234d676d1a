/*-------------------------------------------------------------------------
 *
 * plan.c
 *		Queries of ours over the warehouse's tables, planned so that no wrong
 *		estimate makes them quadratic.
 *
 *		What ANALYZE has seen of a flag that is set and cleared all day is
 *		wrong most of the time, and a view may hide any condition.  A planner
 *		that expects one row takes a nested loop and reads a whole table for
 *		each of the thousands that come.  So every plan is looked at before it
 *		runs: a nested loop must look its inner rows up in an index, else the
 *		query is planned again: with indexes wherever there is one, because one
 *		partition that has next to no rows yet is enough to read it as a whole
 *		each time; or without nested loops, which leaves joins that read each
 *		side once.
 *
 *		This is also why the executor is called from here and not through SPI,
 *		which does not show its plans.
 *
 *		This file knows nothing of datamart users and cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "plan.h"

#include "compat.h"
#include "executor/executor.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "plan_facts.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

struct DmuPlan
{
	MemoryContext context;		/* of all the rest */
	const char *sql;
	ParamListInfo params;
	PlannedStmt *statement;
	double		cost;			/* as the planner reckons, or as we do */
	bool		foreign;
};

static Query *
analyze(const char *sql, ParamListInfo params)
{
	int			nparams = params == NULL ? 0 : params->numParams;
	Oid		   *types = palloc(Max(nparams, 1) * sizeof(Oid));
	List	   *queries;

	for (int i = 0; i < nparams; i++)
		types[i] = params->params[i].ptype;

	queries = pg_analyze_and_rewrite_fixedparams(linitial_node(RawStmt, pg_parse_query(sql)),
												 sql, types, nparams, NULL);
	return linitial_node(Query, queries);
}

/* What the planner may do. */
typedef enum PlanFreedom
{
	PLAN_ANYTHING,
	PLAN_WITH_INDEXES,			/* no scan of a table that has one for it */
	PLAN_IN_INDEX_ORDER,		/* each partition aggregated by itself,
								 * without a hash table */
	PLAN_OF_LOOKUPS,			/* nested loops over indexes */
	PLAN_WITHOUT_NESTED_LOOPS
} PlanFreedom;

static void
set_freedom(PlanFreedom freedom)
{
	/*
	 * Nothing else must be forbidden then: the caller may have forbidden the
	 * very joins that read each side once, or the indexes.
	 */
	static const struct
	{
		PlanFreedom freedom;
		const char *setting;
		const char *value;
	}			settings[] = {
		{PLAN_WITH_INDEXES, "enable_seqscan", "off"},
		{PLAN_WITH_INDEXES, "enable_indexscan", "on"},
		{PLAN_WITH_INDEXES, "enable_indexonlyscan", "on"},
		{PLAN_IN_INDEX_ORDER, "enable_seqscan", "off"},
		{PLAN_IN_INDEX_ORDER, "enable_indexonlyscan", "on"},
		{PLAN_IN_INDEX_ORDER, "enable_partitionwise_aggregate", "on"},
		{PLAN_IN_INDEX_ORDER, "enable_hashagg", "off"},
		{PLAN_OF_LOOKUPS, "enable_seqscan", "off"},
		{PLAN_OF_LOOKUPS, "enable_bitmapscan", "off"},
		{PLAN_OF_LOOKUPS, "enable_hashjoin", "off"},
		{PLAN_OF_LOOKUPS, "enable_mergejoin", "off"},
		{PLAN_OF_LOOKUPS, "enable_nestloop", "on"},
		{PLAN_OF_LOOKUPS, "enable_indexonlyscan", "on"},
		{PLAN_WITHOUT_NESTED_LOOPS, "enable_nestloop", "off"},
		{PLAN_WITHOUT_NESTED_LOOPS, "enable_hashjoin", "on"},
		{PLAN_WITHOUT_NESTED_LOOPS, "enable_mergejoin", "on"},
		{PLAN_WITHOUT_NESTED_LOOPS, "enable_sort", "on"},
		{PLAN_WITHOUT_NESTED_LOOPS, "enable_seqscan", "on"},
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
	{
		if (settings[i].freedom == freedom)
			(void) set_config_option(settings[i].setting, settings[i].value,
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
}

/* The planner scribbles on its input, so "query" is copied. */
static PlannedStmt *
plan_query(const DmuPlan *plan, const Query *query, bool parallel,
		   PlanFreedom freedom)
{
	int			nest_level = NewGUCNestLevel();
	PlannedStmt *statement;

	set_freedom(freedom);
	statement = dmu_pg_plan_query(copyObject(unconstify(Query *, query)),
								  plan->sql,
								  parallel ? CURSOR_OPT_PARALLEL_OK : 0,
								  plan->params);
	AtEOXact_GUC(false, nest_level);

	/* Compiling would take longer than the whole query of a usual backlog. */
	statement->jitFlags = PGJIT_NONE;
	return statement;
}

/*
 * A statement that reads nothing over and over, in the place of one that may.
 * Where indexes alone make the difference it costs hardly more than what the
 * planner has found best.
 */
static PlannedStmt *
plan_bounded(const DmuPlan *plan, const Query *query, bool parallel, bool few)
{
	double		best = plan->statement->planTree->total_cost;
	PlannedStmt *statement = plan_query(plan, query, parallel,
										PLAN_WITH_INDEXES);

	if (!dmu_plan_facts(statement, few).unbounded &&
		statement->planTree->total_cost <= 2 * best)
		return statement;
	return plan_query(plan, query, parallel, PLAN_WITHOUT_NESTED_LOOPS);
}

/*
 * In the place of a statement that aggregates a whole table: one that reads
 * nothing but indexes, which are a fraction of the table and in the order of
 * the groups.  The planner charges each page of them as a random one, which by
 * its usual costs is twice what they take, and groups that it expects to be
 * few make it prefer a hash table.
 */
static void
prefer_index_order(DmuPlan *plan, const Query *query, bool parallel)
{
	PlannedStmt *statement = plan_query(plan, query, parallel,
										PLAN_IN_INDEX_ORDER);
	double		random = seq_page_cost > 0 ? random_page_cost / seq_page_cost : 1;
	double		cost = statement->planTree->total_cost;

	if (random > 1)
		cost /= 1 + (random - 1) / (DEFAULT_RANDOM_PAGE_COST - 1);
	if (cost > plan->cost || !dmu_plan_facts(statement, false).index_only)
		return;
	plan->statement = statement;
	plan->cost = cost;
}

/*
 * In the place of a statement that reads a whole table for some of its rows,
 * one that searches an index, if it costs hardly more.  The planner reckons
 * with pages that are not in memory.
 */
static void
prefer_search(DmuPlan *plan, const Query *query, bool parallel)
{
	PlannedStmt *statement = plan_query(plan, query, parallel,
										PLAN_WITH_INDEXES);

	if (statement->planTree->total_cost <= 1.25 * plan->cost)
		plan->statement = statement;
}

DmuPlan    *
dmu_plan_make(const char *sql, ParamListInfo params, int flags)
{
	bool		parallel = (flags & DMU_PLAN_PARALLEL) != 0;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "datamart_users plan",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	DmuPlan    *plan = palloc0(sizeof(DmuPlan));
	Query	   *query;
	bool		few = (flags & DMU_PLAN_FEW) != 0;
	DmuPlanFacts facts;

	plan->context = context;
	plan->sql = sql;
	plan->params = params;
	query = analyze(sql, params);
	plan->statement = plan_query(plan, query, parallel,
								 (flags & DMU_PLAN_LOOKUPS) != 0 ?
								 PLAN_OF_LOOKUPS : PLAN_ANYTHING);
	plan->cost = plan->statement->planTree->total_cost;
	facts = dmu_plan_facts(plan->statement, few);
	if (facts.unbounded)
		plan->statement = plan_bounded(plan, query, parallel, few);
	else if ((flags & DMU_PLAN_SEARCH) != 0)
		prefer_search(plan, query, parallel);
	else if ((flags & DMU_PLAN_WHOLE_TABLE) != 0)
		prefer_index_order(plan, query, parallel);
	plan->foreign = facts.foreign;

	MemoryContextSwitchTo(old_context);
	return plan;
}

bool
dmu_plan_is_foreign(const DmuPlan *plan)
{
	return plan->foreign;
}

double
dmu_plan_cost(const DmuPlan *plan)
{
	return plan->cost;
}

int
dmu_plan_lookups(const DmuPlan *plan)
{
	return dmu_plan_facts_lookups(plan->statement);
}

double
dmu_plan_rows(const DmuPlan *plan)
{
	return plan->statement->planTree->plan_rows;
}

bool
dmu_plan_is_scan(const DmuPlan *plan, Oid relation, DmuPlanScan *scan)
{
	return dmu_plan_facts_scan(plan->statement, relation, scan);
}

void
dmu_plan_run(DmuPlan *plan, DestReceiver *dest)
{
	MemoryContext old_context = MemoryContextSwitchTo(plan->context);
	QueryDesc  *desc = CreateQueryDesc(plan->statement, plan->sql,
									   GetActiveSnapshot(), InvalidSnapshot,
									   dest, plan->params, NULL, 0);

	ExecutorStart(desc, 0);
	dmu_executor_run(desc);
	ExecutorFinish(desc);
	ExecutorEnd(desc);
	FreeQueryDesc(desc);

	MemoryContextSwitchTo(old_context);
	dmu_plan_free(plan);
}

void
dmu_plan_free(DmuPlan *plan)
{
	MemoryContextDelete(plan->context);
}
