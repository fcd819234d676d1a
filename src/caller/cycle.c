/*-------------------------------------------------------------------------
 *
 * cycle.c
 *		A cycle as a backend sees it: start, wait, cancel.
 *
 *		The backend does none of the work.  It makes the control segment, has
 *		the coordinator started, and watches: for the end, for its own cancel
 *		or death (which it passes on by the stop flag), for a client that has
 *		gone, and for a worker that waits for a lock of this very backend.
 *
 *		The segment belongs to the resource owner of the calling query, so
 *		every way out of the function, by error or by the end of the process,
 *		passes through leave_cycle().
 *
 *-------------------------------------------------------------------------
 */
#include "cycle.h"

#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "compat.h"
#include "errors.h"
#include "history.h"
#include "launch.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "progress.h"
#include "settings.h"
#include "stop.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "watch.h"
#include "timers.h"
#include "who.h"

/* How often it looks at a cycle that does not know of it, milliseconds. */
#define DMU_POLL_INTERVAL 100

/*
 * How long a canceled backend waits for its cycle to end: workers that
 * ignore the cancel terminate themselves after DMU_CANCEL_GRACE.
 */
#define DMU_CANCEL_WAIT (DMU_CANCEL_GRACE + 2000)

/* How long datamart_users_cancel_cycle() waits for it, milliseconds. */
#define DMU_CANCEL_LIMIT 10000

/*
 * How long a service that cannot start yet tries to, and how long it waits
 * before it does so again, milliseconds.
 */
#define DMU_START_WAIT 5000
#define DMU_START_AGAIN 20

/* A cycle that this backend has started. */
typedef struct OwnCycle
{
	dsm_segment *seg;
	DmuControl *control;
	BackgroundWorkerHandle *coordinator;
} OwnCycle;

/* Cancels a cycle of this backend's, and says why; may run while it exits. */
static void
cancel_own(DmuControl *control, const char *what, const char *error)
{
	char		reason[DMU_ERROR_TEXT_LEN];
	int			len;

	snprintf(reason, sizeof(reason), "%s, %s%s%s", what, control->identity.who,
			 error != NULL ? ": " : "", error != NULL ? error : "");
	len = (int) strlen(reason);
	reason[pg_mbcliplen(reason, len, len)] = '\0';
	dmu_queue_cancel(&control->head, reason);
}

/*
 * on_dsm_detach callback: this backend has nothing more to do with the cycle.
 * If it was to wait for the end, or did not even get the id, there must be
 * no cycle without it.
 */
static void
leave_cycle(dsm_segment *seg, Datum arg)
{
	DmuControl *control = (DmuControl *) DatumGetPointer(arg);
	DmuPhase	phase = dmu_queue_phase(control);

	if (phase < DMU_PHASE_RUNNING ||
		(control->request.caller_waits && phase < DMU_PHASE_FINISHED))
		cancel_own(control, ClientConnectionLost ?
				   "canceled because the client of its caller has gone" :
				   "canceled because the session of its caller was terminated",
				   NULL);
}

/*
 * What the catalogs looked like a while ago is of no use to anybody; and if
 * the caller has given up his snapshot, that one must not stay either.
 */
static void
sleep_on_latch(long timeout)
{
	InvalidateCatalogSnapshotConditionally();
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

static long
own_wait_timeout(void)
{
	if (dmu_progress_interval == 0)
		return DMU_WATCH_INTERVAL;
	return Min(DMU_WATCH_INTERVAL, dmu_progress_interval);
}

/* Makes segment and coordinator. */
static void
launch_cycle(OwnCycle *cycle, const DmuRequest *request)
{
	Size		session_size = dmu_launch_session_size();
	bool		is_service = request->poll > 0;

	/*
	 * The coordinator will make sure; but this takes no process.  Whoever
	 * starts a service need not be told that there is one by an error.
	 */
	if (!is_service)
		dmu_progress_refuse_second(request->users);

	cycle->seg = dmu_queue_create(request->workers + (is_service ? 1 : 0),
								  session_size);
	cycle->control = dmu_queue_control(cycle->seg);
	cycle->control->request = *request;
	dmu_launch_save_session(cycle->control, session_size);

	if (!dmu_launch_register(dsm_segment_handle(cycle->seg),
							 is_service ? DMU_SERVICE : DMU_COORDINATOR,
							 &cycle->coordinator))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no background worker process is free for a cycle of datamart_users"),
				 errhint("You might need to increase max_worker_processes (now %d), of which parallel queries and other extensions take their share.",
						 max_worker_processes)));

	on_dsm_detach(cycle->seg, leave_cycle, PointerGetDatum(cycle->control));
}

