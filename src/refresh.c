/*-------------------------------------------------------------------------
 *
 * refresh.c
 *		One datamart user, one transaction: is it still modified, CALL, clear
 *		the flag, commit.
 *
 *		The transaction is REPEATABLE READ.  All statements of the procedure
 *		read one snapshot, so no row is torn; and if another transaction has
 *		touched the datamart user's row since that snapshot, our update of the
 *		flag raises 40001 instead of overwriting a flag that was set for facts
 *		we have not seen.  The ETL meanwhile waits for nothing but the last
 *		update and the commit.
 *
 *		Whoever collides starts again at once.  The last attempt locks the row
 *		before it calls the procedure, so that an ETL that touches the row all
 *		the time cannot keep it from being refreshed; only then may the ETL
 *		wait for a whole refresh.
 *
 *		This file knows no queue, no history and no shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "refresh.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "errors.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "session.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Attempts for one datamart user; the last one locks first. */
#define DMU_ATTEMPTS 3

/*
 * Tries to lock the row, in the last attempt.  Each waits behind one other
 * transaction at the most, and has cost no CALL when it fails.
 */
#define DMU_LOCK_ATTEMPTS 10

/*
 * How long we wait for a row lock of the users table, milliseconds.  A
 * transaction that holds one has usually updated the row, and its commit will
 * raise 40001 however long we wait; meanwhile others could be refreshed.
 */
#define DMU_LOCK_WAIT 1000

struct DmuRefresher
{
	const DmuWarehouse *warehouse;
	SPIPlanPtr	check;			/* is it modified? */
	SPIPlanPtr	lock;			/* the same, and locks the row */
	SPIPlanPtr	call;
	SPIPlanPtr	clear;
	MemoryContext context;
	char		statement[NAMEDATALEN * 4 + 64];
};

/* How far the attempts for one datamart user have got. */
typedef struct Attempts
{
	bool		lock_first;		/* this is the last one */
	int			calls;			/* without the lock, that collided */
	int			locks;			/* tries to get the lock, that collided */
} Attempts;

static SPIPlanPtr
prepare(const char *sql, Oid argtype)
{
	SPIPlanPtr	plan = SPI_prepare(sql, 1, &argtype);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql,
			 SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep plan of \"%s\"", sql);
	return plan;
}

DmuRefresher *
dmu_refresh_prepare(const DmuWarehouse *warehouse)
{
	DmuRefresher *refresher = MemoryContextAllocZero(TopMemoryContext,
													 sizeof(DmuRefresher));

	refresher->warehouse = warehouse;
	refresher->context = AllocSetContextCreate(TopMemoryContext,
											   "datamart_users refresh",
											   ALLOCSET_DEFAULT_SIZES);

	/*
	 * The operator is qualified because these run with the caller's
	 * search_path, as the procedure must.
	 */
	SPI_connect();
	refresher->check =
		prepare(psprintf("SELECT %s FROM %s WHERE %s OPERATOR(pg_catalog.=) $1",
						 DMU_COL_MODIFIED, warehouse->users_name,
						 DMU_COL_USER_KEY), INT8OID);
	refresher->lock =
		prepare(psprintf("SELECT %s FROM %s WHERE %s OPERATOR(pg_catalog.=) $1"
						 " FOR NO KEY UPDATE",
						 DMU_COL_MODIFIED, warehouse->users_name,
						 DMU_COL_USER_KEY), INT8OID);
	refresher->call =
		prepare(psprintf("CALL %s($1)", warehouse->procedure_name),
				warehouse->procedure_argtype);
	refresher->clear =
		prepare(psprintf("UPDATE %s SET %s = FALSE"
						 " WHERE %s OPERATOR(pg_catalog.=) $1",
						 warehouse->users_name, DMU_COL_MODIFIED,
						 DMU_COL_USER_KEY), INT8OID);
	SPI_finish();
	return refresher;
}

const char *
dmu_refresh_statement(DmuRefresher *refresher, int64 dimension_user_id)
{
	snprintf(refresher->statement, sizeof(refresher->statement),
			 "CALL %s(" INT64_FORMAT ")",
			 refresher->warehouse->procedure_name, dimension_user_id);
	return refresher->statement;
}

/*
 * A transaction block rather than a bare transaction command: a distributed
 * table behind the users table (Citus) would else commit its part by itself.
 */
