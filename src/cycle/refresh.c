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
 *		Two things escape the engine.  A relation that is emptied or rewritten
 *		looks empty to an older snapshot; rewrites.c finds out before the
 *		commit, and that is a collision as well.  And the users table itself may
 *		keep the flag; see flag.c.
 *
 *		Whoever collides starts again at once.  The last attempt locks the row
 *		before it calls the procedure, so that an ETL that touches the row all
 *		the time cannot keep it from being refreshed; only then may the ETL
 *		wait for a whole refresh.
 *
 *		A kept plan is the same for everybody, and saves the time of planning,
 *		which is most of a light refresh.  A heavy one gains more from plans
 *		that are made for its own numbers; so above a number of actions the
 *		procedure runs with such, and the kept ones stay for all others.
 *
 *		Every attempt begins in the session that the cycle began with;
 *		residue.c takes away what the one before has left there.
 *
 *		This file knows no queue, no history and no shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "refresh.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "directory.h"
#include "errors.h"
#include "miscadmin.h"
#include "prepared.h"
#include "procedure.h"
#include "residue.h"
#include "rewrites.h"
#include "settings.h"
#include "storage/proc.h"
#include "timers.h"
#include "transaction.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

/* Attempts for one datamart user; the last one locks first. */
#define DMU_ATTEMPTS 3

/*
 * Tries to lock the row, in the last attempt.  Each waits behind one other
 * transaction at the most, and has cost no CALL when it fails.
 */
#define DMU_LOCK_ATTEMPTS 10

/* How the server begins where two transactions change one row of a catalog. */
#define CONCURRENT_DDL "tuple concurrently "

struct DmuRefresher
{
	const DmuWarehouse *warehouse;
	DmuFlag    *flag;
	SPIPlanPtr	call;
	DmuStage	stage;
	bool		rehearsal;		/* nothing is committed */
	bool		keep_plans;		/* by worker_settings, see settings.h */
	uint32		actions;		/* of the datamart user at work */
	bool		planned_alone;	/* the last CALL was */
	int			procedure_timeout;	/* its own statement_timeout, or -1 */
	int			call_limit;		/* of the last CALL, milliseconds; 0 = none */
	MemoryContext context;
	char		statement[DMU_QUALIFIED_NAME_LEN + 64];
	int			statement_id_at;	/* where its argument begins */
};

/* How far the attempts for one datamart user have got. */
typedef struct Attempts
{
	bool		lock_first;		/* this is the last one */
	int			calls;			/* without the lock, that collided */
	int			locks;			/* tries to get the lock, that collided */
	int			rewrites;		/* that met a relation rewritten under them */
	int			doubtful;		/* that may have collided */
} Attempts;

/* True in the transaction of a refresh. */
static bool refreshing = false;

/* XactCallback. */
static void
transaction_ends(XactEvent event, void *arg)
{
	if (!refreshing)
		return;
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		/* Deferred triggers have run, and cursors WITH HOLD: all is read. */
		dmu_rewrites_check();
		dmu_residue_undo();
	}
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
	{
		dmu_directory_drop_advisory_locks();
		refreshing = false;
	}
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(transaction_ends, NULL);
	registered = true;
	dmu_rewrites_init();
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
	refresher->statement_id_at =
		snprintf(refresher->statement, sizeof(refresher->statement), "CALL %s(",
				 warehouse->procedure_name);
	refresher->keep_plans = dmu_settings_keep_plans();
	register_callbacks();

	SPI_connect();
	refresher->flag = dmu_flag_prepare(warehouse);
	refresher->call =
		dmu_prepared_make(psprintf("CALL %s($1)", warehouse->procedure_name),
						  warehouse->procedure_argtype);
	refresher->procedure_timeout =
		dmu_procedure_statement_timeout(warehouse->procedure);
	SPI_finish();
	return refresher;
}

void
dmu_refresh_free(DmuRefresher *refresher)
{
	dmu_flag_free(refresher->flag);
	SPI_freeplan(refresher->call);
	MemoryContextDelete(refresher->context);
	pfree(refresher);
}

void
dmu_refresh_rehearse(DmuRefresher *refresher)
{
	refresher->rehearsal = true;
}

