/*-------------------------------------------------------------------------
 *
 * worker.h
 *		A worker: claims datamart users and refreshes them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_WORKER_H
#define DMU_WORKER_H

#include "queue.h"

/* Entry point of a background worker; the argument is a control segment. */
extern PGDLLEXPORT void dmu_worker_main(Datum main_arg);

/* A worker at work, in its own process. */
typedef struct DmuWorker DmuWorker;

/*
 * Begins to work as worker "number"; the result lasts as long as the process.
 * Raises an error if it could not work.
 */
extern DmuWorker *dmu_worker_begin(DmuControl *control, int number);

/*
 * Works until the queue is empty or the cycle is to stop.  Every datamart user
 * that it claimed has its outcome in the slot then, but one that was rolled
 * back because of a stop, and those that are to come again.
 */
extern void dmu_worker_first_turn(DmuWorker *worker);

/*
 * Works on those that collided in the first turn, of whatever worker.  For the
 * coordinator, when all other workers have stopped.
 */
extern void dmu_worker_second_turn(DmuWorker *worker);

/*
 * For the coordinator of a service: works on one datamart user, of the queue or
 * of those entries that are put off, from "position" on.  False if there is
 * none, or none may be taken.
 */
extern bool dmu_worker_take(DmuWorker *worker, DmuQueue *queue);
extern bool dmu_worker_take_again(DmuWorker *worker, DmuQueueEntry *entries,
								  uint32 nentries, uint32 *position);

/* Tells the log what came of it. */
extern void dmu_worker_end(DmuWorker *worker);

/*
 * The coordinator of a service, after its settings have changed: prepares anew.
 * False if it cannot take part any more.
 */
extern bool dmu_worker_renew(DmuWorker *run);

#endif							/* DMU_WORKER_H */
