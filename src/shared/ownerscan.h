/*-------------------------------------------------------------------------
 *
 * ownerscan.h
 *		Rows of the extension's own tables, without SQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_OWNERSCAN_H
#define DMU_OWNERSCAN_H

#include "ownersql.h"
#include "utils/snapshot.h"

/* A column to read. */
typedef struct DmuOwnerColumn
{
	const char *name;
	Oid			type;
} DmuOwnerColumn;

/* "values" are the columns' and last as long as the call. */
typedef void (*DmuOwnerRowConsumer) (const Datum *values, void *arg);

/*
 * Hands on all rows of a table that belong to this users table, in no order,
 * but for those with a null in one of the columns.  The table is one that
 * dmu_owner_open() has opened, the snapshot is taken afterwards and
 * registered; children are not read.  "consume" must not look into the
 * database.
 */
extern void dmu_owner_scan(const DmuOwnerScope *scope, Relation table,
						   Snapshot snapshot, Oid users,
						   const DmuOwnerColumn *columns, int ncolumns,
						   DmuOwnerRowConsumer consume, void *arg);

#endif							/* DMU_OWNERSCAN_H */
