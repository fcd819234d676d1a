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
 * but for those with a null in one of the columns.  Sees what dmu_owner_run()
 * would see, waits and raises errors as it does.  "consume" must not
 * look into the database.
 */
extern void dmu_owner_scan(const DmuOwnerScope *scope, const char *table,
						   Oid users, const DmuOwnerColumn *columns,
						   int ncolumns, DmuOwnerRowConsumer consume,
						   void *arg);

#endif							/* DMU_OWNERSCAN_H */
