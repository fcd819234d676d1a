/*-------------------------------------------------------------------------
 *
 * record.c
 *		Writes down what became of a datamart user that was not refreshed.
 *
 *		For the worker that worked on it, and for the coordinator when that
 *		worker is gone.  Knows nothing of how a refresh is done.
 *
 *-------------------------------------------------------------------------
 */
#include "record.h"

#include "attempts.h"
#include "errors.h"
#include "failures.h"
#include "log.h"
#include "miscadmin.h"
#include "settings.h"
#include "transaction.h"
#include "trouble.h"

/* What is to be written down of whom. */
typedef struct Record
{
	DmuControl *control;
	int64		dimension_user_id;
	const DmuError *error;
	bool		nowait;			/* of a failure */
	bool		contention;		/* of a deferral: with a back-off */
	bool		settled;		/* the same: there is no second turn */

	/* Of those that were put off. */
	const int64 *ids;
	int			nids;
} Record;

static void
write_failure(const Record *record)
{
	const DmuControl *control = record->control;

	if (dmu_trouble_is_suspect(record->error->sqlerrcode))
		dmu_failures_keep_undo(control->request.users,
							   record->dimension_user_id,
							   control->head.cycle_id,
							   record->error->sqlerrcode);
	dmu_failures_record(control->request.users, control->request.users_name,
						record->dimension_user_id, control->head.cycle_id,
						record->error, dmu_retry_delay, dmu_retry_delay_max,
						record->nowait);
}

static void
write_deferral(const Record *record)
{
	const DmuControl *control = record->control;
	DmuAttempt	attempt = {
		.users = control->request.users,
		.users_name = control->request.users_name,
		.dimension_user_id = record->dimension_user_id,
		.cycle_id = control->head.cycle_id,
		.outcome = DMU_DEFERRED,
		.charged = record->contention,
		.error = record->error
	};

	if (record->contention)
		dmu_failures_defer(attempt.users, attempt.users_name,
						   attempt.dimension_user_id, attempt.cycle_id,
						   record->error, dmu_retry_delay);
	if (record->settled)
		dmu_attempts_add(&attempt);
}

static void
write_put_off(const Record *record)
{
	const DmuControl *control = record->control;

	dmu_attempts_add_put_off(control->request.users,
							 control->request.users_name,
							 control->head.cycle_id,
							 record->ids, record->nids);
}

/* "what" names it in the WARNING, and "detail" is what comes of that. */
static void
write_down(const Record *record, void (*write) (const Record *record),
		   const char *what, const char *detail)
{
	MemoryContext context = CurrentMemoryContext;
	DmuError   *second = palloc(sizeof(DmuError));
	uint32		held = QueryCancelHoldoffCount;

	PG_TRY();
	{
		dmu_transaction_begin();
		dmu_transaction_limit_waits();
		write(record);
		dmu_transaction_commit(context);
	}
	PG_CATCH();
	{
		dmu_error_catch(second, context);

		/* An error lets cancels in. */
		QueryCancelHoldoffCount = held;
		ereport(WARNING,
				(errcode(second->sqlerrcode),
				 errmsg("%s: could not record the %s: %s",
						dmu_log_cycle(), what, second->message),
				 errdetail_internal("%s", detail)));
	}
	PG_END_TRY();

	MemoryContextSwitchTo(context);
	pfree(second);
}

void
dmu_record_failure(DmuControl *control, int number, int64 dimension_user_id,
				   const DmuError *error, bool nowait)
{
	Record		record = {
		.control = control,
		.dimension_user_id = dimension_user_id,
		.error = error,
		.nowait = nowait
	};

	dmu_error_report(WARNING, error,
					 psprintf("%s: failed to process datamart user " INT64_FORMAT ": ",
							  dmu_log_worker(number), dimension_user_id));
	write_down(&record, write_failure,
			   psprintf("failure of datamart user " INT64_FORMAT,
						dimension_user_id),
			   "It will be tried again by the next cycle, without a delay.");
}

void
dmu_record_deferral(DmuControl *control, int64 dimension_user_id,
					const DmuError *error, bool contention, bool settled)
{
	Record		record = {
		.control = control,
		.dimension_user_id = dimension_user_id,
		.error = error,
		.contention = contention,
		.settled = settled
	};

	write_down(&record, write_deferral,
			   psprintf("contention of datamart user " INT64_FORMAT,
						dimension_user_id),
			   "It will be tried again by the next cycle, without a delay.");
}

void
dmu_record_put_off(DmuControl *control, const int64 *ids, int nids)
{
	Record		record = {
		.control = control,
		.ids = ids,
		.nids = nids
	};

	write_down(&record, write_put_off,
			   psprintf(ngettext("deferral of %d datamart user",
								 "deferral of %d datamart users", nids), nids),
			   "It is counted, but missing in datamart_users_attempts.");
}
