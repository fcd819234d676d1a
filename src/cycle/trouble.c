/*-------------------------------------------------------------------------
 *
 * trouble.c
 *		To whom an error of a refresh is charged: the datamart user, or nobody,
 *		because it would hit everybody.
 *
 *		A full disk or a revoked privilege makes every refresh fail.  Charged to
 *		each datamart user it would leave all of them with a back-off when the
 *		cause has gone.  Thirty renamed accounts at the head of the queue fail
 *		with one SQLSTATE, too, and must not end a cycle.  So after an error:
 *
 *		The warehouse and the privileges on it are looked at again, as at the
 *		beginning of the cycle.
 *
 *		What that does not show is suspected when several datamart users in a
 *		row fail with SQLSTATEs that can be everybody's, and no other one is
 *		refreshed between them.  Then some are tried from the other end of the
 *		queue.  If they fail likewise, the cycle ends with the last error, and
 *		the back-offs that were given out in that row, or before for the same
 *		SQLSTATE, are taken back; but not if the cycle before has ended
 *		in the same way, so that a few bad ones which are all of a short queue
 *		cannot block it for ever.
 *
 *-------------------------------------------------------------------------
 */
#include "trouble.h"

#include "cancel.h"
#include "errors.h"
#include "explain.h"
#include "failures.h"
#include "history.h"
#include "log.h"
#include "miscadmin.h"
#include "slot.h"
#include "stop.h"
#include "streak.h"
#include "transaction.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "warehouse.h"

/* As many such failures in a row are suspect. */
#define DMU_SUSPECT_FAILURES 3

/* As many more from the tail of the queue prove it. */
#define DMU_PROBES 3

/*
 * Classes of errors that come from the server's state, or from what all
 * refreshes share.  Of the others a procedure raises some itself, and the data
 * of one datamart user are the reason of the rest.
 */
static const int suspect_classes[] = {
	MAKE_SQLSTATE('0', '8', '0', '0', '0'), /* connection */
	MAKE_SQLSTATE('0', 'A', '0', '0', '0'), /* feature not supported */
	MAKE_SQLSTATE('2', '5', '0', '0', '0'), /* transaction state */
	MAKE_SQLSTATE('2', '6', '0', '0', '0'), /* prepared statement name */
	MAKE_SQLSTATE('2', '8', '0', '0', '0'), /* authorization */
	MAKE_SQLSTATE('2', 'D', '0', '0', '0'), /* transaction termination */
	MAKE_SQLSTATE('3', 'D', '0', '0', '0'), /* catalog name */
	MAKE_SQLSTATE('3', 'F', '0', '0', '0'), /* schema name */
	MAKE_SQLSTATE('4', '2', '0', '0', '0'), /* access rule, undefined object */
	MAKE_SQLSTATE('5', '3', '0', '0', '0'), /* resources */
	MAKE_SQLSTATE('5', '4', '0', '0', '0'), /* limits */
	MAKE_SQLSTATE('5', '5', '0', '0', '0'), /* prerequisite state */
	MAKE_SQLSTATE('5', '7', '0', '0', '0'), /* operator intervention */
	MAKE_SQLSTATE('5', '8', '0', '0', '0'), /* system */
	MAKE_SQLSTATE('F', '0', '0', '0', '0'), /* configuration file */
	MAKE_SQLSTATE('H', 'V', '0', '0', '0'), /* foreign data wrapper */
	MAKE_SQLSTATE('X', 'X', '0', '0', '0'), /* internal */
};

