/*-------------------------------------------------------------------------
 *
 * fill.h
 *		Fills the queue of a cycle with those who wait, in their order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_FILL_H
#define DMU_FILL_H

#include "counts.h"
#include "queue.h"

/* Whom the cycle found flagged, those under back-off and those parked too. */
typedef struct DmuLook
{
	TimestampTz at;
	int64		backlog;		/* how many that are */
	int64		waiting;		/* of these, neither held nor parked */
	int32		max_users;		/* what the limit came to */
	int64	   *ids;			/* palloc'd, in no order */
	int			nids;
	bool		since_is_told;	/* the users table says since when */
	DmuCounts  *counts;			/* of those not held, palloc'd; or NULL */
} DmuLook;

/*
 * Who is to be refreshed, in order, as far as "max_users" goes, or the settings
 * with DMU_USERS_BY_SETTINGS; palloc'd in "context", as are the ids in "look".
 * Returns how many.  Waits for no lock longer than lock_timeout, and, unless that
 * is 0, "lock_wait" milliseconds.  No transaction may be open.  Raises whatever
 * the prioritisation raises.
 */
extern uint32 dmu_fill_look(const DmuRequest *request, int32 max_users,
							int lock_wait, MemoryContext context,
							DmuLook *look, DmuQueueEntry **entries);

/*
 * Makes the queue segment, and enters backlog, limit and what was found into
 * the control segment; whom it found goes into "look".  No transaction may be open; "context" is left with
 * some memory that lasts as long as the cycle.  Raises whatever the
 * prioritisation raises.
 */
extern void dmu_fill_queue(DmuControl *control, MemoryContext context,
						   DmuLook *look);

#endif							/* DMU_FILL_H */
