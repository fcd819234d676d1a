/*-------------------------------------------------------------------------
 *
 * failures.h
 *		Datamart users that failed, and their back-off.
 *
 *		All of it belongs to one datamart, which is known by the oid of its
 *		users table: whoever calls this has made sure that the current role may
 *		update that table's flag, or only reads.  Every function needs a
 *		transaction, but where it says otherwise.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_FAILURES_H
#define DMU_FAILURES_H

#include "datamart_users.h"

/*
 * Why a datamart user may have to wait: rows of datamart_users_failures,
 * datamart_users_contention and datamart_users_parked, as far as a queue needs
 * them.
 */
typedef struct DmuFailure
{
	int64		dimension_user_id;
	bool		held;			/* its back-off has not run out, or: */
	bool		parked;			/* it is out of the queue */
	TimestampTz next_attempt_at;	/* infinity if it is parked */
	bool		contention;		/* that is what holds it until then */
} DmuFailure;

/*
 * All failures of a datamart, in order of dimension_user_id, palloc'd in the
 * current context.
 */
extern int	dmu_failures_list(Oid users, DmuFailure **failures);

/* The failure of a datamart user in such an array, or NULL. */
extern const DmuFailure *dmu_failures_find(const DmuFailure *failures,
										   int nfailures,
										   int64 dimension_user_id);

/*
 * Ends the back-off of one datamart user, and takes it back into the queue if
 * it is parked; or ends that of all of the datamart where "dimension_user_id"
 * is NULL, but for those that are parked.  Returns how many were held.
 */
extern int	dmu_failures_retry(Oid users, const int64 *dimension_user_id);

/*
 * Adds a failure or counts one more attempt, with the back-off of "delay"
 * seconds doubled for every attempt after the first, up to "delay_max".
 * If the cycle has noted contention before, this is forgotten.  "nowait" is for a process that ends and cannot be interrupted any more:
 * raises 55P03 rather than wait for a lock.  Without failure_texts, nothing but
 * the SQLSTATE is told of the error.  The attempt goes to the log as well.
 */
extern void dmu_failures_record(Oid users, const char *users_name,
								int64 dimension_user_id, int64 cycle_id,
								const DmuError *error, int delay,
								int delay_max, bool nowait);

/*
 * To be called before that, in the same transaction, for a failure that might
 * have to be taken back: keeps what the row was before.
 */
extern void dmu_failures_keep_undo(Oid users, int64 dimension_user_id,
								   int64 cycle_id, int sqlerrcode);

/*
 * Puts back what was there before the cycle's failures with that SQLSTATE, and
 * before those recorded from "since" on with any other, as far as it was kept,
 * and takes the charge off their attempts in the log.
 * Returns how many.
 */
extern int	dmu_failures_take_back(Oid users, int64 cycle_id, int sqlerrcode,
								   TimestampTz since);

/* Forgets all that was kept, and that of users tables that are gone. */
extern void dmu_failures_forget_undo(Oid users);

/* One of the cycle's failures with that SQLSTATE. */
extern void dmu_failures_example(Oid users, int64 cycle_id, int sqlerrcode,
								 DmuError *error);

/*
 * Notes that the procedure kept colliding for a datamart user, with a short
 * back-off: ten seconds, or "delay" if that is less, doubled for every cycle
 * in a row up to "delay" seconds.  Nothing goes to the log: there may be a
 * second turn.
 */
extern void dmu_failures_defer(Oid users, const char *users_name,
							   int64 dimension_user_id, int64 cycle_id,
							   const DmuError *error, int delay);

/* Forgets failure and contention of a datamart user; part of its refresh. */
extern void dmu_failures_clear(Oid users, int64 dimension_user_id);

#endif							/* DMU_FAILURES_H */
