/*-------------------------------------------------------------------------
 *
 * allowed.h
 *		May a service go on?
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_ALLOWED_H
#define DMU_ALLOWED_H

#include "queue.h"

/*
 * Writes down what the extension is when the service starts.  Needs a
 * transaction.
 */
extern void dmu_allowed_begin(DmuControl *control);

/*
 * Raises what a cycle would be refused for that the same role started now:
 * 42501 or 42704 for a role that has lost its rights, or has gone, 55000 for an
 * extension that is another one by now.  Needs a transaction.
 */
extern void dmu_allowed_check(DmuControl *control);

/*
 * For the error that ends the service: where the extension is another one by
 * now, or has gone, that says more than whatever was met when it went, and takes
 * its place.  In "context"; no transaction may be open.  Raises nothing.
 */
extern void dmu_allowed_explain(const DmuControl *control, DmuError *error,
								MemoryContext context);

/*
 * False if somebody is about to drop, rename, move or copy the database.  Waits
 * for nothing, holds nothing, and needs no transaction.
 */
extern bool dmu_allowed_in_database(void);

#endif							/* DMU_ALLOWED_H */
