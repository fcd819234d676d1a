/*-------------------------------------------------------------------------
 *
 * explain.h
 *		What the author of a procedure should know of an error.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_EXPLAIN_H
#define DMU_EXPLAIN_H

#include "datamart_users.h"
#include "timers.h"

/*
 * Adds a hint to an error of a refresh, or puts the limit in its place that
 * had run out.  "call_limit" is that of the CALL, milliseconds.
 */
extern void dmu_explain_failure(DmuError *error, DmuLimit out_of_time,
								int call_limit);

/* The error of a refresh whose time has run out. */
extern void dmu_explain_timeout(DmuError *error, DmuLimit limit,
								int call_limit);

#endif							/* DMU_EXPLAIN_H */
