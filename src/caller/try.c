/*-------------------------------------------------------------------------
 *
 * try.c
 *		The SQL-callable rehearsal: has one refresh done and rolled back.
 *
 *		The backend does none of the work, as with a cycle: a procedure may
 *		behave differently in a process of its own, and that is what is to be
 *		found out.  It waits as one that waits for a cycle does.  Whatever way
 *		the function is left, the process is told to stop.
 *
 *-------------------------------------------------------------------------
 */
#include "api.h"

#include "access/htup_details.h"
#include "context.h"
#include "errors.h"
#include "fmgr.h"
#include "funcapi.h"
#include "launch.h"
#include "miscadmin.h"
#include "param.h"
#include "pgstat.h"
#include "queue.h"
#include "settings.h"
#include "stop.h"
#include "storage/latch.h"
#include "timers.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "watch.h"

PG_FUNCTION_INFO_V1(datamart_users_try);

/* How often it looks at the process, milliseconds, though that wakes it. */
#define DMU_POLL_INTERVAL 100

/* How long a canceled backend waits for the process to roll back. */
#define DMU_CANCEL_WAIT (DMU_CANCEL_GRACE + 2000)

/* on_dsm_detach callback. */
static void
leave(dsm_segment *seg, Datum arg)
{
	dmu_queue_request_stop((DmuControl *) DatumGetPointer(arg), DMU_STOP_CANCEL);
}

/* Makes segment and process; the segment is of the current resource owner. */
static DmuControl *
launch(const DmuWarehouse *warehouse, const int64 *id, dsm_segment **seg,
	   BackgroundWorkerHandle **process)
{
	Size		session_size = dmu_launch_session_size();
	DmuControl *control;

	*seg = dmu_queue_create(1, session_size);
	control = dmu_queue_control(*seg);
	control->request.users = warehouse->users;
	strlcpy(control->request.users_name, warehouse->users_name,
			sizeof(control->request.users_name));
	control->rehearsal.wanted = (id != NULL);
	control->rehearsal.dimension_user_id = id != NULL ? *id : 0;
	dmu_launch_save_session(control, session_size);

	if (!dmu_launch_register(dsm_segment_handle(*seg), DMU_REHEARSAL, process))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no background worker process is free for a rehearsal of datamart_users"),
				 errhint("You might need to increase max_worker_processes (now %d), of which parallel queries and other extensions take their share.",
						 max_worker_processes)));
	on_dsm_detach(*seg, leave, PointerGetDatum(control));
	return control;
}

static bool
has_stopped(BackgroundWorkerHandle *process)
{
	pid_t		pid;
	BgwHandleStatus status = GetBackgroundWorkerPid(process, &pid);

	return status == BGWH_STOPPED || status == BGWH_POSTMASTER_DIED;
}

