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
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "extension.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#define MAX_COLUMNS 4

/* A table of so many pages is read from end to end, whosever its rows are. */
#define SMALL_TABLE 8

/* What is read, and where it goes. */
typedef struct OwnerScan
{
	AttrNumber	users;			/* the column users_oid */
	AttrNumber	columns[MAX_COLUMNS];
	int			ncolumns;
	DmuOwnerRowConsumer consume;
	void	   *arg;
} OwnerScan;

static AttrNumber
find_column(Relation table, const DmuOwnerColumn *column)
{
	TupleDesc	desc = RelationGetDescr(table);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && attribute->atttypid == column->type &&
			strcmp(NameStr(attribute->attname), column->name) == 0)
			return attribute->attnum;
	}
	elog(ERROR, "table %s has no column %s of type %u",
		 RelationGetRelationName(table), column->name, column->type);
}

/* Of whatever access method the table is. */
static void
scan_all(Relation table, Snapshot snapshot, Oid users, const OwnerScan *what)
{
	TupleTableSlot *slot = table_slot_create(table, NULL);
	TableScanDesc scan = dmu_table_beginscan(table, snapshot);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Datum		values[MAX_COLUMNS];
		bool		is_null;
		Datum		owner = slot_getattr(slot, what->users, &is_null);

		CHECK_FOR_INTERRUPTS();
		if (is_null || DatumGetObjectId(owner) != users)
			continue;
		for (int i = 0; i < what->ncolumns && !is_null; i++)
			values[i] = slot_getattr(slot, what->columns[i], &is_null);
		if (!is_null)
			what->consume(values, what->arg);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

/* Of a heap, by an index that begins with users_oid. */
static void
scan_index(Relation table, Oid index, Snapshot snapshot, Oid users,
		   const OwnerScan *what)
{
	TupleDesc	desc = RelationGetDescr(table);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, what->users, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(users));
	scan = systable_beginscan(table, index, true, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[MAX_COLUMNS];
		bool		is_null = false;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < what->ncolumns && !is_null; i++)
			values[i] = heap_getattr(tuple, what->columns[i], desc, &is_null);
		if (!is_null)
			what->consume(values, what->arg);
	}
	systable_endscan(scan);
}

/* Invalid where it is better, or has, to be read from end to end. */
static Oid
choose_index(Relation table, AttrNumber users)
{
	Oid			oid = InvalidOid;
	Relation	index;
	bool		fits;

	if (table->rd_rel->relam == HEAP_TABLE_AM_OID &&
		RelationGetNumberOfBlocks(table) > SMALL_TABLE)
		oid = dmu_primary_key_index(table);
	if (!OidIsValid(oid))
		return InvalidOid;
	index = index_open(oid, AccessShareLock);
	fits = index->rd_index->indkey.values[0] == users &&
		!index->rd_index->indcheckxmin;
	index_close(index, AccessShareLock);
	return fits ? oid : InvalidOid;
}

void
dmu_owner_scan(const DmuOwnerScope *scope, Relation table, Snapshot snapshot,
			   Oid users, const DmuOwnerColumn *columns, int ncolumns,
			   DmuOwnerRowConsumer consume, void *arg)
{
	static const DmuOwnerColumn users_column = {"users_oid", OIDOID};
	OwnerScan	what = {.ncolumns = ncolumns,.consume = consume,.arg = arg};
	Oid			index;
	ErrorContextCallback explain = {.previous = error_context_stack,.callback = dmu_extension_explain_newer,.arg = scope->newer};

	Assert(ncolumns <= MAX_COLUMNS);
	if (scope->newer != NULL)
		error_context_stack = &explain;
	what.users = find_column(table, &users_column);
	for (int i = 0; i < ncolumns; i++)
		what.columns[i] = find_column(table, &columns[i]);
	index = choose_index(table, what.users);
	if (OidIsValid(index))
		scan_index(table, index, snapshot, users, &what);
	else
		scan_all(table, snapshot, users, &what);
	error_context_stack = explain.previous;
}
