/*-------------------------------------------------------------------------
 *
 * context.h
 *		The transaction that a cycle is called in, and its snapshot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_CONTEXT_H
#define DMU_CONTEXT_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/*
 * Raises 25001, or 25006 where nothing can be written, if the current
 * transaction must not start a cycle, or wait for one.  A transaction block
 * may if it is READ COMMITTED, has written nothing, has no savepoint and no
 * cursor open, and holds no lock that the work of a cycle could meet.
 * "function" is for the message.
 */
extern void dmu_context_check(const char *function);

/*
 * In a procedure: gives up the snapshot that CALL has taken, and later takes a
 * new one.  What other snapshots there are stays, such as that of a query
 * which calls a function that uses CALL, or of a block at REPEATABLE READ.
 * Where the isolation level keeps a snapshot and the context is not atomic,
 * this commits, and so ends what belongs to the transaction: settings by SET
 * LOCAL, mappings of segments.
 */
extern void dmu_context_release_snapshot(const CallContext * call);
extern void dmu_context_restore_snapshot(void);

#endif							/* DMU_CONTEXT_H */
