/*-------------------------------------------------------------------------
 *
 * source.c
 *		The foreign data wrapper behind the views on what goes on now.
 *
 *		A view asks its owner for the right to read the tables below it, but
 *		whoever reads it for the right to call a function.  A view over a
 *		function could not be granted by itself, unless the function was open
 *		to everybody.  So C code hands its rows out as foreign tables, which
 *		nobody is granted, and GRANT SELECT on the view is all that it takes.
 *
 *		This file knows no cycle and no warehouse; what the rows are, the
 *		functions say that make them.
 *
 *-------------------------------------------------------------------------
 */
#include "source.h"

#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "compat.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "extension.h"
#include "fmgr.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(datamart_users_source_handler);

/* The types of their columns, up to an invalid one. */
static const Oid progress_types[] = {
	INT8OID, TEXTOID, NAMEOID, TEXTOID, TIMESTAMPTZOID, INTERVALOID, INT8OID,
	INT4OID, INT4OID, INT4OID, INT4OID, INT4OID, INT4OID, INT4OID,
	NUMERICOID, NUMERICOID, INTERVALOID, InvalidOid
};
static const Oid worker_types[] = {
	INT8OID, TEXTOID, INT4OID, INT4OID, TEXTOID, INT8OID, TEXTOID,
	TIMESTAMPTZOID, INT8OID, INT8OID, InvalidOid
};
static const Oid backlog_types[] = {
	TEXTOID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID,
	INTERVALOID, INTERVALOID, INTERVALOID, INTERVALOID, INT8OID, InvalidOid
};
static const Oid service_types[] = {
	INT4OID, TEXTOID, NAMEOID, TIMESTAMPTZOID, INTERVALOID, INT4OID, INT4OID,
	TEXTOID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INTERVALOID, InvalidOid
};

/* By the option "source" of the foreign table. */
static const struct
{
	const char *name;
	const Oid  *types;
	void		(*put_all) (DmuRows *rows);
}			sources[] =

{
	{"progress", progress_types, dmu_progress_rows},
	{"workers", worker_types, dmu_worker_rows},
	{"backlog", backlog_types, dmu_backlog_rows},
	{"service", service_types, dmu_service_rows},
};

struct DmuRows
{
	TupleDesc	desc;
	Tuplestorestate *store;		/* NULL until the first row is asked for */
	TupleTableSlot *slot;
};

/*
 * Whoever may use the server can make a foreign table of it, with columns to
 * his taste, and a number that is read as a text would be an address.
 */
static void
refuse_other_columns(Relation relation, const Oid *types)
{
	TupleDesc	desc = RelationGetDescr(relation);
	int			i = 0;

	while (i < desc->natts && OidIsValid(types[i]) &&
		   TupleDescAttr(desc, i)->atttypid == types[i])
		i++;
	if (i < desc->natts || OidIsValid(types[i]))
	{
		const char *hint = dmu_extension_version_hint(NULL);

		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("foreign table \"%s\" has other columns than the library of datamart_users makes",
						RelationGetRelationName(relation)),
				 hint != NULL ? errhint("%s", hint) :
				 errhint("If it is of the extension, somebody has changed it: drop the extension and create it again.")));
	}
}

void
dmu_source_put(DmuRows *rows, int ncolumns, Datum *values, bool *nulls)
{
	if (rows->desc->natts != ncolumns)
		elog(ERROR, "a row of %d columns for a table of %d", ncolumns,
			 rows->desc->natts);
	tuplestore_putvalues(rows->store, rows->desc, values, nulls);
}

/* Nobody knows how many there are, and it hardly matters. */
static void
get_rel_size(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid)
{
	baserel->rows = 10;
}

static void
get_paths(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid)
{
	Cost		startup_cost = 10;

	add_path(baserel,
			 (Path *) dmu_create_foreignscan_path(root, baserel, startup_cost,
												  startup_cost + baserel->rows));
}

static ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *baserel, Oid foreigntableid,
		 ForeignPath *best_path, List *tlist, List *scan_clauses,
		 Plan *outer_plan)
{
	return make_foreignscan(tlist,
							extract_actual_clauses(scan_clauses, false),
							baserel->relid, NIL, NIL, NIL, NIL, outer_plan);
}

static void
begin_scan(ForeignScanState *node, int eflags)
{
	DmuRows    *rows = palloc0(sizeof(DmuRows));

	rows->desc = RelationGetDescr(node->ss.ss_currentRelation);
	node->fdw_state = rows;
}

/* What a foreign table is for. */
static void
put_all(Relation relation, DmuRows *rows)
{
	ForeignTable *table = GetForeignTable(RelationGetRelid(relation));
	ListCell   *lc;

	foreach(lc, table->options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		for (int i = 0; i < (int) lengthof(sources); i++)
		{
			if (strcmp(option->defname, "source") == 0 &&
				strcmp(defGetString(option), sources[i].name) == 0)
			{
				refuse_other_columns(relation, sources[i].types);
				sources[i].put_all(rows);
				return;
			}
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("foreign table \"%s\" is of no use",
					RelationGetRelationName(relation)),
			 errdetail("The foreign tables of this server are those that extension \"%s\" has made.",
					   DMU_EXTENSION_NAME)));
}

static TupleTableSlot *
iterate_scan(ForeignScanState *node)
{
	DmuRows    *rows = node->fdw_state;

	if (rows->store == NULL)
	{
		MemoryContext per_row = CurrentMemoryContext;

		MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);
		rows->store = tuplestore_begin_heap(false, false, work_mem);
		rows->slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);
		MemoryContextSwitchTo(per_row);
		put_all(node->ss.ss_currentRelation, rows);
	}
	(void) tuplestore_gettupleslot(rows->store, true, false, rows->slot);
	return rows->slot;
}

static void
rescan(ForeignScanState *node)
{
	DmuRows    *rows = node->fdw_state;

	if (rows->store != NULL)
		tuplestore_rescan(rows->store);
}

static void
end_scan(ForeignScanState *node)
{
	DmuRows    *rows = node->fdw_state;

	if (rows->store == NULL)
		return;
	ExecDropSingleTupleTableSlot(rows->slot);
	tuplestore_end(rows->store);
	rows->store = NULL;
}

Datum
datamart_users_source_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = get_rel_size;
	routine->GetForeignPaths = get_paths;
	routine->GetForeignPlan = get_plan;
	routine->BeginForeignScan = begin_scan;
	routine->IterateForeignScan = iterate_scan;
	routine->ReScanForeignScan = rescan;
	routine->EndForeignScan = end_scan;
	PG_RETURN_POINTER(routine);
}
