/*-------------------------------------------------------------------------
 *
 * park.c
 *		The SQL-callable functions that say who is held back from cycles.
 *
 *		Whoever may clear the flag of a datamart user may say whether cycles
 *		take it, and nobody else.  This file knows neither shared memory nor
 *		background workers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "adopt.h"
#include "failures.h"
#include "fmgr.h"
#include "lookup.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parked.h"
#include "utils/builtins.h"
#include "warehouse.h"

PG_FUNCTION_INFO_V1(datamart_users_park);
PG_FUNCTION_INFO_V1(datamart_users_retry);

/* The longest reason, characters: it is for a line of a list. */
#define MAX_REASON 1000

/* The datamart; its rows may stand under an oid of before a dump and restore. */
static DmuWarehouse *
resolve_datamart(void)
{
	DmuWarehouse *warehouse = dmu_warehouse_resolve_users();

	dmu_adopt_failures(warehouse->users, warehouse->users_name);
	return warehouse;
}

/* Who comes later wants to know why. */
static char *
get_reason(FunctionCallInfo fcinfo)
{
	char	   *reason;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("reason must not be null"),
				 errhint("Say in a few words why cycles are to leave the datamart user alone.")));

	reason = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (strspn(reason, " \t\r\n\f\v") == strlen(reason))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reason must not be empty"),
				 errhint("Say in a few words why cycles are to leave the datamart user alone.")));
	if (pg_mbstrlen(reason) > MAX_REASON)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reason must not be longer than %d characters",
						MAX_REASON),
				 errhint("Keep the details elsewhere, and say where that is.")));
	return reason;
}

Datum
datamart_users_park(PG_FUNCTION_ARGS)
{
	DmuWarehouse *warehouse;
	int64		id;
	char	   *reason;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("dimension_user_id must not be null"),
				 errhint("datamart_users_failures shows those that fail.")));
	id = PG_GETARG_INT64(0);
	reason = get_reason(fcinfo);
	warehouse = resolve_datamart();
	dmu_lookup_require(warehouse, id);
	PG_RETURN_BOOL(dmu_parked_add(warehouse->users, warehouse->users_name, id,
								  reason,
								  GetUserNameFromId(GetSessionUserId(), false)));
}

Datum
datamart_users_retry(PG_FUNCTION_ARGS)
{
	int64		id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	DmuWarehouse *warehouse = resolve_datamart();

	PG_RETURN_INT32(dmu_failures_retry(warehouse->users,
									   PG_ARGISNULL(0) ? NULL : &id));
}
