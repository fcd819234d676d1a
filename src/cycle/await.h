/*-------------------------------------------------------------------------
 *
 * await.h
 *		Waiting for the workers of a cycle.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_AWAIT_H
#define DMU_AWAIT_H

#include "launch.h"

/*
 * Waits for the other workers of a cycle.  They stop by themselves, if need be
 * by the stop flag; a cancel of ours sets that.  Nobody waits for a lock of
 * this process meanwhile for whom a worker waits: dmu_owner_protect() has to be
 * called again.  No transaction may be open.
 */
extern void dmu_await_workers(DmuControl *control,
							  BackgroundWorkerHandle **workers, int nworkers);

#endif							/* DMU_AWAIT_H */
