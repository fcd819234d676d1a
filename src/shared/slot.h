/*-------------------------------------------------------------------------
 *
 * slot.h
 *		What workers count in the shared memory of their cycle, which queue.h
 *		describes.
 *
 *		Raises nothing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_SLOT_H
#define DMU_SLOT_H

#include "queue.h"

/* The slot of a worker, by its number. */
extern DmuSlot *dmu_slot(DmuControl *control, int number);

/* For the worker that owns the slot. */
extern void dmu_slot_init(DmuSlot *slot);
extern void dmu_slot_set_state(DmuSlot *slot, DmuWorkerState state);
extern void dmu_slot_begin(DmuSlot *slot, const DmuQueueEntry *entry);
extern void dmu_slot_end(DmuControl *control, DmuSlot *slot,
						 DmuOutcome outcome);

/* The statements of the procedure were planned for it alone. */
extern void dmu_slot_plans_alone(DmuSlot *slot);

/* Its turn is over without an outcome; only its time counts for now. */
extern void dmu_slot_postpone(DmuSlot *slot);

/* An outcome that was settled when the time was counted already. */
extern void dmu_slot_count(DmuSlot *slot, DmuPriority priority,
						   DmuOutcome outcome);

/* The sums of one slot, and of all slots of one priority or (-1) of all. */
extern void dmu_slot_tally(DmuSlot *slot, int priority, DmuTally *tally);
extern void dmu_queue_tally(DmuControl *control, int priority, DmuTally *tally);

/* The profiles of all slots as one; for when their workers have stopped. */
extern void dmu_queue_profile(DmuControl *control, DmuProfile *profile);

/* For then, too; datamart users that were planned for alone, see settings.h. */
extern void dmu_queue_idle(DmuControl *control, DmuIdle *idle);
extern int64 dmu_queue_planned_alone(DmuControl *control);

/*
 * Microseconds until the queue is empty, with the workers that are at work;
 * negative if nobody knows.  Reads all slots, and no entry of the queue.
 */
extern double dmu_queue_time_left(DmuControl *control, TimestampTz now);

/* Datamart users with an outcome, whatever it is. */
extern int64 dmu_tally_done(const DmuTally *tally);

#endif							/* DMU_SLOT_H */
