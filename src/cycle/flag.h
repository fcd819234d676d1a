/*-------------------------------------------------------------------------
 *
 * flag.h
 *		The flag of a datamart user: whether it is set, and how it is cleared.
 *
 *		All functions need the transaction of a refresh with an SPI connection
 *		and an active snapshot, and a lock on the users table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_FLAG_H
#define DMU_FLAG_H

#include "postgres.h"

#include "warehouse.h"

/* The prepared statements on the users table of one worker. */
typedef struct DmuFlag DmuFlag;

/* Something to do in the transaction of a refresh, before it clears the flag. */
typedef void (*DmuBeforeClear) (int64 dimension_user_id);

/* What the server says of an update of the flag. */
typedef struct DmuFlagUpdate
{
	bool		counted;		/* false: a rule did something else instead */
	uint64		affected;		/* rows, if counted */
	bool		plain;			/* no trigger, rule or view has a say */
} DmuFlagUpdate;

/* Until it is freed; "warehouse" must live as long. */
extern DmuFlag *dmu_flag_prepare(const DmuWarehouse *warehouse);
extern void dmu_flag_free(DmuFlag *flag);

extern bool dmu_flag_is_set(DmuFlag *flag, int64 dimension_user_id);

/*
 * The same, and locks the row until the end of the transaction.  Waits for
 * others a second at the most; raises 55P03 then, or 40001 if the row has
 * changed since the snapshot.  Locks nothing where that would not be the row
 * to update: a view or a table that is updated by an INSTEAD OF trigger or rule.
 */
extern bool dmu_flag_lock(DmuFlag *flag, int64 dimension_user_id);

/*
 * Clears it; before that, under the same limit of one second for locks, calls
 * "before_clear" if that is not NULL.  Raises what dmu_flag_lock() does, and
 * 55000 if the row that comes of it has the flag set.
 */
extern DmuFlagUpdate dmu_flag_clear(DmuFlag *flag, int64 dimension_user_id,
									DmuBeforeClear before_clear);

/*
 * Fires the deferred triggers of the whole transaction, and raises 55000 if
 * the flag was not cleared or did not stay so.  Looks at the row only where
 * that is not certain.
 */
extern void dmu_flag_verify(DmuFlag *flag, int64 dimension_user_id,
							const DmuFlagUpdate *update);

#endif							/* DMU_FLAG_H */
