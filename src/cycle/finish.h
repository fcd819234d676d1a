/*-------------------------------------------------------------------------
 *
 * finish.h
 *		The end of a cycle, of whatever kind.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_FINISH_H
#define DMU_FINISH_H

#include "launch.h"

/*
 * Commits what has to be durable.  A cancel ends its wait for a synchronous
 * standby, as it does for any session; the control segment notes that.
 */
extern void dmu_finish_commit(DmuControl *control, MemoryContext context);

/*
 * What became of the datamart user at which a worker was that has ended: it
 * failed.  False if it was at none.  No transaction may be open.
 */
extern bool dmu_finish_lost_worker(DmuControl *control, int number);

/*
 * When nobody is at work any more: settles those whom lost workers were at and
 * those of the entries that are put off, and does the rest of what
 * dmu_finish_cycle() does.
 */
extern void dmu_finish_settle(DmuControl *control, DmuQueueEntry *entries,
							  uint32 nentries);

/*
 * Waits for them, and writes the result of the cycle into the control segment and,
 * if it got as far as having a row there, the history.  No transaction may be
 * open.  Raises whatever keeps the history from being
 * written; the workers have stopped by then.
 */
extern void dmu_finish_cycle(DmuControl *control,
							 BackgroundWorkerHandle **workers, int nworkers);

#endif							/* DMU_FINISH_H */
