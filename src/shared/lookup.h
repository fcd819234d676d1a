/*-------------------------------------------------------------------------
 *
 * lookup.h
 *		One datamart user in the caller's tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_LOOKUP_H
#define DMU_LOOKUP_H

#include "warehouse.h"

/*
 * Raises 22023 if the users table has no such datamart user, as far as the
 * current role may see its rows; it needs SELECT on the key.  Of the warehouse
 * only the users table has to be known.  Needs a transaction.
 */
extern void dmu_lookup_require(const DmuWarehouse *warehouse,
							   int64 dimension_user_id);

/*
 * True if it is there, as far as the current role may see, and its flag is set.
 * Of the warehouse only the users table has to be known.  Needs a transaction,
 * and SELECT on both columns.
 */
extern bool dmu_lookup_is_flagged(const DmuWarehouse *warehouse,
								  int64 dimension_user_id);

/*
 * How many facts it has, of which no more than "limit" are counted.  Needs a
 * transaction, and SELECT on the column of the facts.
 */
extern int64 dmu_lookup_actions(const DmuWarehouse *warehouse,
								int64 dimension_user_id, int64 limit);

#endif							/* DMU_LOOKUP_H */
