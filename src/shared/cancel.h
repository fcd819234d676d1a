/*-------------------------------------------------------------------------
 *
 * cancel.h
 *		What a cancel does to a process of a cycle.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_CANCEL_H
#define DMU_CANCEL_H

#include "postgres.h"

/*
 * Takes over SIGINT.  Until dmu_cancel_connected() is called a cancel ends the
 * process, which may be waiting for a lock on a catalog and has nothing to go
 * on with.
 */
extern void dmu_cancel_init(void);
extern void dmu_cancel_connected(void);

/* What SIGINT does; for handlers. */
extern void dmu_cancel_request(void);

/*
 * From here to dmu_cancel_restore() a cancel is kept for later, while locks
 * can be waited for with lock_timeout: that is a cancel to the server, so
 * HOLD_CANCEL_INTERRUPTS() would hold it off as well.  To be restored also
 * after an error; more than once does no harm.
 */
extern void dmu_cancel_keep(void);
extern void dmu_cancel_restore(void);

/*
 * Forgets a cancel that is pending in this process; and, some time later: has
 * there been another one, and has somebody taken it?
 */
extern void dmu_cancel_clear(void);
extern bool dmu_cancel_was_taken(void);

/*
 * The process that has canceled this one since dmu_cancel_take(), if that has
 * been heeded: its pid, -1 if that is not known, 0 if there was none.  A cancel
 * by this process itself, a timer's or a procedure's, is none.
 */
extern int	dmu_cancel_sender(void);

/*
 * Takes a pending cancel, if there is one, and forgets who has sent any.
 * "sender" is set to that process, 0 or -1 if it is not known.
 */
extern bool dmu_cancel_take(int *sender);

#endif							/* DMU_CANCEL_H */