static void
raise_terminated(DmuControl *control)
{
	dmu_launch_raise_not_started(control);
	ereport(ERROR,
			(errcode(ERRCODE_ADMIN_SHUTDOWN),
			 errmsg("the coordinator of the cycle was terminated"),
			 errdetail("Its workers roll back what they were at; what they had committed stays."),
			 errhint("The server log tells more.  The next cycle does what is left.")));
}

/*
 * True if the cycle is in the given phase or beyond.  The end of a cycle is
 * the end of its coordinator's process, so that its slot is free and its
 * statistics are there for whatever comes next.
 */
static bool
reached(OwnCycle *cycle, DmuPhase wanted)
{
	pid_t		pid;
	BgwHandleStatus status = GetBackgroundWorkerPid(cycle->coordinator, &pid);
	DmuPhase	phase = dmu_queue_phase(cycle->control);

	if (status == BGWH_STOPPED || status == BGWH_POSTMASTER_DIED)
	{
		if (phase != DMU_PHASE_FINISHED)
			raise_terminated(cycle->control);
		return true;
	}
	return phase >= wanted && wanted != DMU_PHASE_FINISHED;
}

static void
wait_for_phase(OwnCycle *cycle, DmuPhase phase)
{
	DmuWatch	watch;

	dmu_watch_begin(&watch);
	while (!reached(cycle, phase))
	{
		dmu_watch_report(&watch, cycle->control);
		dmu_watch_look(&watch, cycle->control);
		sleep_on_latch(own_wait_timeout());
		CHECK_FOR_INTERRUPTS();
	}
	dmu_watch_end(&watch);
}

/* As SyncRepWaitForLSN() in replication/syncrep.c tells its own session. */
static void
warn_not_replicated(DmuControl *control)
{
	if (pg_atomic_read_u32(&control->not_replicated) != 0)
		ereport(WARNING,
				(errmsg("canceling wait for synchronous replication due to user request"),
				 errdetail("The cycle has already committed locally, but might not have been replicated to the standby.")));
}

/*
 * This backend gives up, for the error that is just being handled.  The cycle
 * is told, and gets the time to roll back and to write its history before the
 * error goes on to the client.
 */
static void
abandon_cycle(OwnCycle *cycle, MemoryContext context)
{
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz woken = 0;
	MemoryContext old_context = MemoryContextSwitchTo(context);
	ErrorData  *edata = CopyErrorData();
	pid_t		pid;

	cancel_own(cycle->control, "canceled with the statement of its caller",
			   edata->message);
	FreeErrorData(edata);
	MemoryContextSwitchTo(old_context);
	HOLD_INTERRUPTS();
	while (GetBackgroundWorkerPid(cycle->coordinator, &pid) != BGWH_STOPPED &&
		   !TimestampDifferenceExceeds(start, GetCurrentTimestamp(),
									   DMU_CANCEL_WAIT))
	{
		sleep_on_latch(DMU_POLL_INTERVAL);
		dmu_queue_wake_again(&cycle->control->head, &woken);
	}
	warn_not_replicated(cycle->control);
	RESUME_INTERRUPTS();
}

/* The cycle had fewer workers than it could have used. */
static void
warn_few_workers(DmuControl *control)
{
	int			registered = (int) pg_atomic_read_u32(&control->workers_registered);

	if (registered > 0 && registered < control->workers_wanted)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("started %d of %d workers", registered,
						control->workers_wanted),
				 errhint("You might need to increase max_worker_processes (now %d).",
						 max_worker_processes)));
}

/*
 * Starts a cycle and follows it as far as "phase".  Any error on the way, a
 * cancel above all, ends the cycle.
 */
static void
follow_cycle(OwnCycle *cycle, const DmuRequest *request, DmuPhase phase)
{
	MemoryContext context = CurrentMemoryContext;

	launch_cycle(cycle, request);

	PG_TRY();
	{
		wait_for_phase(cycle, DMU_PHASE_RUNNING);
		if (phase > DMU_PHASE_RUNNING)
		{
			wait_for_phase(cycle, DMU_PHASE_WORKING);
			warn_few_workers(cycle->control);
			wait_for_phase(cycle, phase);
		}
	}
	PG_CATCH();
	{
		abandon_cycle(cycle, context);
		PG_RE_THROW();
	}
	PG_END_TRY();

}

