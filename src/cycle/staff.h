/*-------------------------------------------------------------------------
 *
 * staff.h
 *		The workers of a service, beside its coordinator.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_STAFF_H
#define DMU_STAFF_H

#include "launch.h"
#include "queues.h"

typedef struct DmuStaff DmuStaff;

/* For the life of the process. */
extern DmuStaff *dmu_staff_create(DmuControl *control, dsm_handle handle);

/*
 * Settles what those left behind that have ended since.  No transaction may be
 * open.
 */
extern void dmu_staff_reap(DmuStaff *staff, DmuQueues *queues);

/*
 * Has workers started until there are as many as wanted, if there are free
 * processes; returns how many there are, those that just start too.
 */
extern int	dmu_staff_hire(DmuStaff *staff, int wanted);

/* The next cycle begins: those that are there are idle. */
extern void dmu_staff_are_idle(DmuStaff *staff);

/*
 * Has the postmaster end those that have not joined yet: one may wait for a
 * lock on the database, whose holder waits for this process to go.  The flag
 * is set, so whoever joins now does nothing.
 */
extern void dmu_staff_recall(DmuStaff *staff);

/* Waits until all have ended, as dmu_await_workers() does; the flag is set. */
extern void dmu_staff_wait(DmuStaff *staff);

/* Has the postmaster end those that have not started yet; for callbacks. */
extern void dmu_staff_terminate(DmuStaff *staff);

#endif							/* DMU_STAFF_H */
