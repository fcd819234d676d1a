/*-------------------------------------------------------------------------
 *
 * explain.c
 *		What the author of a procedure, or who reads of it, should know of an
 *		error.
 *
 *		This file knows nothing of cycles and workers.
 *
 *-------------------------------------------------------------------------
 */
#include "explain.h"

#include "errors.h"
#include "miscadmin.h"
#include "settings.h"
#include "transaction.h"
#include "who.h"

void
dmu_explain_timeout(DmuError *error, DmuLimit limit, int call_limit)
{
	if (limit == DMU_LIMIT_USER)
		dmu_error_set(error, ERRCODE_QUERY_CANCELED,
					  "canceling refresh due to datamart_users.user_timeout",
					  psprintf("The limit for one datamart user is %d ms.",
							   dmu_user_timeout),
					  NULL);
	else
		dmu_error_set(error, ERRCODE_QUERY_CANCELED,
					  "canceling refresh due to statement_timeout",
					  psprintf("The limit for one CALL of the procedure is %d ms.",
							   call_limit),
					  NULL);
}

void
dmu_explain_failure(DmuError *error, DmuLimit out_of_time, int call_limit)
{
	if (out_of_time != DMU_LIMIT_NONE &&
		error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		dmu_explain_timeout(error, out_of_time, call_limit);
	else if (error->hint[0] != '\0')
		return;
	else if (error->sqlerrcode == ERRCODE_INVALID_TRANSACTION_TERMINATION)
		strlcpy(error->hint,
				"The procedure must not use COMMIT or ROLLBACK: it runs in the transaction that also clears the flag.",
				sizeof(error->hint));
	else if (error->sqlerrcode == ERRCODE_DUPLICATE_OBJECT)
		strlcpy(error->hint,
				"If this is about a connection of dblink: one that the procedure leaves open stays in its worker for the next datamart users.",
				sizeof(error->hint));
}

void
dmu_explain_cancel(DmuError *error, const char *what, int sender)
{
	MemoryContext context = CurrentMemoryContext;
	DmuError   *second = palloc(sizeof(DmuError));
	uint32		held = QueryCancelHoldoffCount;
	char	   *volatile who = NULL;

	PG_TRY();
	{
		dmu_transaction_begin();
		dmu_transaction_limit_waits();
		who = MemoryContextStrdup(context, dmu_who_is(sender));
		dmu_transaction_commit(context);
	}
	PG_CATCH();
	{
		dmu_error_catch(second, context);
		QueryCancelHoldoffCount = held;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	dmu_error_set(error, ERRCODE_QUERY_CANCELED,
				  psprintf("%s by %s", what,
						   who != NULL ? who : psprintf("process %d", sender)),
				  NULL, NULL);
	pfree(second);
}
