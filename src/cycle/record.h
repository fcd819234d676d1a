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

/*
 * It was not refreshed, and that is no failure.  With "contention" it gets a
 * short back-off, see dmu_failures_defer(); once it is "settled" that there is
 * no second turn, the log of attempts has it.
 */
extern void dmu_record_deferral(DmuControl *control, int64 dimension_user_id,
								const DmuError *error, bool contention,
								bool settled);

/* Those that were to have a second turn, when the cycle had to stop. */
extern void dmu_record_put_off(DmuControl *control, const int64 *ids, int nids);

#endif							/* DMU_RECORD_H */
