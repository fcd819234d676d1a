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
#include "flag.h"
#include "warehouse.h"

/* The prepared statements of one worker. */
typedef struct DmuRefresher DmuRefresher;

/*
 * How far an attempt got.  Whoever raises a collision (40001, 40P01, 55P03) at
 * DMU_STAGE_CALL is code of the user, and may raise it in every cycle; at any
 * other stage it is another transaction, that of an ETL mostly.
 */
typedef enum DmuStage
{
	DMU_STAGE_LOOK,				/* ours: is it modified, of whom is the row? */
	DMU_STAGE_CALL,				/* the procedure, and its deferred triggers */
	DMU_STAGE_CLEAR,			/* ours: the flag, and triggers on that table */
	DMU_STAGE_REWRITE			/* ours: a relation that was read was emptied,
								 * rewritten or replaced */
} DmuStage;

/*
 * Prepares the statements, until they are freed.  Needs a transaction.
 * "warehouse" must live as long.
 */
extern DmuRefresher *dmu_refresh_prepare(const DmuWarehouse *warehouse);
extern void dmu_refresh_free(DmuRefresher *refresher);

/*
 * From here on nothing is committed: every refresh goes as far as its commit,
 * deferred triggers and all else that can fail included, and is rolled back.
 */
extern void dmu_refresh_rehearse(DmuRefresher *refresher);

/*
 * Refreshes one datamart user and clears its flag, in transactions of its
 * own: none may be open.  "actions" is how many facts it has, or about that:
 * above custom_plan_actions the procedure's statements are planned for it alone.  Raises nothing short of FATAL: if the outcome is
 * DMU_FAILED, "error" says why; for DMU_DEFERRED it has the last collision.
 */
extern DmuOutcome dmu_refresh(DmuRefresher *refresher, int64 dimension_user_id,
							  uint32 actions, DmuBeforeClear before_clear, DmuError *error);

/*
 * True for a failure that other transactions may be the reason of, as the server
 * has no serialization failure for it: a row that our snapshot did not show was
 * in the way of ours, or DDL met other DDL.  It has been tried twice.
 */
extern bool dmu_refresh_may_have_collided(const DmuError *error);

/* True if in the last attempt the procedure was run with plans of its own. */
extern bool dmu_refresh_planned_alone(const DmuRefresher *refresher);

/* How far the last attempt of the last dmu_refresh() got. */
extern DmuStage dmu_refresh_stage(const DmuRefresher *refresher);

/* The statement_timeout that its last CALL had, milliseconds; 0 = none. */
extern int	dmu_refresh_call_limit(const DmuRefresher *refresher);

/* The statement that refreshes it, for pg_stat_activity and the log. */
extern const char *dmu_refresh_statement(DmuRefresher *refresher,
										 int64 dimension_user_id);

#endif							/* DMU_REFRESH_H */
