/*-------------------------------------------------------------------------
 *
 * record.h
 *		Writes down what became of a datamart user that was not refreshed.
 *
 *		Each in a transaction of its own.  If that fails, a WARNING says so,
 *		and nothing is raised.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_RECORD_H
#define DMU_RECORD_H

#include "queue.h"

/*
 * A failure, with its back-off; the log gets a WARNING with the whole error,
 * as of worker "number".  "nowait" as with dmu_failures_record().
 */
extern void dmu_record_failure(DmuControl *control, int number,
							   int64 dimension_user_id, const DmuError *error,
							   bool nowait);

/* It collided in its procedure; see dmu_failures_defer(). */
extern void dmu_record_contention(DmuControl *control,
								  int64 dimension_user_id,
								  const DmuError *error);

#endif							/* DMU_RECORD_H */
