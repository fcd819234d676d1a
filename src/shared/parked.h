/*-------------------------------------------------------------------------
 *
 * parked.h
 *		Datamart users that somebody has taken out of the queue.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PARKED_H
#define DMU_PARKED_H

#include "postgres.h"

/*
 * SQL: a row of one of our tables, by its alias, is not of a parked datamart
 * user; for ownersql.h.
 */
#define DMU_NOT_PARKED(alias) \
	"NOT EXISTS (SELECT FROM %s.datamart_users_parked parked" \
	"             WHERE parked.users_oid = " alias ".users_oid" \
	"               AND parked.dimension_user_id = " alias ".dimension_user_id)"

/*
 * Takes a datamart user out of the queue of that users table, of which the
 * current role may update the flag; false if it was out already, which
 * replaces the reason.  Needs a transaction.  dmu_failures_retry() takes it
 * back.
 */
extern bool dmu_parked_add(Oid users, const char *users_name,
						   int64 dimension_user_id, const char *reason,
						   const char *role_name);

#endif							/* DMU_PARKED_H */
