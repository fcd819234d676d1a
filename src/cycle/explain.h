/*-------------------------------------------------------------------------
 *
 * explain.h
 *		What the author of a procedure, or who reads of it, should know of an
 *		error.
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

/* A coordinator that is canceled ends its cycle. */
#define DMU_COORDINATOR_CANCELED \
	"canceling cycle because its coordinator was canceled"

/*
 * What was canceled by process "sender", as dmu_cancel_sender() has it: "what"
 * says what that means, and the name of the process follows.  Has a
 * transaction of its own; never fails.
 */
extern void dmu_explain_cancel(DmuError *error, const char *what, int sender);

#endif							/* DMU_EXPLAIN_H */
