/*-------------------------------------------------------------------------
 *
 * launch.c
 *		Background workers: start, end, and whose rights and settings they
 *		have.
 *
 *		A worker becomes its caller in the way of ParallelWorkerMain()
 *		(access/transam/parallel.c): it connects as the role that the caller
 *		authenticated as, loads the caller's libraries, restores the caller's
 *		settings, and takes on the caller's current role and security context.
 *		It adds SECURITY_LOCAL_USERID_CHANGE, under which SET ROLE, RESET ROLE
 *		and SET SESSION AUTHORIZATION are refused: a refresh has no way back up
 *		from the role that called for the cycle.
 *
 *		Of the control segment it knows who the caller is and whether to stop;
 *		it knows no SQL, and not what the workers do.
 *
 *-------------------------------------------------------------------------
 */
#include "launch.h"

#include "access/xact.h"
#include "cancel.h"
#include "compat.h"
#include "directory.h"
#include "errors.h"
#include "libpq/pqsignal.h"
#include "log.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "slot.h"
#include "stop.h"
#include "transaction.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "who.h"

#define DMU_LIBRARY "datamart_users"

/* What the settings of a service may grow by while it runs, bytes. */
#define DMU_SETTINGS_ROOM 32768

/* Whose process this one is, and the number of its slot. */
static DmuControl *own_control = NULL;
static int	own_number = 0;

/* Which of a service's settings this process has; see service.settings. */
static uint32 own_settings = 0;

/* The libraries come first in the session state; this is their room. */
static Size
library_size(void)
{
	return MAXALIGN(EstimateLibraryStateSpace());
}

Size
dmu_launch_session_size(void)
{
	return add_size(add_size(sizeof(Size), DMU_SETTINGS_ROOM),
					add_size(library_size(), EstimateGUCStateSpace()));
}

void
dmu_launch_save_session(DmuControl *control, Size session_size)
{
	char	   *space = dmu_queue_session(control);
	Size		libraries = library_size();
	DmuIdentity *identity = &control->identity;

	control->head.database = MyDatabaseId;
	identity->authenticated_role = GetAuthenticatedUserId();
	GetUserIdAndSecContext(&identity->current_role,
						   &identity->security_context);
	control->head.role = identity->current_role;
	control->head.users = control->request.users;
	strlcpy(identity->synchronous_commit,
			GetConfigOption("synchronous_commit", false, false),
			sizeof(identity->synchronous_commit));
	strlcpy(identity->application_name,
			application_name != NULL ? application_name : "",
			sizeof(identity->application_name));
	strlcpy(identity->who, dmu_who_am_i(), sizeof(identity->who));
	control->caller_pid = MyProcPid;
	control->session_size = session_size;

	memcpy(space, &libraries, sizeof(Size));
	space += sizeof(Size);
	SerializeLibraryState(libraries, space);
	SerializeGUCState(session_size - sizeof(Size) - libraries,
					  space + libraries);
}

bool
dmu_launch_register(dsm_handle handle, int number,
					BackgroundWorkerHandle **worker)
{
	BackgroundWorker entry;
	const char *kind = number == DMU_REHEARSAL ? "rehearsal" :
	number == DMU_SERVICE ? "service" :
	number == DMU_COORDINATOR ? "coordinator" : "worker";

	memset(&entry, 0, sizeof(entry));
	entry.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	entry.bgw_start_time = BgWorkerStart_RecoveryFinished;
	entry.bgw_restart_time = BGW_NEVER_RESTART;
	entry.bgw_main_arg = UInt32GetDatum(handle);
	entry.bgw_notify_pid = MyProcPid;
	memcpy(entry.bgw_extra, &number, sizeof(number));
	strlcpy(entry.bgw_library_name, DMU_LIBRARY, sizeof(entry.bgw_library_name));
	snprintf(entry.bgw_function_name, sizeof(entry.bgw_function_name),
			 "dmu_%s_main", kind);
	snprintf(entry.bgw_type, sizeof(entry.bgw_type), "datamart_users %s", kind);
	snprintf(entry.bgw_name, sizeof(entry.bgw_name), "%s %d of database %u",
			 entry.bgw_type, Max(number, 0), MyDatabaseId);

	return RegisterDynamicBackgroundWorker(&entry, worker);
}

