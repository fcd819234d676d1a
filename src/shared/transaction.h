/*-------------------------------------------------------------------------
 *
 * transaction.h
 *		The role that a worker process works as.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_TRANSACTION_H
#define DMU_TRANSACTION_H

#include "postgres.h"

/* From now on, transactions begin as this role; with no transaction open. */
extern void dmu_transaction_assume(Oid role, int security_context);

/*
 * Begins a transaction as that role, whatever defaults for transactions the
 * session has: read committed and read-write.  Every transaction of a worker
 * process begins here.
 */
extern void dmu_transaction_begin(void);

/*
 * Has the open transaction commit synchronously: as "wanted" says, but to the
 * local disk at least.
 */
extern void dmu_transaction_be_durable(const char *wanted);

/*
 * How long we wait for somebody who has locked one of our tables or a catalog,
 * milliseconds.  A cycle must not hang because somebody repairs the
 * history by hand.
 */
#define DMU_LOCK_WAIT 10000

/*
 * Until the end of the transaction no lock is waited for longer than that,
 * milliseconds; the session may have asked for less.
 */
extern void dmu_transaction_limit_locks(int wait);

/*
 * Has the open transaction wait no longer than that for a lock, then 55P03, and
 * keeps cancels for after it; see cancel.h.
 */
extern void dmu_transaction_limit_waits(void);

/* Commits it, and goes on in the given memory context. */
extern void dmu_transaction_commit(MemoryContext context);

#endif							/* DMU_TRANSACTION_H */
