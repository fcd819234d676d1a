/*-------------------------------------------------------------------------
 *
 * stretch.h
 *		The cycle of a service: a stretch of work, a row of the history.
 *
 *		Part of its coordinator.  With no transaction open; cycles one after the
 *		other have the same DmuStretch.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_STRETCH_H
#define DMU_STRETCH_H

#include "queues.h"
#include "staff.h"

typedef struct DmuStretch DmuStretch;

/*
 * For the life of the process; none is on.  Goes on in "context", which the
 * caller resets.
 */
extern DmuStretch *dmu_stretch_create(DmuControl *control, DmuQueues *queues,
									  DmuStaff *staff, MemoryContext context);

/* Is a cycle on; and is it to begin nobody any more. */
extern bool dmu_stretch_is_on(const DmuStretch *stretch);
extern bool dmu_stretch_is_closing(const DmuStretch *stretch);

/* True if the coordinator itself has refreshed somebody in this round. */
extern bool dmu_stretch_is_busy(const DmuStretch *stretch);

/*
 * The next one begins, after a look at that time that has found so many flagged.
 * Raises what dmu_begin_cycle() raises; none is on then.
 */
extern void dmu_stretch_begin(DmuStretch *stretch, int64 backlog,
							  TimestampTz looked_at);

/*
 * What one round has to do for a cycle that is on: settles what was done, has
 * workers do what there is to do, and ends the cycle when that is due.  True if
 * that has ended it, and the next one may begin.  Raises whatever keeps its end
 * from being written.
 */
extern bool dmu_stretch_tend(DmuStretch *stretch);

/* The coordinator's settings have changed. */
extern void dmu_stretch_renew(DmuStretch *stretch);

/*
 * The service ends, and all workers have: so does a cycle that is on.  Where the
 * service ends by an error and none is on, one that did nothing is begun for the
 * history to tell, with that backlog.
 */
extern void dmu_stretch_finish(DmuStretch *stretch, int64 backlog);

#endif							/* DMU_STRETCH_H */
