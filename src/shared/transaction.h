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

/* Commits it, and goes on in the given memory context. */
extern void dmu_transaction_commit(MemoryContext context);

#endif							/* DMU_TRANSACTION_H */
