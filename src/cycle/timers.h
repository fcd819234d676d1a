/*-------------------------------------------------------------------------
 *
 * timers.h
 *		How a refresh is stopped from outside, and by its time limits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_TIMERS_H
#define DMU_TIMERS_H

#include "queue.h"

/* From a cancel until the process is terminated, milliseconds. */
#define DMU_CANCEL_GRACE 3000

/* Which limit has run out. */
typedef enum DmuLimit
{
	DMU_LIMIT_NONE,
	DMU_LIMIT_USER,				/* user_timeout: of a datamart user */
	DMU_LIMIT_CALL				/* statement_timeout: of one CALL */
} DmuLimit;

/* Begins to heed the stop flag of the cycle, in this process. */
extern void dmu_timers_start(DmuControl *control);

/* Ends it; a cancel that was still pending is forgotten. */
extern void dmu_timers_stop(void);

/*
 * If the cycle is to stop, sees to it that nothing in this process holds that
 * up: from a tick later on it is canceled, and terminated when the grace is
 * over.
 */
extern void dmu_timers_look(void);

/*
 * The same for the end of a cycle, which is never terminated: the one thing
 * there that a cancel ends is a commit's wait for a synchronous standby.
 */
extern void dmu_timers_finish(DmuControl *control);

/* Gives the next datamart user "timeout" milliseconds; 0 = no limit. */
extern void dmu_timers_begin(int timeout);

/* The same for one CALL within that, which dmu_timers_end_call() ends. */
extern void dmu_timers_begin_call(int timeout);
extern void dmu_timers_end_call(void);

/* The limit of the datamart user at work that has run out. */
extern DmuLimit dmu_timers_out_of_time(void);

/*
 * Ends all of that, and forgets a cancel that came too late.  Returns the
 * limit that had run out.
 */
extern DmuLimit dmu_timers_end(void);

#endif							/* DMU_TIMERS_H */
