/*-------------------------------------------------------------------------
 *
 * priority.h
 *		Which datamart users a cycle takes, and in which order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PRIORITY_H
#define DMU_PRIORITY_H

#include "counts.h"
#include "datamart_users.h"
#include "failures.h"
#include "warehouse.h"

/* One row of the prioritisation query. */
typedef struct DmuQueueRow
{
	int64		dimension_user_id;
	int			recency_class;	/* 1 to 4, by the last action */
	int			activity_class; /* 1 to 3, by the number of actions */
	int64		action_count;	/* facts */
	bool		has_last_action;	/* false: last_action_at means nothing */
	TimestampTz last_action_at;
} DmuQueueRow;

typedef void (*DmuQueueRowConsumer) (const DmuQueueRow *row, void *arg);

/*
 * Who waits: each datamart user with the flag once, in order of its id.  All
 * of it is palloc'd in the context that was current at dmu_priority_look();
 * eight bytes a datamart user, or 48 where counts can be remembered.
 */
typedef struct DmuBacklog
{
	int64		total;			/* datamart users, those held too, but not
								 * those parked */
	int64		nwaiting;		/* datamart users that a cycle may take */
	struct ArrayType *waiting;	/* their ids, a bigint[] */
	int64	   *held;			/* ids of those left out, parked ones too */
	int			nheld;
	int			nparked;		/* of these */
	DmuCounts  *counts;			/* of those who wait; NULL: none are
								 * remembered.  After dmu_priority_run() to be
								 * stored by whoever may. */
} DmuBacklog;

/* critical to lowest, of the two classes. */
extern DmuPriority dmu_priority_of(int recency_class, int activity_class);

/*
 * Reads who waits, with the current role's rights.  Those that are held by
 * "failures", which are in order of their ids, are left out.  Needs a transaction.  Raises 54000 for more
 * than fit into an array, which are 134 million.
 */
extern void dmu_priority_look(const DmuWarehouse *warehouse,
							  const DmuFailure *failures, int nfailures,
							  DmuBacklog *backlog);

/*
 * One statement that gives the rows of dmu_priority_run(), for a person to
 * read and to EXPLAIN: the limit, the settings and the ids that back-off
 * holds written out.  Palloc'd.
 */
extern char *dmu_priority_query(const DmuWarehouse *warehouse,
								const DmuBacklog *backlog, int max_users);

/* In the place of a number of datamart users. */
#define DMU_WHOLE_BACKLOG (-1)

/*
 * Hands the first max_users of those who wait to "consume", in order; with
 * DMU_WHOLE_BACKLOG all of them, in no order at all.  Runs with the current role's
 * rights; its memory does not grow with the number of rows.
 * Needs a transaction.  "consume" runs in the memory context that was current
 * at the call, inside the executor and maybe in parallel mode: it must not
 * run SQL.
 */
extern void dmu_priority_run(const DmuWarehouse *warehouse,
							 const DmuBacklog *backlog, int max_users,
							 DmuQueueRowConsumer consume, void *arg);

#endif							/* DMU_PRIORITY_H */