bool
dmu_launch_any_running(BackgroundWorkerHandle **workers, int nworkers)
{
	pid_t		pid;

	for (int i = 0; i < nworkers; i++)
	{
		BgwHandleStatus status = GetBackgroundWorkerPid(workers[i], &pid);

		if (status == BGWH_STARTED || status == BGWH_NOT_YET_STARTED)
			return true;
	}
	return false;
}

/*
 * ErrorContextCallback.  What keeps a process from connecting is FATAL, which
 * nobody can catch; without this it were to be found in the server log only,
 * if log_min_messages lets it in there.  An ERROR of the coordinator is caught.
 */
static void
keep_error(void *arg)
{
	DmuControl *control = own_control;
	MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);
	ErrorData  *edata = CopyErrorData();

	MemoryContextSwitchTo(old_context);
	if (control != NULL && dmu_queue_stop(control) == DMU_STOP_NONE)
	{
		uint32		expected = 0;

		if (own_number == DMU_COORDINATOR && edata->elevel >= FATAL)
		{
			DmuError   *error = palloc(sizeof(DmuError));

			dmu_error_copy(error, edata);
			dmu_queue_stop_with_error(control, DMU_STOP_FAILED, error);
			pfree(error);
		}
		else if (own_number > DMU_COORDINATOR && edata->elevel >= ERROR &&
				 pg_atomic_compare_exchange_u32(&control->missing_claimed,
												&expected, 1))
			dmu_error_copy(&control->missing_error, edata);
	}
	FreeErrorData(edata);
}

/*
 * ErrorContextCallback.  A setting can name what was dropped or renamed since
 * it was set, the role that logged in among them.
 */
static void
explain_restore(void *arg)
{
	MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);
	ErrorData  *edata = CopyErrorData();

	MemoryContextSwitchTo(old_context);
	if (edata->elevel >= ERROR && edata->hint == NULL)
		errhint("The processes of a cycle take over the libraries and settings of this session, and what one of them names may be gone.  Set it anew, or reconnect.");
	FreeErrorData(edata);
}

/*
 * before_shmem_exit callback, the last of ours: nobody is to signal a pid that
 * may be another's soon.
 */
static void
launch_exit(int code, Datum arg)
{
	pg_atomic_write_u32(&dmu_slot(own_control, own_number)->live_pid, 0);
	own_control = NULL;
}

DmuControl *
dmu_launch_attach(Datum main_arg, int *number)
{
	dsm_segment *seg;
	DmuControlHead *head;
	DmuControl *control;
	DmuSlot    *slot;

	dmu_cancel_init();
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	/* Without a resource owner, the mapping lasts until the process ends. */
	memcpy(number, MyBgworkerEntry->bgw_extra, sizeof(*number));
	head = dmu_queue_attach(DatumGetUInt32(main_arg), &seg);
	if (head == NULL)
		return NULL;
	control = dmu_queue_whole(head);
	if (control == NULL)
	{
		if (*number <= DMU_COORDINATOR)
			pg_atomic_write_u32(&head->refused, 1);
		ereport(LOG,
				(errmsg("datamart_users: the library was replaced after the process that starts this one had loaded it"),
				 errdetail("That one uses another layout of the shared memory; this one does not take part.")));
		return NULL;
	}

	/* In this order; see request_stop() in stop.c. */
	own_control = control;
	own_number = Max(*number, DMU_COORDINATOR);
	slot = dmu_slot(control, own_number);
	before_shmem_exit(launch_exit, (Datum) 0);
	pg_atomic_write_u32(&slot->pid, MyProcPid);
	pg_atomic_write_u32(&slot->live_pid, MyProcPid);
	pg_memory_barrier();

	/*
	 * A coordinator that ends before its workers sets the stop flag, and
	 * gives back the cycle lock after that.  So whoever enters too late for
	 * the coordinator of the next cycle to see it sees the flag.
	 */
	if (*number > DMU_COORDINATOR &&
		(!dmu_directory_join(control->head.database, control->request.users) ||
		 dmu_queue_stop(control) != DMU_STOP_NONE))
		return NULL;
	return control;
}

/* The settings come after the libraries; in the segment. */
static char *
settings_space(DmuControl *control)
{
	char	   *space = dmu_queue_session(control);
	Size		libraries;

	memcpy(&libraries, space, sizeof(Size));
	return space + sizeof(Size) + libraries;
}

