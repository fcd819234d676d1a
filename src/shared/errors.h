/*-------------------------------------------------------------------------
 *
 * errors.h
 *		An error on its way from one process to another, or into a table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_ERRORS_H
#define DMU_ERRORS_H

#include "datamart_users.h"

/*
 * For PG_CATCH: moves the current error into "error", leaves error handling
 * and rolls back whatever transaction is open.  "context" is the memory
 * context to go on in.
 */
extern void dmu_error_catch(DmuError *error, MemoryContext context);

/* Takes over an error that is being reported. */
extern void dmu_error_copy(DmuError *error, const ErrorData *edata);

/* Fills in an error of our own; detail and hint may be NULL. */
extern void dmu_error_set(DmuError *error, int sqlerrcode, const char *message,
						  const char *detail, const char *hint);

/* Raises it again, at ERROR, in this process. */
extern void dmu_error_raise(const DmuError *error);

/* Reports it at a level; "prefix" goes before its message. */
extern void dmu_error_report(int elevel, const DmuError *error,
							 const char *prefix);

#endif							/* DMU_ERRORS_H */
