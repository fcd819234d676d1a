/*-------------------------------------------------------------------------
 *
 * service.c
 *		The background worker that owns a service: a cycle that goes on.
 *
 *		Goes round: looks (looks.c), has workers do what there is to do
 *		(stretch.c), and sleeps until the next look is due.  While there is
 *		nothing to do the service writes nothing, and holds nothing but its
 *		entry in the directory from one look to the next.
 *
 *		Whatever goes wrong ends the service, as it ends a cycle; what it could
 *		not finish stays flagged.
 *
 *-------------------------------------------------------------------------
 */
#include "service.h"

#include "allowed.h"
#include "begin.h"
#include "cancel.h"
#include "directory.h"
#include "errors.h"
#include "explain.h"
#include "log.h"
#include "looks.h"
#include "miscadmin.h"
#include "ownersql.h"
#include "pgstat.h"
#include "queues.h"
#include "renew.h"
#include "staff.h"
#include "stop.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/sinval.h"
#include "stretch.h"
#include "timers.h"
#include "transaction.h"
#include "trouble.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How often it looks whether it is in the way of somebody, milliseconds. */
#define DMU_GIVE_WAY 1000

typedef struct Service
{
	DmuControl *control;
	dsm_handle	handle;
	MemoryContext context;		/* reset after every round */
	DmuQueues  *queues;
	DmuStaff   *staff;
	DmuStretch *stretch;
	DmuLooks   *looks;			/* NULL until the service has all of these */
	TimestampTz gave_way;		/* the last time it could have */
} Service;

/*
 * The process ends.  If the service has not, its workers are to roll back; those
 * that have not started yet must not.
 */
static void
service_exit(int code, Datum arg)
{
	Service    *s = (Service *) DatumGetPointer(arg);

	if (dmu_queue_phase(s->control) == DMU_PHASE_FINISHED)
		return;
	dmu_queue_request_stop(s->control, DMU_STOP_ABORT);
	if (s->staff != NULL)
		dmu_staff_terminate(s->staff);
}

/*
 * Whoever has locked the database waits for all its sessions to end, but for
 * five seconds only; and whoever wants to drop the extension, for all cycles.
 */
static void
give_way(Service *s)
{
	TimestampTz now = GetCurrentTimestamp();
	const char *reason = NULL;

	/* The clock may have been set back. */
	if (now >= s->gave_way &&
		!TimestampDifferenceExceeds(s->gave_way, now, DMU_GIVE_WAY))
		return;
	s->gave_way = now;
	if (!dmu_allowed_in_database())
		reason = "gave way to somebody who is about to drop, rename, move or copy the database";
	else if (dmu_owner_is_wanted())
		reason = "gave way to somebody who is about to drop or alter the extension";
	if (reason != NULL)
		dmu_queue_end_service(s->control, reason);
}

/*
 * No transaction is open.  In the midst of a cycle, too: each look makes the
 * queue anew.
 */
static void
renew(Service *s)
{
	if (!dmu_renew_settings(s->control, s->context))
		return;
	dmu_launch_announce(s->control, DMU_COORDINATOR);
	dmu_stretch_renew(s->stretch);
	dmu_queue_nudge(s->control);
}

static void
sleep_until_due(Service *s)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next_look = dmu_looks_next(s->looks);
	long		timeout = DMU_GIVE_WAY;

	if (next_look > now && !dmu_stretch_is_closing(s->stretch))
		timeout = Min(timeout, TimestampDifferenceMilliseconds(now, next_look));
	while (catchupInterruptPending)
		ProcessCatchupInterrupt();
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

static void
go_round(Service *s)
{
	bool		renewal = dmu_looks_take_renewal(s->looks);

	MemoryContextSwitchTo(s->context);
	dmu_staff_reap(s->staff, s->queues);
	give_way(s);
	if (dmu_queue_stop(s->control) != DMU_STOP_NONE)
		return;

	if (dmu_renew_is_reloaded() || renewal)
		renew(s);

	if (dmu_stretch_is_on(s->stretch))
		dmu_looks_hasten(s->looks);
	if (!dmu_stretch_is_closing(s->stretch) && dmu_looks_is_due(s->looks))
		dmu_looks_take(s->looks);
	if (dmu_stretch_is_on(s->stretch) && dmu_stretch_tend(s->stretch))
		dmu_looks_make_due(s->looks);

	MemoryContextReset(s->context);
	if (!dmu_stretch_is_busy(s->stretch) &&
		dmu_queue_stop(s->control) == DMU_STOP_NONE &&
		(dmu_stretch_is_closing(s->stretch) ||
		 GetCurrentTimestamp() < dmu_looks_next(s->looks)))
		sleep_until_due(s);
	dmu_trouble_take_cancel(s->control);
	CHECK_FOR_INTERRUPTS();
}

