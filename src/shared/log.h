/*-------------------------------------------------------------------------
 *
 * log.h
 *		How a line in the server log begins that a process of a cycle writes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_LOG_H
#define DMU_LOG_H

#include "queue.h"

/*
 * In an ereport() that tells how a cycle goes on: it is not about the
 * statement that happens to run, which elog.c would append.
 */
#define DMU_LOG_ALONE errhidestmt(true), errhidecontext(true)

/*
 * This process belongs to that cycle, which has no id yet, or to a rehearsal.
 * Needs a transaction, in which it reads the name of the database.
 */
extern void dmu_log_begin(const DmuControl *control);

/*
 * "datamart_users cycle 12 in database "dwh"", and the same with a worker of
 * it: log_line_prefix tells database and application of a background worker
 * only where it asks for them, and nobody can filter by the cycle.  Static
 * memory, until the next call.
 */
extern const char *dmu_log_cycle(void);
extern const char *dmu_log_worker(int number);

#endif							/* DMU_LOG_H */
