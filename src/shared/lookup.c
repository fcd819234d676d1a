/*-------------------------------------------------------------------------
 *
 * lookup.c
 *		One datamart user in the caller's tables.
 *
 *		An id that somebody has mistyped is told at once, and not by nothing
 *		happening; and whoever has no queue learns whether it waits, and how
 *		heavy it is.  Runs as the current role; knows no shared memory, and none
 *		of our own tables.
 *
 *-------------------------------------------------------------------------
 */
#include "lookup.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/snapmgr.h"

void
dmu_lookup_require(const DmuWarehouse *warehouse, int64 dimension_user_id)
{
	Oid			type = INT8OID;
	Datum		id = Int64GetDatum(dimension_user_id);
	bool		push_snapshot = !ActiveSnapshotSet();

	SPI_connect();
	if (push_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args(psprintf("SELECT FROM %s WHERE %s OPERATOR(pg_catalog.=) $1",
									   warehouse->users_name,
									   warehouse->users_key.quoted),
							  1, &type, &id, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for a datamart user");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no datamart user " INT64_FORMAT " in %s",
						dimension_user_id, warehouse->users_name),
				 errhint("datamart_users_queue() shows some that are modified.")));
	if (push_snapshot)
		PopActiveSnapshot();
	SPI_finish();
}

bool
dmu_lookup_is_flagged(const DmuWarehouse *warehouse, int64 dimension_user_id)
{
	Oid			type = INT8OID;
	Datum		id = Int64GetDatum(dimension_user_id);
	bool		flagged;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args(psprintf("SELECT FROM %s WHERE %s OPERATOR(pg_catalog.=) $1 AND %s",
									   warehouse->users_name,
									   warehouse->users_key.quoted,
									   warehouse->users_flag.quoted),
							  1, &type, &id, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look at the flag of a datamart user");
	flagged = SPI_processed > 0;
	PopActiveSnapshot();
	SPI_finish();
	return flagged;
}

int64
dmu_lookup_actions(const DmuWarehouse *warehouse, int64 dimension_user_id,
				   int64 limit)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(dimension_user_id), Int64GetDatum(limit)};
	bool		isnull;
	int64		actions;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args(psprintf("SELECT pg_catalog.count(*) FROM"
									   " (SELECT FROM %s WHERE %s OPERATOR(pg_catalog.=) $1 LIMIT $2) AS actions",
									   warehouse->facts_name,
									   warehouse->facts_user.quoted),
							  2, types, values, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not count the facts of a datamart user");
	actions = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, 1, &isnull));
	PopActiveSnapshot();
	SPI_finish();
	return actions;
}
