/*-------------------------------------------------------------------------
 *
 * below.c
 *		Which column of which table a column of a view is.
 *
 *		An index helps a view where it is on the column of the table that the
 *		view shows, and a view may rename that.  The catalog has which columns
 *		a view depends on, but not which is which; its query has.
 *
 *		This file knows nothing of datamart users.
 *
 *-------------------------------------------------------------------------
 */
#include "below.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "compat.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* "queries" is a query and those around it, as far as their WITH is seen. */
static void follow_query(List *queries, AttrNumber column, List **found);

static void
add_column(Oid relid, AttrNumber column, List **found)
{
	char	   *name = get_attname(relid, column, true);
	DmuColumnBelow *below;
	ListCell   *lc;

	if (name == NULL)
		return;
	foreach(lc, *found)
	{
		below = lfirst(lc);
		if (below->relid == relid && strcmp(below->name, name) == 0)
			return;
	}
	below = palloc(sizeof(DmuColumnBelow));
	below->relid = relid;
	below->relation =
		quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
								   get_rel_name(relid));
	below->name = name;
	*found = lappend(*found, below);
}

static void
follow_relation(Oid relid, AttrNumber column, List **found)
{
	Relation	relation;

	check_stack_depth();
	if (column <= 0)
		return;
	if (get_rel_relkind(relid) != RELKIND_VIEW)
	{
		add_column(relid, column, found);
		return;
	}
	relation = relation_open(relid, AccessShareLock);
	follow_query(list_make1(get_view_query(relation)), column, found);
	relation_close(relation, AccessShareLock);
}

static void
follow_cte(List *queries, const RangeTblEntry *entry, AttrNumber column,
		   List **found)
{
	List	   *around = list_copy_tail(queries, (int) entry->ctelevelsup);
	ListCell   *lc;

	if (around == NIL || entry->self_reference)
		return;
	foreach(lc, ((const Query *) linitial(around))->cteList)
	{
		const CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (strcmp(cte->ctename, entry->ctename) == 0 &&
			IsA(cte->ctequery, Query))
			follow_query(lcons(cte->ctequery, around), column, found);
	}
}

static void
follow_expression(List *queries, Node *node, List **found)
{
	const Query *query = linitial(queries);
	const Var  *var;
	const RangeTblEntry *entry;

	check_stack_depth();
	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	if (node == NULL || !IsA(node, Var))
		return;
	var = (const Var *) node;
	if (var->varlevelsup != 0 || var->varattno <= 0)
		return;

	entry = rt_fetch(var->varno, query->rtable);
	if (entry->rtekind == RTE_RELATION)
		follow_relation(entry->relid, var->varattno, found);
	else if (entry->rtekind == RTE_SUBQUERY)
		follow_query(lcons(entry->subquery, list_copy(queries)), var->varattno,
					 found);
	else if (entry->rtekind == RTE_JOIN)
		follow_expression(queries,
						  list_nth(entry->joinaliasvars, var->varattno - 1), found);
	else if (entry->rtekind == RTE_CTE)
		follow_cte(queries, entry, var->varattno, found);
	else
		follow_expression(queries, dmu_group_expression(entry, var->varattno),
						  found);
}

/* Each side of a UNION, INTERSECT or EXCEPT. */
static void
follow_sides(List *queries, Node *node, AttrNumber column, List **found)
{
	const Query *query = linitial(queries);

	check_stack_depth();
	if (IsA(node, SetOperationStmt))
	{
		follow_sides(queries, ((SetOperationStmt *) node)->larg, column, found);
		follow_sides(queries, ((SetOperationStmt *) node)->rarg, column, found);
	}
	else if (IsA(node, RangeTblRef))
		follow_query(lcons(rt_fetch(((RangeTblRef *) node)->rtindex,
									query->rtable)->subquery,
						   list_copy(queries)),
					 column, found);
}

static void
follow_query(List *queries, AttrNumber column, List **found)
{
	const Query *query = linitial(queries);
	TargetEntry *entry;

	if (query->setOperations != NULL)
	{
		follow_sides(queries, query->setOperations, column, found);
		return;
	}
	entry = get_tle_by_resno(query->targetList, column);
	if (entry != NULL)
		follow_expression(queries, (Node *) entry->expr, found);
}

List	   *
dmu_below_column(Oid relid, const char *column)
{
	List	   *found = NIL;

	follow_relation(relid, get_attnum(relid, column), &found);
	return found;
}
