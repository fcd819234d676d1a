/*-------------------------------------------------------------------------
 *
 * lookup.c
 *		One datamart user in the caller's users table.
 *
 *		An id that somebody has mistyped is told at once, and not by nothing
 *		happening.  Runs as the current role; knows no shared memory, and none
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
