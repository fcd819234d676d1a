/*-------------------------------------------------------------------------
 *
 * cycle.h
 *		A cycle as a backend sees it: start, wait, cancel.
 *
 *		None of these holds a lock on the warehouse.  All of them can be
 *		canceled, and raise 40P01 if the cycle waits for a lock of this
 *		backend.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_CYCLE_H
#define DMU_CYCLE_H

#include "request.h"

/*
 * Starts a cycle that goes on by itself.  Returns its id when its running row
 * is committed.  Raises the error of a cycle that could not begin, 55006 if
 * another one is running, and 53000 if there is no free worker process.
 */
extern int64 dmu_cycle_start(const DmuRequest *request);

/*
 * The same, and waits for the end; an error that ended the cycle is raised.
 * If this backend is canceled or ends, so does the cycle.
 */
extern void dmu_cycle_run(const DmuRequest *request, DmuCycleResult *result);

/*
 * Starts a service, which goes on by itself; returns when it has looked for the
 * first time.  False if the datamart has one.  Raises what dmu_cycle_start()
 * raises.
 */
extern bool dmu_cycle_start_service(const DmuRequest *request);

/*
 * Has the service of a datamart end when those at work are finished, and waits
 * until its processes have gone; InvalidOid as below.  False if there is none,
 * or if it has not ended within "timeout" milliseconds (negative: no limit);
 * then it still ends.  Raises 42501 as below.
 */
extern bool dmu_cycle_stop_service(Oid users, int64 timeout);

/*
 * Waits until a cycle of this database, whoever started it, has ended, or
 * until "timeout" milliseconds (negative: no limit) have passed; then the
 * status is still running.  Raises 22023 for an id that never was.
 */
extern void dmu_cycle_wait(int64 cycle_id, int64 timeout,
						   DmuCycleResult *result);

/*
 * Stops a running cycle of this database and waits until it has ended; false
 * if it does not run.  Raises 42501 unless the current role could cancel a
 * query of the cycle's.
 */
extern bool dmu_cycle_cancel(int64 cycle_id);

/*
 * The same for the cycle of a datamart.  InvalidOid stands for the only cycle
 * of the database; raises 55000 if there are several.
 */
extern bool dmu_cycle_cancel_datamart(Oid users);

#endif							/* DMU_CYCLE_H */
