/*-------------------------------------------------------------------------
 *
 * counts.h
 *		How many facts datamart users have, remembered by the versions of their
 *		rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_COUNTS_H
#define DMU_COUNTS_H

#include "postgres.h"

#include "access/transam.h"
#include "storage/block.h"
#include "storage/off.h"
#include "warehouse.h"

/* In DmuCount.flags. */
#define DMU_COUNT_KNOWN 0x80	/* the number of actions is there */
#define DMU_COUNT_HAS_LAST 0x40 /* so is a last action */
#define DMU_COUNT_EARLIER 0x20	/* not counted, but all actions are earlier
								 * than last_action */
#define DMU_COUNT_CLASSES 0x1f	/* the two classes, while an order is made */

/* In DmuCount.run: counted by this process. */
#define DMU_COUNT_NEW 255

/*
 * One datamart user: its row, and what is known of its facts.  40 bytes, in
 * memory as in the table.
 */
typedef struct DmuCount
{
	int64		dimension_user_id;
	int64		action_count;	/* facts */
	int64		last_action;	/* as the type of the column has it */
	Oid			relation;		/* that has the row: the table, a partition */
	TransactionId xmin;			/* of the row; invalid: nothing can be
								 * remembered of it */
	BlockNumber block;			/* where the row is */
	OffsetNumber offset;
	uint8		run;			/* of the table, or DMU_COUNT_NEW */
	uint8		flags;
} DmuCount;

/* What is too much for a backend to hold; the plain query takes over. */
#define DMU_COUNTS_MAX 2000000

/* Runs that can be told apart. */
#define DMU_MAX_RUNS 60

#define DMU_FINGERPRINT_LEN 32

/* Everybody who waits, in order of their ids, each once. */
typedef struct DmuCounts
{
	Oid			users;
	Oid			facts;
	uint8		fingerprint[DMU_FINGERPRINT_LEN];
	FullTransactionId as_of;	/* the next one when the rows were looked at */
	DmuCount   *list;			/* palloc'd */
	int64		n;
	double		expected;		/* rows with the flag, by the planner */
	bool		unique;			/* nobody was there more than once */
	int64		nknown;			/* entries whose number the table had, and
								 * that still wait */
	bool		counted;		/* by this process, at least some */
	int64		runs[DMU_MAX_RUNS]; /* names of the runs that were read */
	int			nruns;
	int64		nstored;		/* entries that the table has, of any use or
								 * none */
} DmuCounts;

/*
 * Whatever the facts are stored in and called: equal only where counts of one
 * hold for the other.  False if nothing can be remembered of this warehouse,
 * or for this role.  Needs a transaction.
 */
extern bool dmu_counts_fingerprint(const DmuWarehouse *warehouse,
								   uint8 fingerprint[DMU_FINGERPRINT_LEN]);

/*
 * Begins a look; NULL if nothing can be remembered in this transaction.  The
 * list is empty; palloc'd.
 */
extern DmuCounts *dmu_counts_begin(const DmuWarehouse *warehouse);

/*
 * Puts the list in order of the ids; of who is there more than once only one
 * entry stays, of which nothing can be remembered.
 */
extern void dmu_counts_sort(DmuCounts *counts);

/* The entry of an id, or NULL. */
extern DmuCount *dmu_counts_find(const DmuCounts *counts, int64 dimension_user_id);

/*
 * Enters what the table has for the row versions in the list, which is
 * complete and in order.  Needs an active snapshot.  Waits for no lock: where
 * the table is locked nothing is remembered.
 */
extern void dmu_counts_recall(DmuCounts *counts);

/* How many of those that can be remembered this process has counted. */
extern int64 dmu_counts_new(const DmuCounts *counts);

/* True if there is anything to write down. */
extern bool dmu_counts_are_news(const DmuCounts *counts);

/*
 * Writes down what was counted by this process, and takes away what has become
 * useless.  Waits for no lock: false if somebody has locked the table.  Needs a
 * transaction that may write; nothing has to be durable.
 */
extern bool dmu_counts_store(const DmuCounts *counts);

/*
 * The same at the end of the transaction, where nobody minds its xid any more;
 * for a statement by itself in a session that may write, else it does nothing.
 * An error is none of that statement.
 */
extern void dmu_counts_store_at_commit(const DmuCounts *counts);

/* These, in order, wait no more. */
extern void dmu_counts_drop(DmuCounts *counts, const int64 *ids, int64 nids);

#endif							/* DMU_COUNTS_H */