static Size
settings_size(DmuControl *control)
{
	return control->session_size -
		(settings_space(control) - (char *) dmu_queue_session(control));
}

/*
 * The coordinator of a service may be writing them just now.  It never waits
 * between making the number odd and even, so neither does this, for long.
 */
char	   *
dmu_launch_settings(DmuControl *control)
{
	Size		size = settings_size(control);
	char	   *settings = palloc(size);

	for (;;)
	{
		own_settings = pg_atomic_read_u32(&control->service.settings);
		pg_memory_barrier();
		memcpy(settings, settings_space(control), size);
		pg_memory_barrier();
		if (own_settings % 2 == 0 &&
			own_settings == pg_atomic_read_u32(&control->service.settings))
			return settings;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000L);
	}
}

bool
dmu_launch_publish_settings(DmuControl *control, const char *settings, Size size)
{
	if (size > settings_size(control))
		return false;
	pg_atomic_fetch_add_u32(&control->service.settings, 1);
	pg_memory_barrier();
	memcpy(settings_space(control), settings, size);
	pg_memory_barrier();
	pg_atomic_fetch_add_u32(&control->service.settings, 1);
	return true;
}

bool
dmu_launch_is_outdated(DmuControl *control)
{
	return own_settings != pg_atomic_read_u32(&control->service.settings);
}

/* What no process of a cycle takes over from its caller. */
static void
set_own(void)
{
	/* Not the caller's: nobody is to take this process for his. */
	SetConfigOption("application_name", "datamart_users", PGC_USERSET,
					PGC_S_SESSION);
	if (DMU_TRANSACTION_TIMEOUT != NULL)
		SetConfigOption(DMU_TRANSACTION_TIMEOUT, "0", PGC_USERSET, PGC_S_SESSION);
}

void
dmu_launch_become_caller(DmuControl *control)
{
	const DmuIdentity *identity = &control->identity;

	set_own();
	dmu_transaction_assume(identity->current_role,
						   identity->security_context | SECURITY_LOCAL_USERID_CHANGE);
}

void
dmu_launch_assume_session(DmuControl *control)
{
	const DmuIdentity *identity = &control->identity;
	ErrorContextCallback keep = {.previous = error_context_stack,.callback = keep_error};
	ErrorContextCallback explain = {.previous = &keep,.callback = explain_restore};

	error_context_stack = &keep;
	BackgroundWorkerInitializeConnectionByOid(control->head.database,
											  identity->authenticated_role,
											  DMU_CONNECTION_FLAGS);
	dmu_cancel_connected();
	SetClientEncoding(GetDatabaseEncoding());

	/* Libraries first: they define the settings that are restored next. */
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	error_context_stack = &explain;
	RestoreLibraryState((char *) dmu_queue_session(control) + sizeof(Size));
	RestoreGUCState(dmu_launch_settings(control));
	error_context_stack = &keep;
	dmu_log_begin(control);
	CommitTransactionCommand();

	dmu_launch_become_caller(control);
	error_context_stack = keep.previous;
}

void
dmu_launch_announce(DmuControl *control, int number)
{
	char		name[NAMEDATALEN];

	if (control->request.poll > 0 && control->head.cycle_id == 0)
		snprintf(name, sizeof(name), "datamart_users service worker %d", number);
	else
		snprintf(name, sizeof(name),
				 "datamart_users cycle " INT64_FORMAT " worker %d",
				 control->head.cycle_id, number);
	SetConfigOption("application_name", name, PGC_USERSET, PGC_S_SESSION);
}

void
dmu_launch_raise_not_started(DmuControl *control)
{
	if (pg_atomic_read_u32(&control->head.refused) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library of datamart_users was replaced after this session had loaded it"),
				 errdetail("New processes load the new library, which lays out the shared memory in another way."),
				 errhint("Reconnect, and call the function again.")));

	/* It has left word of why it could not connect. */
	if (control->error.sqlerrcode != 0 &&
		dmu_queue_phase(control) == DMU_PHASE_CREATED)
	{
		DmuError	error = control->error;

		if (error.hint[0] == '\0')
			strlcpy(error.hint,
					"The processes of a cycle connect to the database anew, as the role that this session logged in as. datamart_users_check() looks at what that takes.",
					sizeof(error.hint));
		dmu_error_raise(&error);
	}
}