static void
begin_transaction(const DmuWarehouse *warehouse)
{
	dmu_session_begin();
	XactIsoLevel = XACT_REPEATABLE_READ;
	BeginTransactionBlock();
	CommitTransactionCommand();
	StartTransactionCommand();

	/*
	 * Before the snapshot: to one that is older than a rewrite by ALTER
	 * TABLE, the table is empty.
	 */
	dmu_warehouse_lock(warehouse);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
commit_transaction(const DmuRefresher *refresher)
{
	PopActiveSnapshot();
	SPI_finish();
	EndTransactionBlock(false);
	dmu_session_commit(refresher->context);
}

static uint64
execute(SPIPlanPtr plan, Datum argument, int expected)
{
	int			result = SPI_execute_plan(plan, &argument, NULL, false, 0);

	if (result != expected)
		elog(ERROR, "unexpected result %s of a statement of a refresh",
			 SPI_result_code_string(result));
	return SPI_processed;
}

/*
 * From here to AtEOXact_GUC() with its result, no lock is waited for longer
 * than DMU_LOCK_WAIT; the caller may have asked for less.
 */
static int
begin_short_waits(void)
{
	int			guc_level = NewGUCNestLevel();

	if (LockTimeout == 0 || LockTimeout > DMU_LOCK_WAIT)
		(void) set_config_option("lock_timeout", CppAsString2(DMU_LOCK_WAIT),
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return guc_level;
}

/* True if the statement just executed returned a row with a true flag. */
static bool
is_modified(void)
{
	bool		modified = false;

	for (uint64 i = 0; i < SPI_processed && !modified; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[i],
										  SPI_tuptable->tupdesc, 1, &isnull);

		modified = !isnull && DatumGetBool(value);
	}
	SPI_freetuptable(SPI_tuptable);
	return modified;
}

static Datum
procedure_argument(const DmuRefresher *refresher, int64 dimension_user_id)
{
	if (refresher->warehouse->procedure_argtype == INT8OID)
		return Int64GetDatum(dimension_user_id);

	if (dimension_user_id < PG_INT32_MIN || dimension_user_id > PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("datamart user " INT64_FORMAT " is out of range for the integer argument of procedure %s",
						dimension_user_id,
						refresher->warehouse->procedure_name),
				 errhint("Give the procedure an argument of type bigint.")));
	return Int32GetDatum((int32) dimension_user_id);
}

/*
 * Opens the transaction and finds out whether there is anything to do.  With
 * lock_first the row is ours until commit.
 */
static bool
open_and_check(DmuRefresher *refresher, int64 dimension_user_id,
			   bool lock_first)
{
	begin_transaction(refresher->warehouse);
	if (lock_first)
	{
		int			guc_level = begin_short_waits();

		execute(refresher->lock, Int64GetDatum(dimension_user_id),
				SPI_OK_SELECT);
		AtEOXact_GUC(false, guc_level);
	}
	else
		execute(refresher->check, Int64GetDatum(dimension_user_id),
				SPI_OK_SELECT);
	return is_modified();
}

/* The rest of the transaction. */
static void
refresh_and_commit(DmuRefresher *refresher, int64 dimension_user_id,
				   DmuBeforeClear before_clear)
{
	int			guc_level;

	execute(refresher->call, procedure_argument(refresher, dimension_user_id),
			SPI_OK_UTILITY);

	guc_level = begin_short_waits();

	/* It may wait, so before we have the row that the ETL wants. */
	if (before_clear != NULL)
		before_clear(dimension_user_id);
	if (execute(refresher->clear, Int64GetDatum(dimension_user_id),
				SPI_OK_UPDATE) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("flag \"%s\" of datamart user " INT64_FORMAT " could not be cleared",
						DMU_COL_MODIFIED, dimension_user_id),
				 errdetail("The update of %s affected no row.",
						   refresher->warehouse->users_name),
				 errhint("Look for a row-level security policy, a trigger or a rule on the table, or whether the procedure deletes the row.")));
	AtEOXact_GUC(false, guc_level);
	commit_transaction(refresher);
}

static bool
is_collision(const DmuError *error)
{
	return error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

/*
 * One attempt.  "called" tells whether it got as far as the procedure.
 * Returns DMU_FAILED, with everything rolled back, on any error.
 */
static DmuOutcome
attempt(DmuRefresher *refresher, int64 dimension_user_id, bool lock_first,
		DmuBeforeClear before_clear, DmuError *error, bool *called)
{
	volatile DmuOutcome outcome = DMU_SKIPPED;
	volatile bool reached = false;

	PG_TRY();
	{
		if (open_and_check(refresher, dimension_user_id, lock_first))
		{
			reached = true;
			refresh_and_commit(refresher, dimension_user_id, before_clear);
			outcome = DMU_PROCESSED;
		}
		else
			commit_transaction(refresher);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, refresher->context);
		outcome = DMU_FAILED;
	}
	PG_END_TRY();

	*called = reached;
	return outcome;
}

/* After a collision: what the next attempt is to be, false for none. */
static bool
try_again(Attempts *attempts, const DmuError *error, bool called)
{
	/*
	 * A lock that somebody keeps will not be had by calling once more in
	 * vain: wait for it first, and if that does not help, leave it.
	 */
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
	{
		if (attempts->lock_first)
			return false;
		attempts->lock_first = true;
		return true;
	}

	/* To have lost the race for the lock has cost nothing. */
	if (attempts->lock_first)
		return !called && ++attempts->locks < DMU_LOCK_ATTEMPTS;

	attempts->lock_first = (++attempts->calls == DMU_ATTEMPTS - 1);
	return true;
}

DmuOutcome
dmu_refresh(DmuRefresher *refresher, int64 dimension_user_id,
			DmuBeforeClear before_clear, DmuError *error)
{
	MemoryContext old_context = MemoryContextSwitchTo(refresher->context);
	Attempts	attempts = {false, 0, 0};
	DmuOutcome	outcome;
	bool		called;

	do
	{
		outcome = attempt(refresher, dimension_user_id, attempts.lock_first,
						  before_clear, error, &called);
		MemoryContextReset(refresher->context);
		if (outcome != DMU_FAILED || !is_collision(error))
		{
			MemoryContextSwitchTo(old_context);
			return outcome;
		}
	} while (try_again(&attempts, error, called));

	MemoryContextSwitchTo(old_context);
	return DMU_DEFERRED;
}
