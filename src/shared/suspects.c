/*-------------------------------------------------------------------------
 *
 * suspects.c
 *		What workers were about to do when the server went down.
 *
 *		A datamart user that crashes the server leaves no failure behind, and
 *		would do so in every cycle.  After a crash, therefore, the workers of
 *		the next cycle write down durably whom they are about to refresh; if the
 *		server crashes again, those are the suspects, and get a failure each.
 *		Not those that need no refresh any more: a note may outlive it, because
 *		the worker had committed it and not yet gone on, or only the later of
 *		the two commits was lost.
 *
 *		This file knows neither warehouses nor shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "suspects.h"

#include "adopt.h"
#include "errors.h"
#include "executor/spi.h"
#include "failures.h"
#include "ownersql.h"
#include "transaction.h"

typedef struct Suspect
{
	int64		dimension_user_id;
	int64		cycle_id;
} Suspect;

void
dmu_suspects_note(Oid users, const char *users_name, int worker,
				  int64 dimension_user_id, int64 cycle_id)
{
	MemoryContext context = CurrentMemoryContext;
	DmuOwnerScope scope;

	dmu_transaction_begin();
	dmu_transaction_be_durable("local");
	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "INSERT INTO %s.datamart_users_suspects"
				  "  (users_oid, users_table, worker, dimension_user_id, cycle_id)"
				  " VALUES ($4, $5, $1, $2, $3)"
				  " ON CONFLICT (users_oid, worker) DO UPDATE"
				  "   SET dimension_user_id = excluded.dimension_user_id,"
				  "       cycle_id = excluded.cycle_id",
				  SPI_OK_INSERT,
				  DMU_PARAMS(dmu_param_int4(worker),
							 dmu_param_int8(dimension_user_id),
							 dmu_param_int8(cycle_id),
							 dmu_param_oid(users),
							 dmu_param_text(users_name)));
	dmu_owner_leave(&scope);
	dmu_transaction_commit(context);
}

void
dmu_suspects_forget(Oid users, int worker)
{
	MemoryContext context = CurrentMemoryContext;
	DmuOwnerScope scope;

	dmu_transaction_begin();
	dmu_transaction_limit_waits();
	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_suspects"
				  " WHERE users_oid = $1 AND worker = $2",
				  SPI_OK_DELETE,
				  DMU_PARAMS(dmu_param_oid(users),
							 dmu_param_int4(worker)));
	dmu_owner_leave(&scope);
	dmu_transaction_commit(context);
}

int
dmu_suspects_settle(Oid users, const char *users_name, bool crashed,
					int delay, int delay_max,
					DmuSuspectTest still_waits, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	DmuOwnerScope scope;
	Suspect    *suspects;
	int			nsuspects;
	int			charged = 0;
	DmuError	error;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_suspects s"
				  " WHERE s.users_oid = $1 OR (" DMU_ORPHANED("s") ")"
				  " RETURNING dimension_user_id, cycle_id",
				  SPI_OK_DELETE_RETURNING,
				  DMU_PARAMS(dmu_param_oid(users),
							 dmu_param_text(users_name)));
	nsuspects = crashed ? (int) SPI_processed : 0;
	suspects = MemoryContextAlloc(context, Max(nsuspects, 1) * sizeof(Suspect));
	for (int i = 0; i < nsuspects; i++)
	{
		suspects[i].dimension_user_id = DatumGetInt64(dmu_owner_value(SPI_tuptable, i, 1));
		suspects[i].cycle_id = DatumGetInt64(dmu_owner_value(SPI_tuptable, i, 2));
	}
	dmu_owner_leave(&scope);

	dmu_error_set(&error, ERRCODE_CRASH_SHUTDOWN,
				  "at work when the server went down, in the second cycle running",
				  NULL, NULL);
	for (int i = 0; i < nsuspects; i++)
	{
		if (!still_waits(suspects[i].dimension_user_id, arg))
			continue;
		dmu_failures_record(users, users_name, suspects[i].dimension_user_id,
							suspects[i].cycle_id, &error, delay, delay_max,
							false);
		charged++;
	}
	pfree(suspects);
	return charged;
}
