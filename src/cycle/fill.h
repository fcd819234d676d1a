/*-------------------------------------------------------------------------
 *
 * fill.h
 *		Fills the queue of a cycle with those who wait, in their order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_FILL_H
#define DMU_FILL_H

#include "queue.h"

/*
 * Makes the queue segment, and enters backlog, limit and what was found into
 * the control segment.  No transaction may be open; "context" is left with
 * some memory that lasts as long as the cycle.  Raises whatever the
 * prioritisation raises.
 */
extern void dmu_fill_queue(DmuControl *control, MemoryContext context);

#endif							/* DMU_FILL_H */