bool
dmu_trouble_is_suspect(int sqlerrcode)
{
	/*
	 * So says our own error where a flag does not stay cleared, and whoever
	 * has to mend the trigger wants to find the datamart users.
	 */
	if (sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		return false;

	for (int i = 0; i < (int) lengthof(suspect_classes); i++)
	{
		if (ERRCODE_TO_CATEGORY(sqlerrcode) == suspect_classes[i])
			return true;
	}
	return false;
}

/*
 * True if a cycle could not begin now; "error" is why.  An error in looking
 * is such an answer, too, but for a lock that could not be had.
 */
static bool
warehouse_is_unfit(DmuControl *control, DmuError *error)
{
	MemoryContext context = CurrentMemoryContext;
	DmuError   *second = palloc(sizeof(DmuError));
	uint32		held = QueryCancelHoldoffCount;
	volatile bool unfit = false;

	PG_TRY();
	{
		dmu_transaction_begin();
		dmu_transaction_limit_waits();
		dmu_warehouse_check_privileges(dmu_warehouse_resolve_again(control->request.users),
									   true);
		dmu_transaction_commit(context);
	}
	PG_CATCH();
	{
		dmu_error_catch(second, context);

		/* An error lets cancels in. */
		QueryCancelHoldoffCount = held;
		unfit = second->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			second->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED;
		if (unfit)
			*error = *second;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	pfree(second);
	return unfit;
}

static void
explain_streak(DmuError *error, const DmuStreak *streak)
{
	if (error->detail[0] == '\0')
		snprintf(error->detail, sizeof(error->detail),
				 "It, or others of its kind, hit %d datamart users in a row, wherever in the queue they stood, so it ended the cycle and is charged to none of them.",
				 streak->failures);
}

bool
dmu_trouble_ends_cycle(DmuControl *control, DmuError *error, bool probe)
{
	DmuStreak	streak;

	if (warehouse_is_unfit(control, error))
		return true;
	if (!dmu_trouble_is_suspect(error->sqlerrcode))
		return false;

	streak = dmu_queue_add_to_streak(control, error->sqlerrcode, probe);
	if (streak.failures < DMU_SUSPECT_FAILURES || streak.probes < DMU_PROBES)
		return false;
	explain_streak(error, &streak);
	return true;
}

bool
dmu_trouble_wants_probe(DmuControl *control)
{
	return dmu_queue_streak(control).failures >= DMU_SUSPECT_FAILURES;
}

/*
 * A queue that ran out before there were enough probes, and in which nobody
 * was refreshed.
 */
static void
judge_short_queue(DmuControl *control)
{
	DmuStreak	streak = dmu_queue_streak(control);
	MemoryContext context = CurrentMemoryContext;
	DmuError   *error;
	DmuTally	total;

	dmu_queue_tally(control, -1, &total);
	if (dmu_queue_stop(control) != DMU_STOP_NONE ||
		streak.failures < DMU_SUSPECT_FAILURES ||
		total.outcomes[DMU_PROCESSED] > 0)
		return;

	error = palloc(sizeof(DmuError));
	dmu_transaction_begin();
	dmu_transaction_limit_waits();
	dmu_failures_example(control->request.users, control->head.cycle_id,
						 streak.sqlerrcode, error);
	dmu_transaction_commit(context);
	explain_streak(error, &streak);
	dmu_queue_stop_with_error(control, DMU_STOP_FAILED, error);
	pfree(error);
}

/* Takes back what was given out for the error that ended the cycle. */
static void
take_back(DmuControl *control)
{
	MemoryContext context = CurrentMemoryContext;
	int			sqlerrcode = control->error.sqlerrcode;
	TimestampTz since = DT_NOEND;
	int			taken_back = 0;

	if (dmu_queue_streak(control).failures >= DMU_SUSPECT_FAILURES)
		since = (TimestampTz) pg_atomic_read_u64(&control->streak_since);

	dmu_transaction_begin();
	dmu_transaction_limit_waits();
	if (dmu_queue_stop(control) == DMU_STOP_FAILED &&
		dmu_history_previous_error(control->request.users,
								   control->head.cycle_id) != sqlerrcode)
		taken_back = dmu_failures_take_back(control->request.users,
											control->head.cycle_id,
											sqlerrcode, since);
	dmu_failures_forget_undo(control->request.users);
	dmu_transaction_commit(context);

	if (taken_back > 0)
		ereport(LOG,
				(errmsg_plural("%s: took back the back-off of %d datamart user",
							   "%s: took back the back-offs of %d datamart users",
							   taken_back, dmu_log_cycle(), taken_back),
				 DMU_LOG_ALONE,
				 errdetail_plural("It had failed with the error that ended the cycle, SQLSTATE %s, or in a row with it.",
								  "They had failed with the error that ended the cycle, SQLSTATE %s, or in a row with it.",
								  taken_back, unpack_sql_state(sqlerrcode))));
}

void
dmu_trouble_settle(DmuControl *control)
{
	MemoryContext context = CurrentMemoryContext;
	DmuError   *error;
	uint32		held = QueryCancelHoldoffCount;

	if (control->head.cycle_id == 0)
		return;

	error = palloc(sizeof(DmuError));
	PG_TRY();
	{
		judge_short_queue(control);
		take_back(control);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, context);
		QueryCancelHoldoffCount = held;
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("%s: could not judge its failures: %s",
						dmu_log_cycle(), error->message),
				 errdetail("Every datamart user that failed keeps its back-off."),
				 errhint("Mend the cause, then call datamart_users_retry().")));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	pfree(error);
}

void
dmu_trouble_take_cancel(DmuControl *control)
{
	int			sender;
	DmuError   *error;

	if (!dmu_cancel_take(&sender) ||
		dmu_queue_stop(control) >= DMU_STOP_CANCEL)
		return;

	error = palloc(sizeof(DmuError));
	dmu_explain_cancel(error, DMU_COORDINATOR_CANCELED, sender);
	dmu_queue_stop_with_error(control, DMU_STOP_ABORT, error);
	pfree(error);
}
