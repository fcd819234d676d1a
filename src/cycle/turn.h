/*-------------------------------------------------------------------------
 *
 * turn.h
 *		The turn of one datamart user: what its refresh came to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_TURN_H
#define DMU_TURN_H

#include "queue.h"

/* One worker, in its own process, as far as turns go. */
typedef struct DmuTurnTaker DmuTurnTaker;

/* For the life of the process. */
extern DmuTurnTaker *dmu_turn_create(DmuControl *control, int number);

/*
 * Looks the warehouse up and prepares the statements, before the first turn and
 * after settings have changed.  Needs a transaction.  Raises an error where
 * no cycle could begin with that warehouse.
 */
extern void dmu_turn_prepare(DmuTurnTaker *taker);

/*
 * Refreshes one datamart user, in transactions of its own: none may be open.
 * With cancels held; they are let in while it is at work.  "entry" is this
 * worker's alone, whose outcome is in it and in the slot then.  "probe" says
 * that it comes from the tail of the queue.  False if it has no outcome, or
 * none that is to be counted; the stop flag is set where the cycle must not go
 * on.  Raises nothing short of FATAL.
 */
extern bool dmu_turn_take(DmuTurnTaker *taker, DmuQueueEntry *entry,
						  bool probe);

#endif							/* DMU_TURN_H */