/* The error that has ended it, if there is one. */
static void
raise_error(OwnCycle *cycle)
{
	if (dmu_queue_phase(cycle->control) == DMU_PHASE_FINISHED &&
		cycle->control->error.sqlerrcode != 0)
		dmu_error_raise(&cycle->control->error);
}

int64
dmu_cycle_start(const DmuRequest *request)
{
	OwnCycle	cycle;
	int64		cycle_id;

	follow_cycle(&cycle, request, DMU_PHASE_RUNNING);
	raise_error(&cycle);
	cycle_id = cycle.control->head.cycle_id;
	dsm_detach(cycle.seg);
	return cycle_id;
}

void
dmu_cycle_run(const DmuRequest *request, DmuCycleResult *result)
{
	OwnCycle	cycle;

	follow_cycle(&cycle, request, DMU_PHASE_FINISHED);
	raise_error(&cycle);
	warn_not_replicated(cycle.control);
	*result = cycle.control->result;
	dsm_detach(cycle.seg);
}

/* Whose a datamart is now, as far as can be told. */
typedef enum Holder
{
	NOBODY,						/* or just starting or ending */
	A_CYCLE,
	A_SERVICE					/* of this build */
} Holder;

static Holder
find_holder(Oid users)
{
	dsm_segment *seg;
	DmuControlHead *head = dmu_progress_attach_datamart(users, &seg);
	DmuControl *control = head != NULL ? dmu_queue_whole(head) : NULL;
	Holder		holder = NOBODY;

	if (control != NULL && control->request.poll > 0)
		holder = A_SERVICE;
	else if (head != NULL && head->cycle_id != 0)
		holder = A_CYCLE;
	if (seg != NULL)
		dsm_detach(seg);
	return holder;
}

/*
 * Another session may be faster, or an earlier service just ending: there is a
 * moment in which the datamart is taken, and it cannot be told by whom.
 */
bool
dmu_cycle_start_service(const DmuRequest *request)
{
	TimestampTz start = GetCurrentTimestamp();
	OwnCycle	cycle;

	while (find_holder(request->users) != A_SERVICE)
	{
		follow_cycle(&cycle, request, DMU_PHASE_RUNNING);
		if (dmu_queue_phase(cycle.control) != DMU_PHASE_FINISHED ||
			cycle.control->error.sqlerrcode != ERRCODE_OBJECT_IN_USE ||
			find_holder(request->users) == A_CYCLE ||
			TimestampDifferenceExceeds(start, GetCurrentTimestamp(), DMU_START_WAIT))
		{
			raise_error(&cycle);
			dsm_detach(cycle.seg);
			return true;
		}
		dsm_detach(cycle.seg);
		sleep_on_latch(DMU_START_AGAIN);
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/* Its pid may be another backend's soon after it has ended. */
static bool
coordinator_lives(const DmuControlHead *head)
{
	PGPROC	   *proc = BackendPidGetProc(head->coordinator_pid);

	return proc != NULL && dmu_is_background_worker(proc) &&
		proc->databaseId == head->database;
}

/*
 * Waits until another session's cycle, or its processes where "cycle_id" is 0,
 * have ended or "timeout" milliseconds have passed (negative: no limit), which
 * returns true.  With "stop", it is to end.
 */
static bool
follow_running(DmuControlHead *head, int64 cycle_id, int64 timeout, bool stop)
{
	TimestampTz start = GetCurrentTimestamp();
	DmuControl *control = dmu_queue_whole(head);
	TimestampTz woken = 0;
	bool		timed_out = false;
	DmuWatch	watch;

	dmu_watch_begin(&watch);
	while (coordinator_lives(head) && !timed_out &&
		   (cycle_id == 0 || head->cycle_id == cycle_id))
	{
		if (control != NULL)
			dmu_watch_look(&watch, control);
		sleep_on_latch(DMU_POLL_INTERVAL);
		CHECK_FOR_INTERRUPTS();
		if (stop)
			dmu_queue_wake_again(head, &woken);
		timed_out = timeout >= 0 &&
			GetCurrentTimestamp() >= TimestampTzPlusMilliseconds(start, timeout);
	}
	dmu_watch_end(&watch);
	if (control != NULL)
		warn_not_replicated(control);
	return timed_out;
}

/*
 * The result of a cycle that was followed.  False if it must be looked up in
 * the history: its coordinator died, is of another build, has gone on to the
 * next one, or has not come so far as to begin it.
 */
static bool
followed_result(DmuControlHead *head, int64 cycle_id, bool timed_out,
				DmuCycleResult *result)
{
	DmuControl *control = dmu_queue_whole(head);

	if (control == NULL || head->cycle_id != cycle_id)
		return false;
	if (dmu_queue_phase(control) == DMU_PHASE_FINISHED)
		*result = control->result;
	else if (timed_out)
		dmu_progress_result(control, DMU_STATUS_RUNNING, result);
	else
		return false;
	return true;
}

void
dmu_cycle_wait(int64 cycle_id, int64 timeout, DmuCycleResult *result)
{
	dsm_segment *seg;
	DmuControlHead *head = dmu_progress_attach_cycle(cycle_id, &seg);
	bool		known = false;
	bool		timed_out = false;

	if (head != NULL)
	{
		timed_out = follow_running(head, cycle_id, timeout, false);
		known = followed_result(head, cycle_id, timed_out, result);
	}
	if (seg != NULL)
		dsm_detach(seg);
	if (known)
		return;

	if (!dmu_history_get(cycle_id, result))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no cycle " INT64_FORMAT, cycle_id),
				 errhint("See datamart_users_cycles; older cycles go after datamart_users.history_retention.")));

	/*
	 * Nobody is behind such a row any more, and the next cycle will say so;
	 * but a standby does not have the lock table that we looked at.
	 */
	if (result->status == DMU_STATUS_RUNNING && !timed_out &&
		!RecoveryInProgress())
		result->status = DMU_STATUS_ABORTED;
}

