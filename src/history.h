/*-------------------------------------------------------------------------
 *
 * history.h
 *		The extension's own tables: cycles, priorities, failures, back-off.
 *
 *		Every function needs a transaction (or says otherwise), connects to SPI
 *		by itself, and runs as the owner of the tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_HISTORY_H
#define DMU_HISTORY_H

#include "datamart_users.h"

/* What is known when a cycle begins. */
typedef struct DmuCycleStart
{
	const char *role_name;
	TimestampTz started_at;
	int64		time_limit;		/* milliseconds, 0 = none */
	int32		workers_requested;
} DmuCycleStart;

/* What is known when it ends, beside its result. */
typedef struct DmuCycleEnd
{
	const DmuCycleResult *result;
	int32		max_users;
	int64		prioritisation_usec;
	const char *message;		/* or NULL */
	const int32 *found_by_priority; /* DMU_NPRIORITIES datamart users */
	const DmuTally *by_priority;	/* DMU_NPRIORITIES tallies */
} DmuCycleEnd;

/* One row of datamart_users_failures, as far as a queue needs it. */
typedef struct DmuFailure
{
	int64		dimension_user_id;
	bool		held;			/* its back-off has not run out */
} DmuFailure;

/* The role that owns the extension's tables; 55000 if there is none. */
extern Oid	dmu_history_owner(void);

/*
 * Marks what a dead coordinator left running as aborted, then adds the row of
 * a new cycle.  Returns its id; "aborted" is set to the number of dead ones.
 */
extern int64 dmu_history_begin(const DmuCycleStart *start, int *aborted);

/*
 * Writes down how a cycle ended, and removes what is older than
 * "retention" seconds (0 = nothing).
 */
extern void dmu_history_end(const DmuCycleEnd *end, int retention);

/*
 * The row of a cycle, false if there is none.  Sees what others have committed
 * until now unless the caller's transaction has a fixed snapshot.
 */
extern bool dmu_history_get(int64 cycle_id, DmuCycleResult *result);

/*
 * All failures, in order of dimension_user_id, palloc'd in the current
 * context.
 */
extern int	dmu_history_failures(DmuFailure **failures);

/* The ids of those that are held, in the same order; palloc'd. */
extern int64 *dmu_history_held(const DmuFailure *failures, int nfailures,
							   int *nheld);

/*
 * Adds a failure or counts one more attempt, with the back-off of "delay"
 * seconds doubled for every attempt after the first, up to "delay_max".
 */
extern void dmu_history_record_failure(int64 dimension_user_id, int64 cycle_id,
									   const DmuError *error,
									   int delay, int delay_max);

/* Forgets the failure of a datamart user; part of its refresh. */
extern void dmu_history_clear_failure(int64 dimension_user_id);

#endif							/* DMU_HISTORY_H */
