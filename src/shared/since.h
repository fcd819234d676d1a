/*-------------------------------------------------------------------------
 *
 * since.h
 *		Since when datamart users wait: the users table tells it where
 *		users_since_column is set, else what cycles have seen.
 *
 *		Every function needs a transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_SINCE_H
#define DMU_SINCE_H

#include "priority.h"
#include "warehouse.h"

/*
 * Since when each of those in backlog->waiting is flagged, in the same order,
 * DT_NOEND where nobody knows; palloc'd.  Reads users_since_column with the
 * current role's rights.
 */
extern TimestampTz *dmu_since_list(const DmuWarehouse *warehouse,
								   const DmuBacklog *backlog);

/*
 * A cycle has found these ids flagged, at the time "at": remembers those that
 * it had not seen before, and forgets those that are no longer among them.
 * Takes time by the size of the backlog, and writes what has changed of it;
 * of those that are new a million at the most, the others have to wait for
 * the next look.
 */
extern void dmu_since_remember(Oid users, const int64 *ids, int nids,
							   TimestampTz at);

/* Forgets those with these ids: they were refreshed. */
extern void dmu_since_forget(Oid users, const int64 *ids, int nids);

/* Forgets all of the datamart, where a column tells it. */
extern void dmu_since_forget_all(Oid users);

#endif							/* DMU_SINCE_H */
