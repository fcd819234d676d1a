/*-------------------------------------------------------------------------
 *
 * queues.h
 *		The queues of a service, one after the other.
 *
 *		Part of its coordinator.  "Settled" is a datamart user whose turn is
 *		over and has been looked at here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_QUEUES_H
#define DMU_QUEUES_H

#include "queue.h"

typedef struct DmuQueues DmuQueues;

/* For the life of the process. */
extern DmuQueues *dmu_queues_create(DmuControl *control);

/*
 * Settles all that can be: keeps those that collided, and has those come again
 * no sooner than in a while who were taken and not refreshed.  Unmaps the
 * queues that nothing is left of.
 */
extern void dmu_queues_settle(DmuQueues *queues);

/* The worker is gone that was at this datamart user, whose turn is over. */
extern void dmu_queues_lose(DmuQueues *queues, int64 dimension_user_id);

/*
 * Takes out of the entries of a look, which was begun after the last
 * dmu_queues_settle(), those that are at work, were claimed since, or are not to
 * come now; returns how many are left.  With "close" nobody claims from
 * the queue any more that is there, so that what is left can be published.
 */
extern uint32 dmu_queues_filter(DmuQueues *queues, DmuQueueEntry *entries,
								uint32 nentries, bool close);

/*
 * True if these are the ones that the queue still has, in the same order.  Where
 * "behind" of them others wait, it may end earlier, if it still has half of what
 * it had.
 */
extern bool dmu_queues_is_same(DmuQueues *queues, const DmuQueueEntry *entries,
							   uint32 nentries, int64 behind);

/* Makes a queue of them, for everybody; the one before must be closed. */
extern void dmu_queues_publish(DmuQueues *queues, const DmuQueueEntry *entries,
							   uint32 nentries, int64 behind);

/* Nobody claims from the queue any more. */
extern void dmu_queues_close(DmuQueues *queues);

/* The queue to claim from, or NULL. */
extern DmuQueue *dmu_queues_current(DmuQueues *queues);

/* How many wait in it; and how many are claimed and not settled. */
extern uint32 dmu_queues_waiting(DmuQueues *queues);
extern uint32 dmu_queues_at_work(DmuQueues *queues);

/* How many dmu_queues_filter() takes out, or more. */
extern uint32 dmu_queues_left_out(DmuQueues *queues);

/* How many were settled since this was asked before. */
extern int64 dmu_queues_take_taken(DmuQueues *queues);

/* Those that are put off, to be worked on when nobody else works. */
extern DmuQueueEntry *dmu_queues_put_off(DmuQueues *queues, uint32 *nentries);

/* Settles these, too, whose second turn is over. */
extern void dmu_queues_settle_put_off(DmuQueues *queues);

/* Enters how many were found into the control segment; waiting ones, too. */
extern void dmu_queues_count(DmuQueues *queues);

/* The cycle is over: forgets what belongs to it. */
extern void dmu_queues_end_cycle(DmuQueues *queues);

#endif							/* DMU_QUEUES_H */
