/*-------------------------------------------------------------------------
 *
 * ownerscan.c
 *		Rows of the extension's own tables, without SQL.
 *
 *		Every look asks a few small tables who is held back, most of the time
 *		in a session that has just begun.  To parse and plan a query for that
 *		takes far longer than to read them.
 *
 *		This file knows neither what the tables are for nor who writes them, but
 *		that each belongs to datamarts by a column users_oid, with which its
 *		primary key begins.
 *
 *-------------------------------------------------------------------------
 */
#include "ownerscan.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "extension.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define MAX_COLUMNS 4

/* A table of so many pages is read from end to end, whosever its rows are. */
#define SMALL_TABLE 32

static AttrNumber
find_column(Relation relation, const DmuOwnerColumn *column)
{
	TupleDesc	desc = RelationGetDescr(relation);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && attribute->atttypid == column->type &&
			strcmp(NameStr(attribute->attname), column->name) == 0)
			return attribute->attnum;
	}
	elog(ERROR, "table %s has no column %s of type %u",
		 RelationGetRelationName(relation), column->name, column->type);
}

static void
scan(Relation relation, Oid users, const AttrNumber *attnums, int ncolumns,
	 DmuOwnerRowConsumer consume, void *arg)
{
	static const DmuOwnerColumn users_column = {"users_oid", OIDOID};
	TupleDesc	desc = RelationGetDescr(relation);
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	Oid			index = InvalidOid;
	ScanKeyData key;
	SysScanDesc rows;
	HeapTuple	tuple;

	if (RelationGetNumberOfBlocks(relation) > SMALL_TABLE)
		index = dmu_primary_key_index(relation);
	ScanKeyInit(&key, find_column(relation, &users_column),
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(users));
	rows = systable_beginscan(relation, index, OidIsValid(index), snapshot, 1,
							  &key);
	while (HeapTupleIsValid(tuple = systable_getnext(rows)))
	{
		Datum		values[MAX_COLUMNS];
		bool		has_null = false;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < ncolumns; i++)
		{
			bool		is_null;

			values[i] = heap_getattr(tuple, attnums[i], desc, &is_null);
			has_null |= is_null;
		}
		if (!has_null)
			consume(values, arg);
	}
	systable_endscan(rows);
	UnregisterSnapshot(snapshot);
}

void
dmu_owner_scan(const DmuOwnerScope *scope, const char *table, Oid users,
			   const DmuOwnerColumn *columns, int ncolumns,
			   DmuOwnerRowConsumer consume, void *arg)
{
	Relation	relation;
	AttrNumber	attnums[MAX_COLUMNS];
	ErrorContextCallback explain = {.previous = error_context_stack,.callback = dmu_extension_explain_newer,.arg = scope->newer};

	Assert(ncolumns <= MAX_COLUMNS);
	if (scope->newer != NULL)
		error_context_stack = &explain;
	relation = dmu_owner_open(scope, table);
	if (relation->rd_rel->relkind != RELKIND_RELATION ||
		relation->rd_rel->relam != HEAP_TABLE_AM_OID)
		elog(ERROR, "%s is no table of the access method heap", table);
	for (int i = 0; i < ncolumns; i++)
		attnums[i] = find_column(relation, &columns[i]);
	scan(relation, users, attnums, ncolumns, consume, arg);
	table_close(relation, NoLock);
	error_context_stack = explain.previous;
}
