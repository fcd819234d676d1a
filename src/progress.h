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

/* Reads it; from any process, at any time, without a lock. */
extern void dmu_progress_read(DmuControl *control, DmuProgress *progress);

/*
 * Tells the client of this backend, as a NOTICE, how far the cycle is and how
 * fast it went since "before".
 */
extern void dmu_progress_notice(DmuControl *control, const DmuProgress *before,
								const DmuProgress *now);

/*
 * The result of a cycle that has not ended, as far as it is known.
 */
extern void dmu_progress_result(DmuControl *control, DmuCycleResult *result);

#endif							/* DMU_PROGRESS_H */