const char *
dmu_refresh_statement(DmuRefresher *refresher, int64 dimension_user_id)
{
	char	   *argument = refresher->statement + refresher->statement_id_at;
	int			length = pg_lltoa(dimension_user_id, argument);

	argument[length] = ')';
	argument[length + 1] = '\0';
	return refresher->statement;
}

/*
 * A transaction block rather than a bare transaction command: a distributed
 * table behind the users table (Citus) would else commit its part by itself.
 */
static void
begin_transaction(const DmuWarehouse *warehouse)
{
	dmu_transaction_begin();
	XactIsoLevel = XACT_REPEATABLE_READ;
	BeginTransactionBlock();
	CommitTransactionCommand();
	StartTransactionCommand();
	refreshing = true;
	dmu_residue_begin();

	/*
	 * Before the snapshot: to one that is older than a rewrite by ALTER
	 * TABLE, the table is empty.
	 */
	dmu_warehouse_lock(warehouse);
	dmu_rewrites_begin();
	dmu_rewrites_listen();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

/*
 * Does what a commit would do up to where it can fail for the refresh, in that
 * order, and rolls back.  Not a commit with an error at its end: libraries that
 * work in other servers commit there first.
 */
static void
rehearse_commit(const DmuRefresher *refresher)
{
	do
	{
		CHECK_FOR_INTERRUPTS();
		AfterTriggerFireDeferred();
	} while (PreCommit_Portals(false));
	dmu_rewrites_check();
	dmu_residue_undo();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(refresher->context);
}

static void
end_transaction(const DmuRefresher *refresher)
{
	PopActiveSnapshot();
	SPI_finish();
	if (refresher->rehearsal)
	{
		rehearse_commit(refresher);
		return;
	}
	EndTransactionBlock(false);
	dmu_transaction_commit(refresher->context);
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
	return lock_first ? dmu_flag_lock(refresher->flag, dimension_user_id) :
		dmu_flag_is_set(refresher->flag, dimension_user_id);
}

/*
 * The mode is read at every use of a kept plan, in whatever function, so none
 * is lost.  If somebody has chosen another mode, in worker_settings or on the
 * way here, that is left alone.
 */
static bool
wants_own_plans(const DmuRefresher *refresher)
{
	return dmu_custom_plan_actions > 0 &&
		refresher->actions > (uint32) dmu_custom_plan_actions &&
		refresher->keep_plans &&
		plan_cache_mode == PLAN_CACHE_MODE_FORCE_GENERIC_PLAN;
}

/*
 * From here to AtEOXact_GUC(true), which keeps what the procedure sets itself,
 * or to the end of the transaction.
 */
static int
begin_own_plans(void)
{
	int			guc_level = NewGUCNestLevel();

	(void) set_config_option("plan_cache_mode", "force_custom_plan",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	return guc_level;
}

/*
 * With the limit that a client's CALL would have.  What the procedure itself
 * sets meanwhile, other than by its SET clause, is for later statements.
 */
static void
call_procedure(DmuRefresher *refresher, int64 dimension_user_id)
{
	Datum		argument = procedure_argument(refresher, dimension_user_id);
	int			guc_level = 0;

	refresher->planned_alone = wants_own_plans(refresher);
	if (refresher->planned_alone)
		guc_level = begin_own_plans();
	refresher->call_limit = refresher->procedure_timeout >= 0 ?
		refresher->procedure_timeout : StatementTimeout;
	dmu_timers_begin_call(refresher->call_limit);
	dmu_prepared_run(refresher->call, argument, SPI_OK_UTILITY);
	dmu_timers_end_call();
	if (refresher->planned_alone)
		AtEOXact_GUC(true, guc_level);
}

/* The rest of the transaction. */
static void
refresh_and_commit(DmuRefresher *refresher, int64 dimension_user_id,
				   DmuBeforeClear before_clear)
{
	DmuFlagUpdate update;

	refresher->stage = DMU_STAGE_CALL;
	call_procedure(refresher, dimension_user_id);

	/* The procedure may have used SET TRANSACTION, for itself. */
	XactReadOnly = false;

	refresher->stage = DMU_STAGE_CLEAR;
	update = dmu_flag_clear(refresher->flag, dimension_user_id, before_clear);

	refresher->stage = DMU_STAGE_CALL;
	dmu_flag_verify(refresher->flag, dimension_user_id, &update);
	end_transaction(refresher);
}

static bool
is_collision(const DmuError *error)
{
	return error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

bool
dmu_refresh_may_have_collided(const DmuError *error)
{
	return error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION ||
		error->sqlerrcode == ERRCODE_EXCLUSION_VIOLATION ||
		(error->sqlerrcode == ERRCODE_INTERNAL_ERROR &&
		 strncmp(error->message, CONCURRENT_DDL, strlen(CONCURRENT_DDL)) == 0);
}

/*
 * Can the error of the attempt just aborted be due to a relation that was
 * rewritten under it?  A table that looks empty makes procedures fail in many
 * ways.
 */
static bool
is_due_to_rewrite(const DmuRefresher *refresher)
{
	DmuError   *second = palloc(sizeof(DmuError));
	volatile bool result = false;

	PG_TRY();
	{
		dmu_transaction_begin();
		result = dmu_rewrites_explain();
		dmu_transaction_commit(refresher->context);
	}
	PG_CATCH();
	{
		dmu_error_catch(second, refresher->context);
		result = false;
	}
	PG_END_TRY();
	return result;
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
	volatile bool suspicious = false;

	refresher->stage = DMU_STAGE_LOOK;
	PG_TRY();
	{
		if (open_and_check(refresher, dimension_user_id, lock_first))
		{
			reached = true;
			refresh_and_commit(refresher, dimension_user_id, before_clear);
			outcome = DMU_PROCESSED;
		}
		else
			end_transaction(refresher);
	}
	PG_CATCH();
	{
		suspicious = dmu_rewrites_catch();
		dmu_error_catch(error, refresher->context);
		outcome = DMU_FAILED;
	}
	PG_END_TRY();

	dmu_timers_end_call();
	dmu_residue_drop();
	*called = reached;
	if (outcome == DMU_FAILED &&
		(dmu_rewrites_raised() ||
		 (suspicious && !is_collision(error) &&
		  error->sqlerrcode != ERRCODE_QUERY_CANCELED &&
		  is_due_to_rewrite(refresher))))
		refresher->stage = DMU_STAGE_REWRITE;
	return outcome;
}

/* After a collision: what the next attempt is to be, false for none. */
static bool
try_again(Attempts *attempts, const DmuRefresher *refresher,
		  const DmuError *error, bool called)
{
	/* The next attempt locks that relation; the row would be of no help. */
	if (refresher->stage == DMU_STAGE_REWRITE)
		return ++attempts->rewrites < DMU_ATTEMPTS;

	/* If it did, the next attempt sees what the other one has written. */
	if (dmu_refresh_may_have_collided(error))
		return attempts->doubtful++ == 0;

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
dmu_refresh(DmuRefresher *refresher, int64 dimension_user_id, uint32 actions,
			DmuBeforeClear before_clear, DmuError *error)
{
	MemoryContext old_context = MemoryContextSwitchTo(refresher->context);
	Attempts	attempts = {false, 0, 0, 0, 0};
	DmuOutcome	outcome;
	bool		called;

	refresher->actions = actions;
	refresher->planned_alone = false;
	dmu_rewrites_reset();
	do
	{
		outcome = attempt(refresher, dimension_user_id, attempts.lock_first,
						  before_clear, error, &called);
		MemoryContextReset(refresher->context);
	} while (outcome == DMU_FAILED &&
			 (is_collision(error) || refresher->stage == DMU_STAGE_REWRITE ||
			  dmu_refresh_may_have_collided(error)) &&
			 try_again(&attempts, refresher, error, called));

	MemoryContextSwitchTo(old_context);

	/* What may have failed for a rewrite, and fails again, is a failure. */
	if (outcome == DMU_FAILED && is_collision(error))
		outcome = DMU_DEFERRED;
	return outcome;
}

int
dmu_refresh_call_limit(const DmuRefresher *refresher)
{
	return refresher->call_limit;
}

DmuStage
dmu_refresh_stage(const DmuRefresher *refresher)
{
	return refresher->stage;
}

bool
dmu_refresh_planned_alone(const DmuRefresher *refresher)
{
	return refresher->planned_alone;
}