static void
begin_service(Service *s)
{
	DmuControl *control = s->control;

	s->queues = dmu_queues_create(control);
	s->staff = dmu_staff_create(control, s->handle);
	s->stretch = dmu_stretch_create(control, s->queues, s->staff, s->context);
	s->looks = dmu_looks_create(control, s->queues, s->stretch, s->context);
	dmu_begin_enter(control, s->handle, s->context);
	dmu_begin_wait_for_orphans(control);
	dmu_begin_settle(control, s->context);
	control->service.since = GetCurrentTimestamp();
	s->gave_way = control->service.since;
	dmu_launch_announce(control, DMU_COORDINATOR);

	dmu_transaction_begin();
	dmu_allowed_begin(control);
	dmu_looks_begin(s->looks);
	dmu_transaction_commit(s->context);
	dmu_looks_take(s->looks);
	if (!dmu_stretch_is_on(s->stretch))
	{
		dmu_owner_unprotect();
		dmu_queue_set_phase(control, DMU_PHASE_RUNNING);
	}
	ereport(LOG,
			(errmsg("%s: service started with up to %d workers, looks every %lld ms",
					dmu_log_cycle(), control->request.workers,
					(long long) control->request.poll),
			 DMU_LOG_ALONE,
			 errdetail("The users table is %s.", control->request.users_name)));
}

/* An error that ends the service. */
static void
note_error(Service *s, DmuError *error)
{
	bool		canceled = (error->sqlerrcode == ERRCODE_QUERY_CANCELED);
	int			sender = canceled ? dmu_cancel_sender() : 0;

	/* A cancel by the stop flag is none, once the service has begun. */
	if (canceled && dmu_queue_phase(s->control) > DMU_PHASE_CREATED &&
		dmu_queue_stop(s->control) >= DMU_STOP_CANCEL)
		return;
	if (sender != 0)
		dmu_explain_cancel(error, DMU_COORDINATOR_CANCELED, sender);
	dmu_queue_stop_with_error(s->control,
							  canceled ? DMU_STOP_ABORT : DMU_STOP_FAILED,
							  error);
}

/*
 * Waits for the workers.  The history tells how the service ended where that
 * was no clean end, by the row of a cycle, of one that did nothing if need be.
 */
static void
end_service(Service *s)
{
	DmuControl *control = s->control;

	if (s->looks == NULL)
		return;
	if (dmu_queue_stop(control) == DMU_STOP_TIME_LIMIT)
		dmu_queue_nudge(control);
	dmu_staff_recall(s->staff);
	dmu_staff_wait(s->staff);
	dmu_staff_reap(s->staff, s->queues);
	dmu_stretch_finish(s->stretch, dmu_looks_backlog(s->looks));
}

static void
log_end(const Service *s)
{
	const DmuError *error = &s->control->error;
	DmuStop		stop = dmu_queue_stop(s->control);

	ereport(LOG,
			(errmsg("%s: service ended after %lld cycles", dmu_log_cycle(),
					(long long) pg_atomic_read_u64(&s->control->service.cycles)),
			 DMU_LOG_ALONE,
			 error->sqlerrcode != 0 ? errdetail_internal("%s", error->message) :
			 stop <= DMU_STOP_CANCEL ?
			 errdetail_internal("%s", dmu_queue_stop_reason(s->control)) : 0,
			 error->hint[0] != '\0' ? errhint("%s", error->hint) : 0));
}

void
dmu_service_main(Datum main_arg)
{
	Service    *s = MemoryContextAllocZero(TopMemoryContext, sizeof(Service));
	DmuError   *error = MemoryContextAllocZero(TopMemoryContext,
											   sizeof(DmuError));
	int			number;

	s->handle = DatumGetUInt32(main_arg);
	s->context = AllocSetContextCreate(TopMemoryContext,
									   "datamart_users service",
									   ALLOCSET_DEFAULT_SIZES);
	s->control = dmu_launch_attach(main_arg, &number);
	if (s->control == NULL)
		return;
	dmu_renew_listen();
	before_shmem_exit(service_exit, PointerGetDatum(s));
	MemoryContextSwitchTo(s->context);

	PG_TRY();
	{
		dmu_launch_assume_session(s->control);

		/* Once more: this one runs while we still have the cycle lock. */
		before_shmem_exit(service_exit, PointerGetDatum(s));
		dmu_timers_start(s->control);
		if (dmu_queue_stop(s->control) == DMU_STOP_NONE)
			begin_service(s);
		while (dmu_queue_stop(s->control) == DMU_STOP_NONE)
			go_round(s);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, s->context);
		if (error->sqlerrcode != ERRCODE_QUERY_CANCELED)
			dmu_allowed_explain(s->control, error, s->context);
		note_error(s, error);
	}
	PG_END_TRY();
	dmu_timers_stop();
	MemoryContextSwitchTo(s->context);

	PG_TRY();
	{
		end_service(s);
	}
	PG_CATCH();
	{
		dmu_error_catch(error, s->context);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("%s: service could not write its end into the history: %s",
						dmu_log_cycle(), error->message)));
		note_error(s, error);
	}
	PG_END_TRY();
	log_end(s);

	dmu_directory_leave();
	dmu_queue_set_phase(s->control, DMU_PHASE_FINISHED);
}
