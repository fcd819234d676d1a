/*-------------------------------------------------------------------------
 *
 * profile.h
 *		How long refreshes took and how they were spread over a cycle.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PROFILE_H
#define DMU_PROFILE_H

#include "datamart_users.h"

#include "port/atomics.h"

/* Four buckets for each doubling from 64 microseconds up to 38 hours. */
#define DMU_NBUCKETS 128

/* Seconds that are kept one by one, for the present speed. */
#define DMU_NRECENT 16

/* Parts that the time of a cycle is divided into. */
#define DMU_NSAMPLES 64

/* How many of the slowest refreshes are told by name. */
#define DMU_NSLOWEST 10

/* One slow refresh. */
typedef struct DmuSlowRefresh
{
	int64		dimension_user_id;
	int64		usec;
	uint32		actions;		/* facts */
	DmuPriority priority;
	DmuOutcome	outcome;
} DmuSlowRefresh;

/*
 * Kept by one worker in its slot.  Other processes may read "recent" at any
 * time, the rest when the worker has stopped.
 */
typedef struct DmuProfile
{
	pg_atomic_uint64 recent[DMU_NRECENT];	/* second and count, packed */
	uint32		buckets[DMU_NPRIORITIES][DMU_NBUCKETS]; /* refreshes */
	uint32		samples[DMU_NSAMPLES];	/* datamart users */
	int32		sample_seconds; /* width of a sample, a power of two */
	int32		nslowest;
	DmuSlowRefresh slowest[DMU_NSLOWEST];	/* the slowest first */
	DmuSlowRefresh last;		/* the latest; not merged */
} DmuProfile;

/*
 * What the end of a cycle costs: who is through waits for whoever has the last
 * datamart user.  Microseconds.
 */
typedef struct DmuIdle
{
	int			workers;		/* that took part; 0 = nothing is known */
	int64		usec;			/* of all workers, until the last one was done */
	int64		total_usec;		/* the same, from the filling of the queue on */
	int			worker;			/* that was the last */
	DmuSlowRefresh last;		/* that it was at */
} DmuIdle;

extern void dmu_profile_init(DmuProfile *profile);

/*
 * Adds a datamart user that took "refresh->usec" microseconds and was done
 * "now", in a cycle that works since "begun".
 */
extern void dmu_profile_add(DmuProfile *profile, TimestampTz begun,
							TimestampTz now, const DmuSlowRefresh *refresh);

/* Adds one profile to another. */
extern void dmu_profile_merge(DmuProfile *into, const DmuProfile *from);

/* Datamart users done in each of the last "seconds" full seconds, added up. */
extern int64 dmu_profile_recent(DmuProfile *profile, TimestampTz now,
								int seconds);

/* Upper bound of a bucket, microseconds. */
extern int64 dmu_profile_bucket_upto(int bucket);

/*
 * Refreshes in each bucket and their sum, of one priority, or of all if it is
 * negative.
 */
extern uint64 dmu_profile_histogram(const DmuProfile *profile, int priority,
									uint64 histogram[DMU_NBUCKETS]);

/*
 * The time that "fraction" of the refreshes of a histogram did not exceed, where
 * none took longer than "longest"; microseconds.
 */
extern int64 dmu_profile_percentile(const uint64 histogram[DMU_NBUCKETS],
									double fraction, int64 longest);

#endif							/* DMU_PROFILE_H */
