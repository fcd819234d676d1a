/*-------------------------------------------------------------------------
 *
 * refresh.h
 *		One datamart user, one transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_REFRESH_H
#define DMU_REFRESH_H

#include "datamart_users.h"
#include "warehouse.h"

/* The prepared statements of one worker. */
typedef struct DmuRefresher DmuRefresher;

/* Something to do in the transaction of a refresh, before it clears the flag. */
typedef void (*DmuBeforeClear) (int64 dimension_user_id);

/*
 * Prepares the statements, for the life of the process.  Needs a transaction.
 * "warehouse" must live as long.
 */
extern DmuRefresher *dmu_refresh_prepare(const DmuWarehouse *warehouse);

/*
 * Refreshes one datamart user and clears its flag, in transactions of its
 * own: none may be open.  Raises nothing short of FATAL: if the outcome is
 * DMU_FAILED, "error" says why; for DMU_DEFERRED it has the last collision.
 */
extern DmuOutcome dmu_refresh(DmuRefresher *refresher, int64 dimension_user_id,
							  DmuBeforeClear before_clear, DmuError *error);

/* The statement that refreshes it, for pg_stat_activity and the log. */
extern const char *dmu_refresh_statement(DmuRefresher *refresher,
										 int64 dimension_user_id);

#endif							/* DMU_REFRESH_H */
