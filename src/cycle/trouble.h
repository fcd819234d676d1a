/*-------------------------------------------------------------------------
 *
 * trouble.h
 *		To whom an error of a refresh is charged: the datamart user, or nobody,
 *		because it would hit everybody.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_TROUBLE_H
#define DMU_TROUBLE_H

#include "queue.h"

/*
 * In the process of a worker whose refresh has failed, with no transaction
 * open.  True if the cycle must not go on: "error" is the error that ends it
 * then, of which the datamart user at work is not to be charged.  "probe" says
 * that the datamart user was taken from the tail of the queue.
 */
extern bool dmu_trouble_ends_cycle(DmuControl *control, DmuError *error,
								   bool probe);

/* True if such an error can be everybody's at all. */
extern bool dmu_trouble_is_suspect(int sqlerrcode);

/* True if the next datamart user should come from elsewhere in the queue. */
extern bool dmu_trouble_wants_probe(DmuControl *control);

/*
 * In the coordinator, when all other workers have stopped and no transaction
 * is open: ends the cycle with an error that has hit all of a short queue, and
 * takes back the back-offs that were given out for the error that ends it.
 * Raises nothing: where it cannot, there is a WARNING, and the back-offs stay.
 */
extern void dmu_trouble_settle(DmuControl *control);

/*
 * For the coordinator between two datamart users, and while it waits: a cancel
 * of it is one of the cycle.  No transaction may be open.
 */
extern void dmu_trouble_take_cancel(DmuControl *control);

#endif							/* DMU_TROUBLE_H */
