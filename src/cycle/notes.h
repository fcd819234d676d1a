/*-------------------------------------------------------------------------
 *
 * notes.h
 *		What the coordinator writes down on the way.
 *
 *		Each in a transaction of its own, which nobody waits for to be durable
 *		and which waits for nobody for long.  If that fails the cycle goes on,
 *		and nothing is raised.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_NOTES_H
#define DMU_NOTES_H

#include "fill.h"
#include "queue.h"

/*
 * The queue is filled: keeps "look", whose ids it takes over, for what follows.
 * Writes nothing, so that a short cycle costs nothing more.
 */
extern void dmu_notes_begin(DmuLook *look);

/*
 * A service has looked, in or out of a cycle: stores what it has counted if that
 * is worth it, so that its next look need not count it again.
 */
extern void dmu_notes_counts(DmuControl *control, DmuLook *look);

/*
 * For a service, in the place of that: its last look, and who was refreshed
 * since the first one of the cycle; and the end of that.
 */
extern void dmu_notes_look(DmuLook *look);
extern void dmu_notes_fresh(int64 dimension_user_id);
extern void dmu_notes_forget(void);

/*
 * Between two datamart users; does nothing but compare two numbers, unless five
 * seconds have passed by "now".  Then it saves how far the cycle is in its row
 * of the history, for the case that nobody comes to write its end; since when
 * those wait whom the cycle has found; and that those who were refreshed do not
 * any more.
 */
extern void dmu_notes_on_the_way(DmuControl *control, TimestampTz now);

/* The same without the counts, when the cycle is over. */
extern void dmu_notes_end(DmuControl *control);

#endif							/* DMU_NOTES_H */
