/*-------------------------------------------------------------------------
 *
 * watchdog.h
 *		The timers of a worker process: how a refresh is stopped from outside.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_WATCHDOG_H
#define DMU_WATCHDOG_H

#include "queue.h"

/* From a cancel until the process is terminated, milliseconds. */
#define DMU_CANCEL_GRACE 3000

/* Begins to watch the stop flag of the cycle, in this process. */
extern void dmu_watchdog_start(DmuControl *control);

/* Ends it; a cancel that was still pending is forgotten. */
extern void dmu_watchdog_stop(void);

/* Gives the next datamart user "timeout" milliseconds; 0 = no limit. */
extern void dmu_watchdog_begin(int timeout);

/* True if the time of the datamart user at work has run out. */
extern bool dmu_watchdog_out_of_time(void);

/*
 * Ends that, and forgets a cancel that came too late.  True if the time had
 * run out.
 */
extern bool dmu_watchdog_end(void);

#endif							/* DMU_WATCHDOG_H */
