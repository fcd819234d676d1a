/*-------------------------------------------------------------------------
 *
 * suspects.h
 *		What workers were about to do when the server went down.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_SUSPECTS_H
#define DMU_SUSPECTS_H

#include "postgres.h"

/*
 * Writes down durably what a worker is about to do.  A synchronous commit of
 * its own for every datamart user: for cycles that follow a crash only.  No
 * transaction may be open.
 */
extern void dmu_suspects_note(Oid users, const char *users_name, int worker,
							  int64 dimension_user_id, int64 cycle_id);

/* Forgets what the worker was about to do.  No transaction may be open. */
extern void dmu_suspects_forget(Oid users, int worker);

/* True if the datamart user still waits for a refresh. */
typedef bool (*DmuSuspectTest) (int64 dimension_user_id, void *arg);

/*
 * Forgets the notes of the datamart's last cycle.  If the server crashed in
 * it, those datamart users of which "still_waits" is true get a failure each,
 * and their number is returned.  Only for the holder of the cycle lock.  Needs a
 * transaction.
 */
extern int	dmu_suspects_settle(Oid users, const char *users_name,
								bool crashed, int delay, int delay_max,
								DmuSuspectTest still_waits, void *arg);

#endif							/* DMU_SUSPECTS_H */
