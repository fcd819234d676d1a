/*-------------------------------------------------------------------------
 *
 * timers.h
 *		The timers of a worker process: how a refresh is stopped from outside.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_TIMERS_H
#define DMU_TIMERS_H

#include "queue.h"

/* From a cancel until the process is terminated, milliseconds. */
#define DMU_CANCEL_GRACE 3000

/* Begins to watch the stop flag of the cycle, in this process. */
extern void dmu_timers_start(DmuControl *control);

/* Ends it; a cancel that was still pending is forgotten. */
extern void dmu_timers_stop(void);

/* Gives the next datamart user "timeout" milliseconds; 0 = no limit. */
extern void dmu_timers_begin(int timeout);

/* True if the time of the datamart user at work has run out. */
extern bool dmu_timers_out_of_time(void);

/*
 * Ends that, and forgets a cancel that came too late.  True if the time had
 * run out.
 */
extern bool dmu_timers_end(void);

#endif							/* DMU_TIMERS_H */
