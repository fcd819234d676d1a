/*-------------------------------------------------------------------------
 *
 * counts_fingerprint.c
 *		Whether counts of facts can be remembered, and of which facts they are.
 *
 *		What a count depends on beside the rows that the ETL writes is in the
 *		catalogs: which relations the facts are stored in, in which files, and
 *		which columns are meant.  All of that goes into one checksum.  TRUNCATE,
 *		and a partition that comes, goes, or comes again, change it.
 *
 *		Row versions tell nothing of what a view or another server shows, and
 *		what a policy hides is different for every role.
 *
 *		This file reads catalogs only, and locks nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "counts.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/extension.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* To be raised whenever DmuCount or what it means changes. */
#define FORMAT 2

/*
 * A cluster whose xids were set back may use one again for another version of
 * a row; and a copy of it goes its own way.  Neither can happen to a server
 * that runs.
 */
static void
add_server(StringInfo text)
{
	appendStringInfo(text, "%d %zu " INT64_FORMAT "\n", FORMAT, sizeof(DmuCount),
					 (int64) PgStartTime);
}

/* A name can be given to another column. */
static void
add_column(StringInfo text, Oid relation, const DmuColumn *column)
{
	AttrNumber	attnum = get_attnum(relation, column->name);

	appendStringInfo(text, " %d:%u", attnum,
					 attnum == InvalidAttrNumber ? InvalidOid : get_atttype(relation, attnum));
}

/*
 * How it has become a child: one that was taken away, changed and put back has
 * another row there.
 */
static void
add_parents(StringInfo text, Oid relation)
{
	Relation	inherits = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relation));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		appendStringInfo(text, " <%u:%u",
						 ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent,
						 HeapTupleHeaderGetRawXmin(tuple->t_data));
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);
}

/*
 * Adds a relation if its rows have versions, or, "as_source", if it is one of
 * the tables here that facts can be in; false if not.
 */
static bool
add_relation(StringInfo text, const DmuWarehouse *warehouse, Oid relation,
			 bool as_source)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Form_pg_class form;
	bool		fits;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_class) GETSTRUCT(tuple);
	fits = form->relkind == RELKIND_PARTITIONED_TABLE ||
		(form->relkind == RELKIND_RELATION &&
		 (as_source || form->relam == HEAP_TABLE_AM_OID));
	if (as_source)
		appendStringInfo(text, "%u %u %u", relation, form->reltablespace,
						 form->relfilenode);
	ReleaseSysCache(tuple);
	if (!fits || !as_source)
		return fits;

	add_column(text, relation, &warehouse->facts_user);
	add_column(text, relation, &warehouse->facts_time);
	add_parents(text, relation);
	appendStringInfoChar(text, '\n');
	return true;
}

static bool
add_tree(StringInfo text, const DmuWarehouse *warehouse, Oid root,
		 bool as_source)
{
	List	   *relations = find_all_inheritors(root, NoLock, NULL);
	ListCell   *lc;

	foreach(lc, relations)
	{
		if (!add_relation(text, warehouse, lfirst_oid(lc), as_source))
			return false;
	}
	list_free(relations);
	return true;
}

bool
dmu_counts_fingerprint(const DmuWarehouse *warehouse,
					   uint8 fingerprint[DMU_FINGERPRINT_LEN])
{
	StringInfoData text;
	pg_cryptohash_ctx *context;
	bool		done;

	StaticAssertStmt(DMU_FINGERPRINT_LEN == PG_SHA256_DIGEST_LENGTH,
					 "the checksum fills the fingerprint");

	/* Without a lock, nobody else has brought the caches up to date. */
	AcceptInvalidationMessages();
	if (check_enable_rls(warehouse->users, InvalidOid, true) == RLS_ENABLED ||
		check_enable_rls(warehouse->facts, InvalidOid, true) == RLS_ENABLED)
		return false;

	initStringInfo(&text);
	add_server(&text);
	appendStringInfo(&text, "%u %u", warehouse->users, warehouse->facts);
	add_column(&text, warehouse->users, &warehouse->users_key);
	appendStringInfoChar(&text, '\n');
	if (!add_tree(&text, warehouse, warehouse->users, false) ||
		!add_tree(&text, warehouse, warehouse->facts, true))
	{
		pfree(text.data);
		return false;
	}

	context = pg_cryptohash_create(PG_SHA256);
	done = context != NULL && pg_cryptohash_init(context) >= 0 &&
		pg_cryptohash_update(context, (uint8 *) text.data, text.len) >= 0 &&
		pg_cryptohash_final(context, fingerprint, DMU_FINGERPRINT_LEN) >= 0;
	pg_cryptohash_free(context);
	pfree(text.data);
	return done;
}

DmuCounts  *
dmu_counts_begin(const DmuWarehouse *warehouse)
{
	DmuCounts  *counts;

	/*
	 * A standby cannot read the table.  A transaction that has written may
	 * have added facts for a row that it has yet to change.  Under Citus the
	 * rows are elsewhere, and no catalog of this server tells their versions.
	 * To read what tells a version takes the privilege on the whole table.
	 */
	if (RecoveryInProgress() ||
		TransactionIdIsValid(GetTopTransactionIdIfAny()) ||
		pg_class_aclcheck(warehouse->users, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		OidIsValid(get_extension_oid("citus", true)))
		return NULL;

	counts = palloc0(sizeof(DmuCounts));
	if (!dmu_counts_fingerprint(warehouse, counts->fingerprint))
	{
		pfree(counts);
		return NULL;
	}
	counts->users = warehouse->users;
	counts->facts = warehouse->facts;
	counts->as_of = ReadNextFullTransactionId();
	return counts;
}
