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
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
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

/* What a walk over a plan finds. */
typedef struct PlanFacts
{
	bool		unbounded;		/* a nested loop that reads a side again */
	bool		foreign;
} PlanFacts;

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

/* True if the index is searched for a value of the outer side. */
static bool
uses_outer_value(List *index_quals)
{
	ListCell   *lc;

	foreach(lc, index_quals)
	{
		OpExpr	   *qual = lfirst(lc);
		Node	   *column;
		Node	   *value;

		if (!IsA(qual, OpExpr) || list_length(qual->args) != 2)
			continue;
		column = linitial(qual->args);
		value = lsecond(qual->args);
		while (IsA(value, RelabelType) || IsA(value, FuncExpr))
		{
			if (IsA(value, RelabelType))
				value = (Node *) ((RelabelType *) value)->arg;
			else if (list_length(((FuncExpr *) value)->args) == 1)
				value = linitial(((FuncExpr *) value)->args);
			else
				break;
		}

		/* Of a later column it would read the whole index. */
		if (IsA(column, Var) && ((Var *) column)->varattno == 1 &&
			IsA(value, Param) && ((Param *) value)->paramkind == PARAM_EXEC)
			return true;
	}
	return false;
}

static bool is_lookup(Plan *plan);

static bool
all_are_lookups(List *plans)
{
	ListCell   *lc;

	foreach(lc, plans)
	{
		if (!is_lookup(lfirst(lc)))
			return false;
	}
	return true;
}

/* True if running that node once more reads only what one outer row needs. */
static bool
is_lookup(Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_IndexScan:
			return uses_outer_value(((IndexScan *) plan)->indexqual);
		case T_IndexOnlyScan:
			return uses_outer_value(((IndexOnlyScan *) plan)->indexqual);
		case T_BitmapIndexScan:
			return uses_outer_value(((BitmapIndexScan *) plan)->indexqual);
		case T_BitmapAnd:
			/* One that reads little is not enough: the others are read, too. */
			return all_are_lookups(((BitmapAnd *) plan)->bitmapplans);
		case T_BitmapOr:
			return all_are_lookups(((BitmapOr *) plan)->bitmapplans);
		case T_Append:
			return all_are_lookups(((Append *) plan)->appendplans);
		case T_MergeAppend:
			return all_are_lookups(((MergeAppend *) plan)->mergeplans);
		case T_SubqueryScan:
			return is_lookup(((SubqueryScan *) plan)->subplan);
		case T_Result:
			return plan->lefttree == NULL || is_lookup(plan->lefttree);
		case T_BitmapHeapScan:
		case T_Memoize:
		case T_Limit:
		case T_Unique:
		case T_Sort:
		case T_IncrementalSort:
		case T_Agg:
		case T_Group:
		case T_ProjectSet:
			return is_lookup(plan->lefttree);
		case T_NestLoop:
			/* Its inner side is judged when the walk comes there. */
			return is_lookup(plan->lefttree);
		default:
			return false;
	}
}

static void look_at(Plan *plan, PlanFacts *facts);

static void
look_at_all(List *plans, PlanFacts *facts)
{
	ListCell   *lc;

	foreach(lc, plans)
		look_at(lfirst(lc), facts);
}

static void
look_at(Plan *plan, PlanFacts *facts)
{
	check_stack_depth();
	if (plan == NULL)
		return;

	switch (nodeTag(plan))
	{
		case T_NestLoop:
			if (!is_lookup(plan->righttree))
				facts->unbounded = true;
			break;
		case T_ForeignScan:
			facts->foreign = true;
			break;
		case T_Append:
			look_at_all(((Append *) plan)->appendplans, facts);
			break;
		case T_MergeAppend:
			look_at_all(((MergeAppend *) plan)->mergeplans, facts);
			break;
		case T_SubqueryScan:
			look_at(((SubqueryScan *) plan)->subplan, facts);
			break;
		case T_CustomScan:
			look_at_all(((CustomScan *) plan)->custom_plans, facts);
			break;
		default:
			break;
	}
	look_at(plan->lefttree, facts);
	look_at(plan->righttree, facts);
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

static PlanFacts
facts_of(const PlannedStmt *statement)
{
	PlanFacts	facts = {false, false};

	look_at(statement->planTree, &facts);
	look_at_all(statement->subplans, &facts);
	return facts;
}

/*
 * A statement that reads nothing over and over, in the place of one that may.
 * Where indexes alone make the difference it costs hardly more than what the
 * planner has found best.
 */
static PlannedStmt *
plan_bounded(const DmuPlan *plan, const Query *query, bool parallel)
{
	double		best = plan->statement->planTree->total_cost;
	PlannedStmt *statement = plan_query(plan, query, parallel,
										PLAN_WITH_INDEXES);

	if (!facts_of(statement).unbounded &&
		statement->planTree->total_cost <= 2 * best)
		return statement;
	return plan_query(plan, query, parallel, PLAN_WITHOUT_NESTED_LOOPS);
}

/*
 * In the place of a statement that aggregates a whole table: one that reads
 * nothing but indexes, which are a fraction of the table and in the order of
 * the groups.  The planner charges each page of them as a random one, and so
 * twice what they cost, and groups that it expects to be few make it prefer a
 * hash table.
 */
static void
prefer_index_order(DmuPlan *plan, const Query *query, bool parallel)
{
	PlannedStmt *statement = plan_query(plan, query, parallel,
										PLAN_IN_INDEX_ORDER);
	double		cost = statement->planTree->total_cost / 2;

	if (cost > plan->cost)
		return;
	plan->statement = statement;
	plan->cost = cost;
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
	PlanFacts	facts;

	plan->context = context;
	plan->sql = sql;
	plan->params = params;
	query = analyze(sql, params);
	plan->statement = plan_query(plan, query, parallel,
								 (flags & DMU_PLAN_LOOKUPS) != 0 ?
								 PLAN_OF_LOOKUPS : PLAN_ANYTHING);
	plan->cost = plan->statement->planTree->total_cost;
	facts = facts_of(plan->statement);
	if (facts.unbounded)
		plan->statement = plan_bounded(plan, query, parallel);
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

/* How often an index is searched below for one outer row; -1: not only these. */
static int
count_lookups(Plan *plan)
{
	ListCell   *lc;
	int			n = 0;

	if (plan == NULL)
		return -1;
	switch (nodeTag(plan))
	{
		case T_IndexOnlyScan:
			return is_lookup(plan) ? 1 : -1;
		case T_Result:
			return plan->lefttree == NULL ? 0 : -1;
		case T_Append:
			foreach(lc, ((Append *) plan)->appendplans)
			{
				int			lookups = count_lookups(lfirst(lc));

				if (lookups < 0)
					return -1;
				n += lookups;
			}
			return n;
		default:
			return -1;
	}
}

int
dmu_plan_lookups(const DmuPlan *plan)
{
	Plan	   *node = plan->statement->planTree;

	while (node != NULL && (IsA(node, Agg) || IsA(node, Sort)))
		node = node->lefttree;
	if (node == NULL || !IsA(node, NestLoop) ||
		!IsA(node->lefttree, FunctionScan))
		return -1;
	return count_lookups(node->righttree);
}

double
dmu_plan_rows(const DmuPlan *plan)
{
	return plan->statement->planTree->plan_rows;
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
