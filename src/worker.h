/*-------------------------------------------------------------------------
 *
 * worker.h
 *		A worker: claims datamart users and refreshes them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_WORKER_H
#define DMU_WORKER_H

#include "queue.h"

/* Entry point of a background worker; the argument is a control segment. */
extern PGDLLEXPORT void dmu_worker_main(Datum main_arg);

/*
 * Works as worker "number" until the queue is empty or the cycle is to stop.
 * Every datamart user that it claimed has its outcome in the slot then, but
 * one that was rolled back because of a stop.  Raises an error only if it
 * could not begin.
 */
extern void dmu_worker_run(DmuControl *control, int number);

/*
 * Writes down a failure of a datamart user, in a transaction of its own.  If
 * even that fails, the log has both.  "nowait" as with dmu_failures_record().
 */
extern void dmu_worker_record_failure(DmuControl *control,
									  int64 dimension_user_id,
									  const DmuError *error, bool nowait);

#endif							/* DMU_WORKER_H */
