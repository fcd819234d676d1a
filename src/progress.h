/*-------------------------------------------------------------------------
 *
 * progress.h
 *		How far a running cycle is, from its shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PROGRESS_H
#define DMU_PROGRESS_H

#include "queue.h"

/* The state of a cycle at one moment. */
typedef struct DmuProgress
{
	TimestampTz at;
	int64		done;			/* datamart users with an outcome */
	DmuTally	total;
} DmuProgress;

/*
 * The running cycle of this database, from the moment that it has an id until
 * its history is written; or NULL.  "seg" is set as by dmu_queue_attach().
 */
extern DmuControl *dmu_progress_attach(dsm_segment **seg);

/* Raises 55006, naming it, if a cycle is running in this database. */
extern void dmu_progress_refuse_second(void);

/* Reads it; from any process, at any time, without a lock. */
extern void dmu_progress_read(DmuControl *control, DmuProgress *progress);

/*
 * Datamart users per second: over the last ten seconds, or over all if nothing
 * was done in them.
 */
extern double dmu_progress_rate(DmuControl *control, const DmuProgress *now);

/* The phase of a cycle, and what a worker does, in words; constant strings. */
extern const char *dmu_progress_phase_name(DmuControl *control);
extern const char *dmu_progress_state_name(DmuControl *control, int slot);

/* Tells the client of this backend, as a NOTICE, how far the cycle is. */
extern void dmu_progress_notice(DmuControl *control);

/*
 * The result of a cycle that has not ended, as far as it is known.
 */
extern void dmu_progress_result(DmuControl *control, DmuCycleResult *result);

#endif							/* DMU_PROGRESS_H */
