/*-------------------------------------------------------------------------
 *
 * begin.h
 *		The beginning of a cycle, of whatever kind.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_BEGIN_H
#define DMU_BEGIN_H

#include "queue.h"

/*
 * Takes the cycle lock of the datamart and enters the control segment into the
 * directory; keeps the extension from being dropped.  Raises 55006 if another
 * process has the lock.  No transaction may be open.
 */
extern void dmu_begin_enter(DmuControl *control, dsm_handle handle,
							MemoryContext context);

/*
 * Settles what cycles left that came to no end: marks them as aborted, and who
 * was at work in a second crash running as failed.  dmu_begin_cycle() does that,
 * too; this is for whoever looks who waits before the cycle begins.  For whoever
 * has entered; no transaction may be open.
 */
extern void dmu_begin_settle(DmuControl *control, MemoryContext context);

/*
 * Marks as aborted what came to no end, and commits the running row of the
 * cycle, whose id and times go into the control segment.  For whoever has
 * entered; no transaction may be open.  If it raises an error there is no row,
 * and the id says nothing.
 */
extern void dmu_begin_cycle(DmuControl *control, TimestampTz started_at,
							MemoryContext context);

/*
 * The workers of a coordinator that was terminated end within the grace; waits
 * until they have, but not for ever.
 */
extern void dmu_begin_wait_for_orphans(DmuControl *control);

#endif							/* DMU_BEGIN_H */
