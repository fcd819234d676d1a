/*-------------------------------------------------------------------------
 *
 * looks.h
 *		The looks of a service: who waits now, and when to look again.
 *
 *		Part of its coordinator.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_LOOKS_H
#define DMU_LOOKS_H

#include "queues.h"
#include "stretch.h"

typedef struct DmuLooks DmuLooks;

/*
 * For the life of the process.  Whatever a look needs no longer than itself is
 * in "context", which the caller resets, and which is the current one after it.
 */
extern DmuLooks *dmu_looks_create(DmuControl *control, DmuQueues *queues,
								  DmuStretch *stretch, MemoryContext context);

/* Settings that change from here on are seen.  Needs a transaction. */
extern void dmu_looks_begin(DmuLooks *looks);

/*
 * Looks who waits.  The queue has them afterwards, and a cycle is begun if there
 * is somebody and none is on.  With no transaction open.  Raises what ends the
 * service: whatever dmu_allowed_check() and the prioritisation raise; but
 * collisions and locks of others only in the first look, which is that of
 * whoever starts the service.
 */
extern void dmu_looks_take(DmuLooks *looks);

/* Whom the last one found flagged, held ones too; 0 before the first one. */
extern int64 dmu_looks_backlog(const DmuLooks *looks);

/* When the next one is due, and if it is now. */
extern TimestampTz dmu_looks_next(const DmuLooks *looks);
extern bool dmu_looks_is_due(const DmuLooks *looks);
extern void dmu_looks_make_due(DmuLooks *looks);

/*
 * For a cycle that is on: where the queue is about to be empty, and others wait,
 * the next look is due as soon as it may be.
 */
extern void dmu_looks_hasten(DmuLooks *looks);

/* True once after a look that has found other settings, see renew.h. */
extern bool dmu_looks_take_renewal(DmuLooks *looks);

#endif							/* DMU_LOOKS_H */
