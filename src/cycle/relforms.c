/*-------------------------------------------------------------------------
 *
 * relforms.c
 *		Relations as two snapshots see them: that of the transaction, and the
 *		latest one.
 *
 *		The server itself never asks what the catalog was when a transaction
 *		began; it wants to know what is.  This file asks both, and knows nothing
 *		of who wants to know.
 *
 *-------------------------------------------------------------------------
 */
#include "relforms.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_rewrite.h"
#include "rewrite/rewriteSupport.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

/* A copy of a snapshot, active, to which our own transaction did nothing. */
static Snapshot
push_without_ourselves(Snapshot snapshot)
{
	PushCopiedSnapshot(snapshot);
	GetActiveSnapshot()->curcid = FirstCommandId;
	return GetActiveSnapshot();
}

void
dmu_relforms_open(DmuRelforms *forms)
{
	forms->ours = push_without_ourselves(GetTransactionSnapshot());
	forms->latest = push_without_ourselves(GetLatestSnapshot());
	forms->classes = table_open(RelationRelationId, AccessShareLock);
	forms->inheritance = table_open(InheritsRelationId, AccessShareLock);
	forms->renamed = NIL;
}

void
dmu_relforms_close(DmuRelforms *forms)
{
	table_close(forms->inheritance, AccessShareLock);
	table_close(forms->classes, AccessShareLock);
	PopActiveSnapshot();
	PopActiveSnapshot();
}

bool
dmu_relforms_has_rows(char kind)
{
	return kind == RELKIND_RELATION || kind == RELKIND_MATVIEW ||
		kind == RELKIND_PARTITIONED_TABLE || kind == RELKIND_FOREIGN_TABLE ||
		kind == RELKIND_VIEW;
}

/*
 * The transaction that has given a view its query, or an invalid one.  Where
 * that is another one, the query is.
 */
static TransactionId
look_up_query(Oid view, Snapshot snapshot)
{
	Relation	rules = table_open(RewriteRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	TransactionId writer = InvalidTransactionId;

	ScanKeyInit(&keys[0], Anum_pg_rewrite_ev_class, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(view));
	ScanKeyInit(&keys[1], Anum_pg_rewrite_rulename, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(ViewSelectRuleName));
	scan = systable_beginscan(rules, RewriteRelRulenameIndexId, true, snapshot,
							  lengthof(keys), keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		writer = HeapTupleHeaderGetRawXmin(tuple->t_data);
	systable_endscan(scan);
	table_close(rules, AccessShareLock);
	return writer;
}

static List *
look_up_parents(const DmuRelforms *forms, Oid relid, Snapshot snapshot)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *parents = NIL;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(forms->inheritance, InheritsRelidSeqnoIndexId, true,
							  snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		parents = lappend_oid(parents,
							  ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	return parents;
}

SysScanDesc
dmu_relforms_scan(Relation classes, Oid relid, Snapshot snapshot)
{
	ScanKeyData key;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	return systable_beginscan(classes, ClassOidIndexId, true, snapshot, 1, &key);
}

DmuRelform
dmu_relforms_get(const DmuRelforms *forms, Oid relid, Snapshot snapshot)
{
	DmuRelform	form = {.exists = false};
	SysScanDesc scan = dmu_relforms_scan(forms->classes, relid, snapshot);
	HeapTuple	tuple = systable_getnext(scan);

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class row = (Form_pg_class) GETSTRUCT(tuple);

		form.exists = true;
		form.kind = row->relkind;
		form.relfilenode = row->relfilenode;
		form.schema = row->relnamespace;
		form.name = row->relname;
	}
	systable_endscan(scan);
	if (form.exists && dmu_relforms_has_rows(form.kind))
		form.parents = look_up_parents(forms, relid, snapshot);
	if (form.exists && form.kind == RELKIND_VIEW)
		form.query = look_up_query(relid, snapshot);
	return form;
}

/* False if the snapshot sees no such schema. */
static bool
get_schema_name(Relation schemas, Oid schema, Snapshot snapshot, NameData *name)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&key, Anum_pg_namespace_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(schema));
	scan = systable_beginscan(schemas, NamespaceOidIndexId, true, snapshot, 1,
							  &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		*name = ((Form_pg_namespace) GETSTRUCT(tuple))->nspname;
	systable_endscan(scan);
	return found;
}

bool
dmu_relforms_find_renamed(DmuRelforms *forms)
{
	Relation	schemas = table_open(NamespaceRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(schemas, InvalidOid, false,
										  forms->latest, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_namespace row = (Form_pg_namespace) GETSTRUCT(tuple);
		NameData	before;

		if (get_schema_name(schemas, row->oid, forms->ours, &before) &&
			strcmp(NameStr(before), NameStr(row->nspname)) != 0)
			forms->renamed = lappend_oid(forms->renamed, row->oid);
	}
	systable_endscan(scan);
	table_close(schemas, AccessShareLock);
	return forms->renamed != NIL;
}

bool
dmu_relforms_differ(const DmuRelforms *forms, const DmuRelform *before,
					const DmuRelform *after)
{
	return !before->exists ||
		list_member_oid(forms->renamed, after->schema) ||
		before->relfilenode != after->relfilenode ||
		before->query != after->query ||
		before->schema != after->schema ||
		strcmp(NameStr(before->name), NameStr(after->name)) != 0 ||
		!equal(before->parents, after->parents);
}
