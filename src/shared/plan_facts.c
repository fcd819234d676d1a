/*-------------------------------------------------------------------------
 *
 * plan_facts.c
 *		What a plan does that matters here: does it read a side of a join over
 *		and over, does it read another server, is it all searches of indexes, or
 *		nothing but a scan of one table.
 *
 *		A nested loop must look its inner rows up in an index by a value of the
 *		outer row; what a node is not known to do counts as reading all.
 *
 *		This file makes no plan and runs none.
 *
 *-------------------------------------------------------------------------
 */
#include "plan_facts.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/primnodes.h"
#include "parser/parsetree.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

/* What is walked over. */
typedef struct Walk
{
	const PlannedStmt *statement;
	bool		few;			/* a hundred outer rows at most */
} Walk;

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

/*
 * A partition that has no rows yet is read as a whole, because nothing is
 * cheaper.  It may be growing, so that is only for a few rows.
 */
static bool
is_tiny(const Walk *walk, const Plan *scan)
{
	Oid			oid = rt_fetch(((const Scan *) scan)->scanrelid,
							   walk->statement->rtable)->relid;
	Relation	relation;
	bool		tiny;

	if (!walk->few)
		return false;
	/* The planner has locked it. */
	relation = relation_open(oid, NoLock);
	tiny = RELKIND_HAS_STORAGE(relation->rd_rel->relkind) &&
		RelationGetNumberOfBlocks(relation) <= 1;
	relation_close(relation, NoLock);
	return tiny;
}

static bool is_lookup(const Walk *walk, Plan *plan);

static bool
all_are_lookups(const Walk *walk, List *plans)
{
	ListCell   *lc;

	foreach(lc, plans)
	{
		if (!is_lookup(walk, lfirst(lc)))
			return false;
	}
	return true;
}

/* True if running that node once more reads only what one outer row needs. */
static bool
is_lookup(const Walk *walk, Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_IndexScan:
			return uses_outer_value(((IndexScan *) plan)->indexqual) ||
				is_tiny(walk, plan);
		case T_IndexOnlyScan:
			return uses_outer_value(((IndexOnlyScan *) plan)->indexqual) ||
				is_tiny(walk, plan);
		case T_SeqScan:
			return is_tiny(walk, plan);
		case T_BitmapIndexScan:
			return uses_outer_value(((BitmapIndexScan *) plan)->indexqual);
		case T_BitmapAnd:
			/* One that reads little is not enough: the others are read, too. */
			return all_are_lookups(walk, ((BitmapAnd *) plan)->bitmapplans);
		case T_BitmapOr:
			return all_are_lookups(walk, ((BitmapOr *) plan)->bitmapplans);
		case T_Append:
			return all_are_lookups(walk, ((Append *) plan)->appendplans);
		case T_MergeAppend:
			return all_are_lookups(walk, ((MergeAppend *) plan)->mergeplans);
		case T_SubqueryScan:
			return is_lookup(walk, ((SubqueryScan *) plan)->subplan);
		case T_Result:
			return plan->lefttree == NULL || is_lookup(walk, plan->lefttree);
		case T_BitmapHeapScan:
		case T_Memoize:
		case T_Limit:
		case T_Unique:
		case T_Sort:
		case T_IncrementalSort:
		case T_Agg:
		case T_Group:
		case T_ProjectSet:
			return is_lookup(walk, plan->lefttree);
		case T_NestLoop:
			/* Its inner side is judged when the walk comes there. */
			return is_lookup(walk, plan->lefttree);
		default:
			return false;
	}
}

static void look_at(const Walk *walk, Plan *plan, DmuPlanFacts *facts);

static void
look_at_all(const Walk *walk, List *plans, DmuPlanFacts *facts)
{
	ListCell   *lc;

	foreach(lc, plans)
		look_at(walk, lfirst(lc), facts);
}

