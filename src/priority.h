/*-------------------------------------------------------------------------
 *
 * priority.h
 *		Which datamart users a cycle takes, and in which order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PRIORITY_H
#define DMU_PRIORITY_H

#include "datamart_users.h"
#include "warehouse.h"

/* One row of the prioritisation query. */
typedef struct DmuQueueRow
{
	int64		dimension_user_id;
	int			recency_class;	/* 1 to 4, the seed's level 1 */
	int			activity_class; /* 1 to 3, the seed's level 2 */
	int64		action_count;	/* facts */
	bool		has_last_action;	/* false: last_action_at means nothing */
	TimestampTz last_action_at;
} DmuQueueRow;

typedef void (*DmuQueueRowConsumer) (const DmuQueueRow *row, void *arg);

/* critical to lowest, of the two classes. */
extern DmuPriority dmu_priority_of(int recency_class, int activity_class);

/*
 * The text of the query, complete, for a person to EXPLAIN: the limit, the
 * settings and the ids that back-off holds written out.  Palloc'd.
 */
extern char *dmu_priority_query(const DmuWarehouse *warehouse, int max_users,
								const int64 *held, int nheld);

/*
 * Runs that query with the current role's rights and hands the rows to
 * "consume", in order; with max_users 0 all of them, in no order at all.  Its
 * memory does not grow with the number of rows.
 * Needs a transaction; connects to SPI by itself.  "consume" runs in the
 * memory context that was current at the call, inside the executor and maybe
 * in parallel mode: it must not run SQL.  Returns the rows handed over.
 */
extern int64 dmu_priority_run(const DmuWarehouse *warehouse, int max_users,
							  const int64 *held, int nheld,
							  DmuQueueRowConsumer consume, void *arg);

/* All datamart users with modified, held ones too. */
extern int64 dmu_priority_backlog(const DmuWarehouse *warehouse);

#endif							/* DMU_PRIORITY_H */
