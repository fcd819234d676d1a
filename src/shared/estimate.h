/*-------------------------------------------------------------------------
 *
 * estimate.h
 *		How long what is left of a queue will take.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_ESTIMATE_H
#define DMU_ESTIMATE_H

#include "postgres.h"

#include "port/atomics.h"

/* Datamart users by size: without actions, 1, 2 to 3, 4 to 7 and so on. */
#define DMU_NSIZES 33

/* What was done, by size.  Written by one worker, read by everybody. */
typedef struct DmuWork
{
	pg_atomic_uint64 done[DMU_NSIZES];	/* datamart users */
	pg_atomic_uint64 usec[DMU_NSIZES];	/* time for them, and for others that
										 * are not done yet */
} DmuWork;

/* The sums of all workers, and what is left; not shared. */
typedef struct DmuWorkLeft
{
	int64		done[DMU_NSIZES];
	int64		usec[DMU_NSIZES];
	int64		left[DMU_NSIZES];	/* datamart users */
} DmuWorkLeft;

/* The size of a datamart user with that many actions. */
extern int	dmu_estimate_size(uint32 actions);

extern void dmu_estimate_init(DmuWork *work);

/*
 * Adds "done" datamart users, 1 or 0, with that many actions and microseconds.
 * Its worker only.
 */
extern void dmu_estimate_add(DmuWork *work, uint32 actions, int done,
							 int64 usec);

/* Adds up the work of one worker. */
extern void dmu_estimate_sum(DmuWork *work, DmuWorkLeft *sum);

/*
 * Microseconds of one worker for all that is left, and for one of a size.
 * Sizes of which some are done take what those took on the average; the others
 * a + b * actions, as fits these best.  Negative if nothing is done.
 */
extern double dmu_estimate_left(const DmuWorkLeft *sum);
extern double dmu_estimate_one(const DmuWorkLeft *sum, int size);

#endif							/* DMU_ESTIMATE_H */