static void
look_at(const Walk *walk, Plan *plan, DmuPlanFacts *facts)
{
	check_stack_depth();
	if (plan == NULL)
		return;

	switch (nodeTag(plan))
	{
		case T_NestLoop:
			if (!is_lookup(walk, plan->righttree))
				facts->unbounded = true;
			break;
		case T_ForeignScan:
			facts->foreign = true;
			facts->index_only = false;
			break;
		case T_SeqScan:
		case T_SampleScan:
		case T_IndexScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
			facts->index_only = false;
			break;
		case T_Append:
			look_at_all(walk, ((Append *) plan)->appendplans, facts);
			break;
		case T_MergeAppend:
			look_at_all(walk, ((MergeAppend *) plan)->mergeplans, facts);
			break;
		case T_SubqueryScan:
			look_at(walk, ((SubqueryScan *) plan)->subplan, facts);
			break;
		case T_CustomScan:
			facts->index_only = false;
			look_at_all(walk, ((CustomScan *) plan)->custom_plans, facts);
			break;
		default:
			break;
	}
	look_at(walk, plan->lefttree, facts);
	look_at(walk, plan->righttree, facts);
}

DmuPlanFacts
dmu_plan_facts(const PlannedStmt *statement, bool few)
{
	const Walk	walk = {statement, few};
	DmuPlanFacts facts = {.index_only = true};

	look_at(&walk, statement->planTree, &facts);
	look_at_all(&walk, statement->subplans, &facts);
	return facts;
}

/* How often an index is searched below for one outer row; -1: not only these. */
static int
count_lookups(const Walk *walk, Plan *plan)
{
	ListCell   *lc;
	int			n = 0;

	if (plan == NULL)
		return -1;
	switch (nodeTag(plan))
	{
		case T_IndexOnlyScan:
			return is_lookup(walk, plan) ? 1 : -1;
		case T_Result:
			return plan->lefttree == NULL ? 0 : -1;
		case T_Append:
			foreach(lc, ((Append *) plan)->appendplans)
			{
				int			lookups = count_lookups(walk, lfirst(lc));

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
dmu_plan_facts_lookups(const PlannedStmt *statement)
{
	const Walk	walk = {statement, false};
	Plan	   *node = statement->planTree;

	while (node != NULL && (IsA(node, Agg) || IsA(node, Sort)))
		node = node->lefttree;
	if (node == NULL || !IsA(node, NestLoop) ||
		!IsA(node->lefttree, FunctionScan))
		return -1;
	return count_lookups(&walk, node->righttree);
}

/*
 * The column of a table that it is, or 0; "type" is whose representation its
 * values have, bigint where they are made that.
 */
static AttrNumber
column_of(Node *node, Oid *type)
{
	*type = exprType(node);
	if (IsA(node, FuncExpr) && (((FuncExpr *) node)->funcid == F_INT8_INT4 ||
								((FuncExpr *) node)->funcid == F_INT8_INT2))
	{
		*type = ((FuncExpr *) node)->funcid == F_INT8_INT4 ? INT4OID : INT2OID;
		node = linitial(((FuncExpr *) node)->args);
	}
	if (IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	if (!IsA(node, Var) || ((Var *) node)->varattno <= 0)
		return 0;
	return ((Var *) node)->varattno;
}

bool
dmu_plan_facts_scan(const PlannedStmt *statement, Oid relation,
					DmuPlanScan *scan)
{
	const Plan *plan = statement->planTree;
	Oid			type;

	if (!IsA(plan, SeqScan) || plan->initPlan != NIL ||
		list_length(plan->qual) != 1 ||
		rt_fetch(((const Scan *) plan)->scanrelid, statement->rtable)->relid != relation)
		return false;
	scan->first = column_of((Node *) ((TargetEntry *) linitial(plan->targetlist))->expr,
							&scan->first_type);
	scan->condition = column_of(linitial(plan->qual), &type);
	return scan->first > 0 && scan->condition > 0;
}
