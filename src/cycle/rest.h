/*-------------------------------------------------------------------------
 *
 * rest.h
 *		The rest of a worker of a service, and why one leaves.
 *
 *		Each is told the number of the worker whose process this is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_REST_H
#define DMU_REST_H

#include "queue.h"

/*
 * Waits until somebody sets the latch, or worker_idle_timeout is over, and gives
 * up the protection of the extension.  Where the rest "begins" the coordinator
 * is told that there is nothing to do.  No transaction may be open.  The process
 * ends with the postmaster.
 */
extern void dmu_rest_wait(DmuControl *control, int number, bool begins);

/* True if it has rested since then for so long that it gives back its slot. */
extern bool dmu_rest_is_over(int number, TimestampTz since);

/*
 * True if the process has more memory than worker_memory_limit, or began with
 * settings that have changed, and is the one to leave: one at a time, so that
 * the others keep their plans meanwhile.  It has to, then.  "weighed_at" is 0 at
 * first.
 */
extern bool dmu_rest_has_grown(DmuControl *control, int number,
							   TimestampTz *weighed_at);
extern bool dmu_rest_is_outdated(DmuControl *control, int number);

#endif							/* DMU_REST_H */
