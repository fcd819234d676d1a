/*-------------------------------------------------------------------------
 *
 * lookup.h
 *		One datamart user in the caller's users table.
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

#endif							/* DMU_LOOKUP_H */