static void
sleep_on_latch(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 DMU_POLL_INTERVAL, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/* This backend gives up; the process gets the time to roll back. */
static void
abandon(DmuControl *control, BackgroundWorkerHandle *process)
{
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz woken = 0;

	dmu_queue_request_stop(control, DMU_STOP_CANCEL);
	HOLD_INTERRUPTS();
	while (!has_stopped(process) &&
		   !TimestampDifferenceExceeds(start, GetCurrentTimestamp(),
									   DMU_CANCEL_WAIT))
	{
		sleep_on_latch();
		dmu_queue_wake_again(&control->head, &woken);
	}
	RESUME_INTERRUPTS();
}

static void
wait_for_end(DmuControl *control, BackgroundWorkerHandle *process)
{
	DmuWatch	watch;

	dmu_watch_begin(&watch);
	PG_TRY();
	{
		while (!has_stopped(process))
		{
			dmu_watch_look(&watch, control);
			sleep_on_latch();
			CHECK_FOR_INTERRUPTS();
		}
	}
	PG_CATCH();
	{
		abandon(control, process);
		PG_RE_THROW();
	}
	PG_END_TRY();
	dmu_watch_end(&watch);
}

static void
raise_unfinished(DmuControl *control)
{
	dmu_launch_raise_not_started(control);
	ereport(ERROR,
			(errcode(ERRCODE_ADMIN_SHUTDOWN),
			 errmsg("the process of the rehearsal was terminated"),
			 errdetail("What it had done is rolled back."),
			 errhint("The server log tells more.")));
}

/* What is to be said of a refresh that was not needed. */
static void
explain_skipped(const DmuControl *control, DmuError *error)
{
	const DmuRehearsal *rehearsal = &control->rehearsal;

	if (rehearsal->tried)
		dmu_error_set(error, 0,
					  psprintf("datamart user " INT64_FORMAT " is not modified",
							   rehearsal->dimension_user_id),
					  "A cycle leaves it alone, so the procedure was not called.",
					  "Set its flag, or choose one of datamart_users_queue().");
	else
		dmu_error_set(error, 0,
					  psprintf("no datamart user of %s waits for a refresh",
							   control->request.users_name),
					  rehearsal->nparked != 0 ?
					  psprintf("Held by back-off: " INT64_FORMAT ", parked: " INT64_FORMAT ".",
							   rehearsal->nheld, rehearsal->nparked) :
					  rehearsal->nheld == 0 ? NULL :
					  psprintf("Held by back-off: " INT64_FORMAT ".",
							   rehearsal->nheld),
					  rehearsal->nheld == 0 && rehearsal->nparked == 0 ?
					  "Set the flag of one of them, and try again." :
					  rehearsal->nheld == 0 ?
					  "Give the id of one of datamart_users_parked." :
					  "Give the id of one of datamart_users_failures, or call datamart_users_retry().");
}

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text[0] == '\0';
	return *isnull ? (Datum) 0 : CStringGetTextDatum(text);
}

static Datum
make_row(FunctionCallInfo fcinfo, const DmuControl *control)
{
	const DmuRehearsal *rehearsal = &control->rehearsal;
	DmuOutcome	outcome = rehearsal->tried ? rehearsal->outcome : DMU_SKIPPED;
	DmuError   *error = palloc(sizeof(DmuError));
	TupleDesc	tupdesc;
	Datum		values[8];
	bool		nulls[8] = {false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	*error = control->error;
	if (outcome == DMU_SKIPPED)
		explain_skipped(control, error);
	else if (outcome == DMU_PROCESSED && rehearsal->planned_alone)
		dmu_error_set(error, 0, "", psprintf("Its statements were planned for it alone, as it has more than %d actions.",
											 dmu_custom_plan_actions), NULL);
	values[0] = Int64GetDatum(rehearsal->dimension_user_id);
	nulls[0] = !rehearsal->tried;
	values[1] = CStringGetTextDatum(dmu_outcome_name(outcome));
	values[2] = dmu_interval(rehearsal->usec);
	nulls[2] = !rehearsal->tried;
	nulls[3] = error->sqlerrcode == 0;
	values[3] = nulls[3] ? (Datum) 0 :
		CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[4] = text_or_null(error->message, &nulls[4]);
	values[5] = text_or_null(error->detail, &nulls[5]);
	values[6] = text_or_null(error->hint, &nulls[6]);
	values[7] = text_or_null(error->context, &nulls[7]);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
											 values, nulls));
}

Datum
datamart_users_try(PG_FUNCTION_ARGS)
{
	int64		id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	BackgroundWorkerHandle *process;
	dsm_segment *seg;
	DmuControl *control;
	Datum		row;

	dmu_context_check("datamart_users_try()");
	control = launch(dmu_api_check_warehouse(),
					 PG_ARGISNULL(0) ? NULL : &id, &seg, &process);
	wait_for_end(control, process);

	if (dmu_queue_phase(control) != DMU_PHASE_FINISHED)
		raise_unfinished(control);
	if (!control->rehearsal.tried && control->error.sqlerrcode != 0)
		dmu_error_raise(&control->error);
	row = make_row(fcinfo, control);
	dsm_detach(seg);
	return row;
}
