/*-------------------------------------------------------------------------
 *
 * profile.c
 *		How long refreshes took and how they were spread over a cycle.
 *
 *		Averages hide what people ask about: the slow ones, and when a cycle
 *		slowed down.  A histogram with buckets that grow with the time tells
 *		percentiles that are at most a quarter too high, one of each priority
 *		what the slow ones have in common; samples whose width doubles as the
 *		cycle gets longer tell its course.  All of it takes a fixed amount of
 *		memory.
 *		A profile has one writer, so nothing here needs a lock.
 *
 *		This file knows nothing of cycles, slots or SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "profile.h"

#include "port/pg_bitutils.h"
#include "utils/timestamp.h"

/* The first bucket ends at 2^6 microseconds. */
#define FIRST_BIT 6

/* In "recent", the count has the lower bits. */
#define COUNT_BITS 20
#define COUNT_MASK ((UINT64CONST(1) << COUNT_BITS) - 1)

void
dmu_profile_init(DmuProfile *profile)
{
	memset(profile, 0, sizeof(DmuProfile));
	for (int i = 0; i < DMU_NRECENT; i++)
		pg_atomic_init_u64(&profile->recent[i], 0);
	profile->sample_seconds = 1;
}

static int
bucket_of(int64 usec)
{
	int			bit;

	if (usec < (1 << FIRST_BIT))
		return 0;
	bit = pg_leftmost_one_pos64((uint64) usec);
	return Min(1 + (bit - FIRST_BIT) * 4 + (int) ((usec >> (bit - 2)) & 3),
			   DMU_NBUCKETS - 1);
}

int64
dmu_profile_bucket_upto(int bucket)
{
	int			bit = FIRST_BIT + (bucket - 1) / 4;

	if (bucket == 0)
		return 1 << FIRST_BIT;
	return (int64) (5 + (bucket - 1) % 4) << (bit - 2);
}

/* Makes every sample twice as wide. */
static void
widen_samples(DmuProfile *profile)
{
	for (int i = 0; i < DMU_NSAMPLES / 2; i++)
		profile->samples[i] = profile->samples[2 * i] +
			profile->samples[2 * i + 1];
	memset(&profile->samples[DMU_NSAMPLES / 2], 0,
		   sizeof(uint32) * (DMU_NSAMPLES / 2));
	profile->sample_seconds *= 2;
}

static void
add_slow(DmuProfile *profile, const DmuSlowRefresh *refresh)
{
	int			i;

	if (profile->nslowest < DMU_NSLOWEST)
		profile->nslowest++;
	else if (refresh->usec <= profile->slowest[DMU_NSLOWEST - 1].usec)
		return;

	for (i = profile->nslowest - 1; i > 0 && profile->slowest[i - 1].usec < refresh->usec; i--)
		profile->slowest[i] = profile->slowest[i - 1];
	profile->slowest[i] = *refresh;
}

void
dmu_profile_add(DmuProfile *profile, TimestampTz begun, TimestampTz now,
				const DmuSlowRefresh *refresh)
{
	uint64		second = (uint64) (now / USECS_PER_SEC);
	pg_atomic_uint64 *recent = &profile->recent[second % DMU_NRECENT];
	uint64		packed = pg_atomic_read_u64(recent);
	int64		elapsed = Max(now - begun, 0) / USECS_PER_SEC;

	if (packed >> COUNT_BITS != second)
		packed = second << COUNT_BITS;
	if ((packed & COUNT_MASK) < COUNT_MASK)
		packed++;
	pg_atomic_write_u64(recent, packed);

	while (elapsed / profile->sample_seconds >= DMU_NSAMPLES)
		widen_samples(profile);
	profile->samples[elapsed / profile->sample_seconds]++;

	/* Who was skipped was not refreshed. */
	if (refresh->outcome == DMU_SKIPPED)
		return;
	profile->buckets[refresh->priority][bucket_of(refresh->usec)]++;
	add_slow(profile, refresh);
}

void
dmu_profile_merge(DmuProfile *into, const DmuProfile *from)
{
	DmuProfile other = *from;

	for (int p = 0; p < DMU_NPRIORITIES; p++)
	{
		for (int i = 0; i < DMU_NBUCKETS; i++)
			into->buckets[p][i] += other.buckets[p][i];
	}

	while (into->sample_seconds < other.sample_seconds)
		widen_samples(into);
	while (other.sample_seconds < into->sample_seconds)
		widen_samples(&other);
	for (int i = 0; i < DMU_NSAMPLES; i++)
		into->samples[i] += other.samples[i];

	for (int i = 0; i < other.nslowest; i++)
		add_slow(into, &other.slowest[i]);
}

int64
dmu_profile_recent(DmuProfile *profile, TimestampTz now, int seconds)
{
	uint64		present = (uint64) (now / USECS_PER_SEC);
	int64		count = 0;

	for (int i = 0; i < DMU_NRECENT; i++)
	{
		uint64		packed = pg_atomic_read_u64(&profile->recent[i]);
		uint64		second = packed >> COUNT_BITS;

		if (second < present && second + seconds >= present)
			count += (int64) (packed & COUNT_MASK);
	}
	return count;
}

uint64
dmu_profile_histogram(const DmuProfile *profile, int priority,
					  uint64 histogram[DMU_NBUCKETS])
{
	uint64		sum = 0;

	memset(histogram, 0, DMU_NBUCKETS * sizeof(uint64));
	for (int p = 0; p < DMU_NPRIORITIES; p++)
	{
		if (priority >= 0 && p != priority)
			continue;
		for (int i = 0; i < DMU_NBUCKETS; i++)
		{
			histogram[i] += profile->buckets[p][i];
			sum += profile->buckets[p][i];
		}
	}
	return sum;
}

int64
dmu_profile_percentile(const uint64 histogram[DMU_NBUCKETS], double fraction,
					   int64 longest)
{
	uint64		total = 0;
	uint64		seen = 0;

	for (int i = 0; i < DMU_NBUCKETS; i++)
		total += histogram[i];

	for (int i = 0; i < DMU_NBUCKETS; i++)
	{
		seen += histogram[i];
		if (seen > 0 && seen >= fraction * total)
			return Min(dmu_profile_bucket_upto(i), longest);
	}
	return 0;
}