/* As pg_signal_backend() in storage/ipc/signalfuncs.c has it. */
static void
check_may_cancel(const DmuControlHead *head)
{
	Oid			role = head->role;
	char	   *name = GetUserNameFromId(role, true);	/* it may be dropped */

	if (superuser_arg(role) && !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be a superuser to cancel the cycle of a superuser")));
	if (!has_privs_of_role(GetUserId(), role) &&
		!has_privs_of_role(GetUserId(), ROLE_PG_SIGNAL_BACKEND))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to cancel the cycle of role \"%s\"",
						name != NULL ? name : psprintf("%u", role)),
				 errhint("Only members of that role or of pg_signal_backend may cancel it.")));
}

/* "seg" is what to detach afterwards, or NULL. */
static bool
cancel(DmuControlHead *head, dsm_segment *seg)
{
	if (head == NULL)
		return false;

	check_may_cancel(head);
	dmu_queue_cancel(head,
					 psprintf("canceled by datamart_users_cancel_cycle(), called by %s",
							  dmu_who_am_i()));
	if (follow_running(head, 0, DMU_CANCEL_LIMIT, true))
		ereport(WARNING,
				(errmsg("cycle " INT64_FORMAT " of datamart_users has not stopped within %d seconds",
						head->cycle_id, DMU_CANCEL_LIMIT / 1000),
				 errdetail("It stops as soon as what its processes are at heeds a cancel."),
				 errhint("See datamart_users_workers and pg_stat_activity for what they wait for; datamart_users_wait_cycle() waits for the end.")));
	if (seg != NULL)
		dsm_detach(seg);
	return true;
}

bool
dmu_cycle_cancel(int64 cycle_id)
{
	dsm_segment *seg;
	DmuControlHead *head = dmu_progress_attach_cycle(cycle_id, &seg);

	return cancel(head, seg);
}

bool
dmu_cycle_cancel_datamart(Oid users)
{
	dsm_segment *seg;
	DmuControlHead *head = OidIsValid(users) ?
	dmu_progress_attach_datamart(users, &seg) :
	dmu_progress_attach_only(&seg);

	return cancel(head, seg);
}

bool
dmu_cycle_stop_service(Oid users, int64 timeout)
{
	dsm_segment *seg;
	DmuControlHead *head = OidIsValid(users) ?
	dmu_progress_attach_datamart(users, &seg) :
	dmu_progress_attach_only(&seg);
	DmuControl *control = head != NULL ? dmu_queue_whole(head) : NULL;
	bool		ended = false;

	if (head != NULL && control == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("what is running was started by another build of the library of datamart_users"),
				 errhint("End it with datamart_users_cancel_cycle().")));
	if (control != NULL && control->request.poll > 0)
	{
		check_may_cancel(head);
		dmu_queue_end_service(control,
							  psprintf("stopped by datamart_users_stop_service(), called by %s",
									   dmu_who_am_i()));
		ended = !follow_running(head, 0, timeout, false);
	}
	if (seg != NULL)
		dsm_detach(seg);
	return ended;
}
