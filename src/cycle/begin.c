/*-------------------------------------------------------------------------
 *
 * begin.c
 *		The beginning of a cycle, of whatever kind.
 *
 *		Part of the coordinator: enters the directory, settles what cycles left
 *		behind that came to no end, and commits the running row.
 *
 *-------------------------------------------------------------------------
 */
#include "begin.h"

#include "adopt.h"
#include "compat.h"
#include "directory.h"
#include "failures.h"
#include "finish.h"
#include "history.h"
#include "log.h"
#include "lookup.h"
#include "miscadmin.h"
#include "ownersql.h"
#include "pgstat.h"
#include "progress.h"
#include "settings.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "suspects.h"
#include "timers.h"
#include "transaction.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/* How often to look for workers of an earlier cycle, milliseconds. */
#define DMU_ORPHAN_POLL 50

/* How long to wait for them, milliseconds. */
#define DMU_ORPHAN_WAIT (2 * DMU_CANCEL_GRACE)

/*
 * The workers of a coordinator that was terminated are canceled, and end within
 * the grace; but the cycle lock has gone before them.
 */
void
dmu_begin_wait_for_orphans(DmuControl *control)
{
	TimestampTz start = GetCurrentTimestamp();

	while (dmu_directory_has_workers(control->request.users))
	{
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(),
									   DMU_ORPHAN_WAIT))
		{
			ereport(WARNING,
					(errmsg("%s: workers of an earlier cycle have not ended within %d seconds",
							dmu_log_cycle(), DMU_ORPHAN_WAIT / 1000),
					 errdetail("The cycle goes on without waiting for them.")));
			return;
		}
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 DMU_ORPHAN_POLL, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void
dmu_begin_enter(DmuControl *control, dsm_handle handle, MemoryContext context)
{
	dmu_transaction_begin();
	dmu_owner_protect();
	control->head.coordinator_pid = MyProcPid;
	if (!dmu_directory_enter(control->request.users, handle))
	{
		dmu_progress_refuse_second(control->request.users);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a cycle of datamart_users is just starting or ending in this database"),
				 errdetail("It is for the datamart users of %s.",
						   control->request.users_name),
				 errhint("Try again in a moment.")));
	}
	namestrcpy(&control->role_name, GetUserNameFromId(GetUserId(), false));
	dmu_transaction_commit(context);
}

/*
 * When the server began to work, after a crash too, when the postmaster is
 * older: the checkpointer is as old as the shared memory.  If it is not there
 * yet, that was just now.
 */
static TimestampTz
server_started(void)
{
	int			nbackends = pgstat_fetch_stat_numbackends();

	for (int i = 1; i <= nbackends; i++)
	{
		const PgBackendStatus *status = dmu_backend_status(i);

		if (status->st_backendType == B_CHECKPOINTER)
			return status->st_proc_start_timestamp;
	}
	return GetCurrentTimestamp();
}

/*
 * What says running in the history and does not run.  In this order: what
 * was committed as running before we look at the directory is there, or has
 * ended since.
 */
static int
mark_aborted(DmuControl *control)
{
	int64	   *cycle_ids;
	int			ncycles = dmu_history_list_running(control->request.users,
												   &cycle_ids);

	ncycles = dmu_progress_remove_running(cycle_ids, ncycles);
	if (ncycles > 0)
		ncycles = dmu_history_mark_aborted(cycle_ids, ncycles, server_started(),
										   &control->follows_crash);
	pfree(cycle_ids);
	return ncycles;
}

/*
 * DmuSuspectTest.  Whoever has locked the users table holds nothing up here; and
 * if nobody can tell, for that or because the warehouse is not what it was, the
 * suspicion stays.
 */
static bool
still_waits(int64 dimension_user_id, void *arg)
{
	const DmuControl *control = arg;
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool flagged = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			guc_level = NewGUCNestLevel();
		const DmuWarehouse *warehouse = dmu_warehouse_resolve_again(control->request.users);

		if (LockTimeout == 0 || LockTimeout > DMU_LOCK_WAIT)
			(void) set_config_option("lock_timeout", CppAsString2(DMU_LOCK_WAIT),
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
		flagged = dmu_lookup_is_flagged(warehouse, dimension_user_id);
		AtEOXact_GUC(false, guc_level);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return flagged;
}

/* What cycles have left that came to no end. */
typedef struct Leftovers
{
	int			aborted;		/* cycles */
	int			suspects;		/* datamart users, if the server went down */
} Leftovers;

/* In the open transaction. */
static Leftovers
settle(DmuControl *control)
{
	Oid			users = control->request.users;
	const char *users_name = control->request.users_name;
	Leftovers	leftovers;

	dmu_adopt_all(users, users_name);
	leftovers.aborted = mark_aborted(control);
	dmu_failures_forget_undo(users);
	leftovers.suspects = dmu_suspects_settle(users, users_name,
											 control->follows_crash,
											 dmu_retry_delay,
											 dmu_retry_delay_max,
											 still_waits, control);
	return leftovers;
}

static void
log_leftovers(const DmuControl *control, const Leftovers *leftovers)
{
	if (leftovers->aborted > 0)
		ereport(LOG,
				(errmsg_plural("%s: marked %d earlier cycle as aborted",
							   "%s: marked %d earlier cycles as aborted",
							   leftovers->aborted, dmu_log_cycle(),
							   leftovers->aborted),
				 DMU_LOG_ALONE,
				 control->follows_crash ?
				 errdetail_plural("The server went down during that cycle; %d datamart user that was at work is treated as failed.",
								  "The server went down during that cycle; %d datamart users that were at work are treated as failed.",
								  leftovers->suspects, leftovers->suspects) : 0));
}

void
dmu_begin_settle(DmuControl *control, MemoryContext context)
{
	Leftovers	leftovers;

	dmu_transaction_begin();
	leftovers = settle(control);
	dmu_transaction_commit(context);
	log_leftovers(control, &leftovers);
}

void
dmu_begin_cycle(DmuControl *control, TimestampTz started_at,
				MemoryContext context)
{
	DmuCycleStart start;
	Leftovers	leftovers;

	dmu_transaction_begin();
	dmu_owner_protect();
	dmu_transaction_be_durable(control->identity.synchronous_commit);
	control->started_at = started_at;
	if (control->request.time_limit > 0)
		control->deadline =
			TimestampTzPlusMilliseconds(control->started_at,
										control->request.time_limit);

	start.users = control->request.users;
	start.users_name = control->request.users_name;
	start.role_name = NameStr(control->role_name);
	start.session_role = GetUserNameFromId(control->identity.authenticated_role,
										   true);
	start.application_name = control->identity.application_name;
	start.caller_pid = control->caller_pid;
	start.started_at = control->started_at;
	start.time_limit = control->request.time_limit;
	start.workers_requested = control->request.workers;
	leftovers = settle(control);

	/* Who sees the row finds the cycle; see mark_aborted(). */
	control->head.cycle_id = dmu_history_begin(&start);
	dmu_finish_commit(control, context);
	log_leftovers(control, &leftovers);
}
