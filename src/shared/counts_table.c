/*-------------------------------------------------------------------------
 *
 * counts_table.c
 *		The table of counts, row by row.
 *
 *		It has no index, and is read and written without SQL: no trigger, rule
 *		or policy that somebody puts on it can run.  This file does not know what
 *		is in an entry.
 *
 *-------------------------------------------------------------------------
 */
#include "counts_table.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "extension.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/xid8.h"

static const Oid column_types[DMU_COUNTS_NCOLUMNS] = {
	OIDOID, OIDOID, INT8OID, XID8OID, BYTEAOID, BYTEAOID
};

/*
 * After that many xids a version is not compared any more.  Four times as many
 * have to pass before one comes again.
 */
#define XIDS_MAX INT64CONST(1000000000)

Relation
dmu_counts_open(LOCKMODE lockmode)
{
	Oid			schema = dmu_extension_schema(NULL);
	Oid			table = OidIsValid(schema) ?
	get_relname_relid("datamart_users_counts", schema) : InvalidOid;
	Relation	relation;
	bool		fits;

	if (!OidIsValid(table) || !ConditionalLockRelationOid(table, lockmode))
		return NULL;
	relation = try_relation_open(table, NoLock);
	if (relation == NULL)
		return NULL;

	/* What somebody has put there would not run, or miss what we write. */
	fits = relation->rd_rel->relkind == RELKIND_RELATION &&
		relation->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED &&
		relation->rd_rel->relam == HEAP_TABLE_AM_OID &&
		relation->trigdesc == NULL && relation->rd_rules == NULL &&
		!relation->rd_rel->relrowsecurity &&
		RelationGetIndexList(relation) == NIL &&
		RelationGetDescr(relation)->natts == DMU_COUNTS_NCOLUMNS;
	for (int i = 0; fits && i < DMU_COUNTS_NCOLUMNS; i++)
		fits = TupleDescAttr(RelationGetDescr(relation), i)->atttypid == column_types[i];
	if (!fits)
	{
		relation_close(relation, lockmode);
		return NULL;
	}
	return relation;
}

static bool
is_current(const DmuCounts *counts, FullTransactionId as_of,
		   const bytea *fingerprint)
{
	int64		age = (int64) (U64FromFullTransactionId(counts->as_of) -
							   U64FromFullTransactionId(as_of));

	/* Somebody else may have looked a moment after us. */
	return age > -XIDS_MAX && age < XIDS_MAX &&
		FullTransactionIdIsNormal(as_of) &&
		VARSIZE_ANY_EXHDR(fingerprint) == DMU_FINGERPRINT_LEN &&
		memcmp(VARDATA_ANY(fingerprint), counts->fingerprint,
			   DMU_FINGERPRINT_LEN) == 0;
}

bool
dmu_counts_next(const DmuCounts *counts, Relation relation, TableScanDesc scan,
				DmuCountChunk *chunk)
{
	HeapTuple	tuple = heap_getnext(scan, ForwardScanDirection);
	Datum		values[DMU_COUNTS_NCOLUMNS];
	bool		nulls[DMU_COUNTS_NCOLUMNS];

	if (tuple == NULL)
		return false;
	heap_deform_tuple(tuple, RelationGetDescr(relation), values, nulls);
	memset(chunk, 0, sizeof(*chunk));
	chunk->tid = tuple->t_self;
	for (int i = 0; i < DMU_COUNTS_NCOLUMNS; i++)
	{
		if (nulls[i])
			return true;
	}
	chunk->ours = DatumGetObjectId(values[DMU_COUNTS_USERS]) == counts->users &&
		DatumGetObjectId(values[DMU_COUNTS_FACTS]) == counts->facts;
	if (!chunk->ours)
	{
		/* Nobody will ask for those of a table that has gone. */
		chunk->ours = !SearchSysCacheExists1(RELOID, values[DMU_COUNTS_USERS]);
		return true;
	}
	chunk->run = DatumGetInt64(values[DMU_COUNTS_RUN]);
	chunk->entries = DatumGetByteaPP(values[DMU_COUNTS_ENTRIES]);
	chunk->n = VARSIZE_ANY_EXHDR(chunk->entries) / sizeof(DmuCount);
	chunk->valid = is_current(counts,
							  DatumGetFullTransactionId(values[DMU_COUNTS_AS_OF]),
							  DatumGetByteaPP(values[DMU_COUNTS_FINGERPRINT]));
	return true;
}
