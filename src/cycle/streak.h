/*-------------------------------------------------------------------------
 *
 * streak.h
 *		The streak of errors that the workers of a cycle share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_STREAK_H
#define DMU_STREAK_H

#include "queue.h"

/*
 * Errors in a row, from any worker and without a success between them: do they
 * hit everybody?  A refresh that began before the first of them says nothing
 * of that.  They need not be equal: of a server that goes down, one refresh
 * loses its connection, and the next ones get none.
 */
typedef struct DmuStreak
{
	int			sqlerrcode;		/* of the first */
	int			failures;		/* datamart users */
	int			probes;			/* those of them taken from the tail */
} DmuStreak;

/*
 * The streak that stands, that with one more failure, and the end of one that
 * began with that SQLSTATE.
 */
extern DmuStreak dmu_queue_streak(DmuControl *control);
extern DmuStreak dmu_queue_add_to_streak(DmuControl *control, int sqlerrcode,
										 bool probe);
extern void dmu_queue_end_streak(DmuControl *control, int sqlerrcode);

#endif							/* DMU_STREAK_H */
