/*-------------------------------------------------------------------------
 *
 * stop.h
 *		The stop flag of a cycle, which queue.h describes.
 *
 *		For any process that has the control segment.  Raises nothing, and so is
 *		for callbacks at the end of a process, too.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_STOP_H
#define DMU_STOP_H

#include "queue.h"

/* What has been asked for. */
extern DmuStop dmu_queue_stop(DmuControl *control);

/*
 * Never weakens an earlier request.  From DMU_STOP_CANCEL on it wakes the
 * processes of the cycle.
 */
extern void dmu_queue_request_stop(DmuControl *control, DmuStop stop);

/*
 * Cancels what they are at, as pg_cancel_backend() would, so that they look at
 * the stop flag; for whoever waits until they have stopped, in case that one
 * was not heeded.  Of another build's cycle it reaches the coordinator, which
 * goes on to do the same.
 */
extern void dmu_queue_wake(DmuControlHead *head);

/*
 * The same once a second, for a loop that calls it more often: "last" is 0 at
 * first.
 */
extern void dmu_queue_wake_again(DmuControlHead *head, TimestampTz *last);

/*
 * Somebody asks for a cancel, of a cycle of any build.  "reason" is for its
 * history, and that of whoever comes first stays; another build cannot be told.
 */
extern void dmu_queue_cancel(DmuControlHead *head, const char *reason);

/*
 * The same for a service that is to end when those at work are finished; of
 * this build.
 */
extern void dmu_queue_end_service(DmuControl *control, const char *reason);

/* That reason; a constant string where there is none. */
extern const char *dmu_queue_stop_reason(DmuControl *control);

/*
 * As dmu_queue_request_stop(), with the error that ends the cycle; if there is
 * one already, that one stays.
 */
extern void dmu_queue_stop_with_error(DmuControl *control, DmuStop stop,
									  const DmuError *error);

#endif							/* DMU_STOP_H */
