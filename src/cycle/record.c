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

#include "errors.h"
#include "failures.h"
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
	bool		nowait;
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
write_contention(const Record *record)
{
	const DmuControl *control = record->control;

	dmu_failures_defer(control->request.users, control->request.users_name,
					   record->dimension_user_id, control->head.cycle_id,
					   record->error, dmu_retry_delay);
}

/* "what" names it in the WARNING. */
static void
write_down(const Record *record, void (*write) (const Record *record),
		   const char *what)
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
				 errmsg("could not record the %s of datamart user " INT64_FORMAT ": %s",
						what, record->dimension_user_id, second->message),
				 errdetail("It will be tried again by the next cycle, without a delay.")));
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
					 psprintf("worker %d: failed to process datamart user " INT64_FORMAT ": ",
							  number, dimension_user_id));
	write_down(&record, write_failure, "failure");
}

void
dmu_record_contention(DmuControl *control, int64 dimension_user_id,
					  const DmuError *error)
{
	Record		record = {
		.control = control,
		.dimension_user_id = dimension_user_id,
		.error = error
	};

	write_down(&record, write_contention, "contention");
}
