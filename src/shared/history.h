/*-------------------------------------------------------------------------
 *
 * history.h
 *		The history of cycles.  Every function needs a transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_HISTORY_H
#define DMU_HISTORY_H

#include "datamart_users.h"
#include "profile.h"

/* What is known when a cycle begins. */
typedef struct DmuCycleStart
{
	Oid			users;			/* the users table, which is the datamart */
	const char *users_name;		/* its name, quoted */
	const char *role_name;		/* that the cycle runs as */
	const char *session_role;	/* that its caller has logged in as; or NULL */
	const char *application_name;	/* of the caller; may be empty */
	int32		caller_pid;
	TimestampTz started_at;
	int64		time_limit;		/* milliseconds, 0 = none */
	int32		workers_requested;
} DmuCycleStart;

/* What is known when it ends, beside its result. */
typedef struct DmuCycleEnd
{
	const DmuCycleResult *result;
	Oid			users;			/* the users table */
	int32		max_users;
	int64		prioritisation_usec;
	const char *message;		/* or NULL */
	int			sqlerrcode;		/* of the error that ended it, or 0 */
	const int32 *found_by_priority; /* DMU_NPRIORITIES datamart users */
	const DmuTally *by_priority;	/* DMU_NPRIORITIES tallies */
	const DmuProfile *profile;
	const DmuIdle *idle;		/* NULL if it did not come to its end */
	int64		planned_alone;	/* datamart users */
} DmuCycleEnd;

/* How far it is, while it runs. */
typedef struct DmuCycleCounts
{
	int64		cycle_id;
	int64		backlog;
	int32		max_users;
	int32		found;
	int32		workers;
	int64		prioritisation_usec;
	const int32 *found_by_priority; /* DMU_NPRIORITIES datamart users */
	const DmuTally *by_priority;	/* DMU_NPRIORITIES tallies */
	const DmuTally *total;
} DmuCycleCounts;

/*
 * The ids of the cycles of a datamart, that of the users table, whose row says
 * running, and of those whose users table is gone; palloc'd in the current
 * context.  Returns how many.
 */
extern int	dmu_history_list_running(Oid users, int64 **cycle_ids);

/*
 * Marks those of the given cycles as aborted that still say running; their
 * coordinators must be dead.  "crashed" tells whether one of them began before
 * the server did, at "server_started".  Returns the number of cycles marked.
 */
extern int	dmu_history_mark_aborted(const int64 *cycle_ids, int ncycles,
									 TimestampTz server_started, bool *crashed);

/* Adds the row of a new cycle and returns its id. */
extern int64 dmu_history_begin(const DmuCycleStart *start);

/* Writes down how far a running cycle is; its row goes on to say running. */
extern void dmu_history_save_counts(const DmuCycleCounts *counts);

/* Writes down how a cycle ended. */
extern void dmu_history_end(const DmuCycleEnd *end);

/*
 * Removes what is older than "retention" seconds (0 = nothing) of a datamart,
 * and of those whose users table is gone.
 */
extern void dmu_history_remove_old(Oid users, int retention);

/*
 * The row of a cycle, false if there is none; as committed now, whatever
 * snapshot the transaction has.
 */
extern bool dmu_history_get(int64 cycle_id, DmuCycleResult *result);

/*
 * The SQLSTATE of the error that ended the datamart's cycle before that one,
 * 0 if it did not fail.
 */
extern int	dmu_history_previous_error(Oid users, int64 cycle_id);

#endif							/* DMU_HISTORY_H */
