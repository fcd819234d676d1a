/*-------------------------------------------------------------------------
 *
 * service.c
 *		The SQL-callable functions of a service: start, stop, see.
 *
 *		To start one takes what it takes to start a cycle; see api.c.
 *
 *-------------------------------------------------------------------------
 */
#include "api.h"

#include "context.h"
#include "cycle.h"
#include "miscadmin.h"
#include "param.h"
#include "progress.h"
#include "settings.h"
#include "source.h"
#include "stop.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(datamart_users_start_service);
PG_FUNCTION_INFO_V1(datamart_users_stop_service);

/* Between two looks, milliseconds. */
#define DMU_POLL_MIN 10
#define DMU_POLL_MAX 3600000
#define DMU_POLL_DEFAULT 1000

/*
 * What a look puts into the queue at the most, datamart users; the rest has its
 * turn when it has become the most relevant.
 */
#define DMU_LOOK_USERS 100000

Datum
datamart_users_start_service(PG_FUNCTION_ARGS)
{
	DmuRequest	request;
	const DmuWarehouse *warehouse;

	memset(&request, 0, sizeof(request));
	request.workers =
		dmu_settings_worker_target(dmu_api_int_arg(fcinfo, 0, "max_workers",
												   DMU_MAX_WORKERS, 0));
	request.poll = dmu_api_interval_arg(fcinfo, 1, "poll", DMU_POLL_DEFAULT);
	if (request.poll < DMU_POLL_MIN || request.poll > DMU_POLL_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("poll must be between 10 milliseconds and 1 hour"),
				 errhint("Leave it out, or pass NULL, for the default of 1 second.")));
	request.max_users = DMU_LOOK_USERS;
	request.function = fcinfo->flinfo->fn_oid;
	dmu_context_check("datamart_users_start_service()");
	warehouse = dmu_api_check_warehouse();
	request.users = warehouse->users;
	strlcpy(request.users_name, warehouse->users_name,
			sizeof(request.users_name));
	PG_RETURN_BOOL(dmu_cycle_start_service(&request));
}

Datum
datamart_users_stop_service(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(dmu_cycle_stop_service(dmu_warehouse_find_users(),
										  dmu_api_interval_arg(fcinfo, 0, "timeout", -1)));
}

static const char *
state_name(DmuControl *control)
{
	if (dmu_queue_stop(control) != DMU_STOP_NONE)
		return "stopping";
	return control->head.cycle_id != 0 ? "working" : "idle";
}

static void
put_service(DmuRows *rows, DmuControl *control)
{
	DmuServiceState *service = &control->service;
	int64		cycle_id = control->head.cycle_id;
	Datum		values[13];
	bool		nulls[13] = {false};

	values[0] = Int32GetDatum((int32) control->head.coordinator_pid);
	values[1] = CStringGetTextDatum(control->request.users_name);
	values[2] = NameGetDatum(&control->role_name);
	values[3] = TimestampTzGetDatum(service->since);
	values[4] = dmu_interval(control->request.poll * 1000);
	values[5] = Int32GetDatum(control->request.workers);
	values[6] = Int32GetDatum((int32) pg_atomic_read_u32(&control->workers_registered));
	values[7] = CStringGetTextDatum(state_name(control));
	values[8] = Int64GetDatum(cycle_id);
	nulls[8] = (cycle_id == 0);
	values[9] = Int64GetDatum((int64) pg_atomic_read_u64(&service->cycles));
	values[10] = Int64GetDatum((int64) pg_atomic_read_u64(&service->looks));
	values[11] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&service->looked_at));
	values[12] = dmu_interval((int64) pg_atomic_read_u64(&service->look_usec));
	dmu_source_put(rows, lengthof(values), values, nulls);
}

void
dmu_service_rows(DmuRows *rows)
{
	DmuProgressScan scan;
	DmuControl *control;

	dmu_progress_begin(&scan);
	while ((control = dmu_progress_next_service(&scan)) != NULL)
		put_service(rows, control);
	dmu_progress_end(&scan);
}
