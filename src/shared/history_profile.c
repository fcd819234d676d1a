/*-------------------------------------------------------------------------
 *
 * history_profile.c
 *		What the history keeps of a cycle beside its row: priorities, the
 *		distribution and the course of refreshes, the slowest ones.
 *
 *		This file knows neither warehouses nor shared memory, and writes no row
 *		of a cycle.
 *
 *-------------------------------------------------------------------------
 */
#include "history_profile.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* The columns of a histogram: percentiles, and the buckets that are not empty. */
typedef struct Histogram
{
	bool		empty;
	DmuParam	p50;
	DmuParam	p95;
	DmuParam	p99;
	DmuParam	bucket_upto;
	DmuParam	bucket_count;
} Histogram;

/* Of one priority, or of all if it is negative. */
static Histogram
read_histogram(const DmuProfile *profile, int priority, int64 longest)
{
	uint64		counted[DMU_NBUCKETS];
	Datum		upto[DMU_NBUCKETS];
	Datum		counts[DMU_NBUCKETS];
	int			n = 0;
	Histogram	histogram;

	memset(counted, 0, sizeof(counted));
	histogram.empty = profile == NULL ||
		dmu_profile_histogram(profile, priority, counted) == 0;
	for (int i = 0; i < DMU_NBUCKETS; i++)
	{
		if (counted[i] == 0)
			continue;
		upto[n] = dmu_interval(dmu_profile_bucket_upto(i));
		counts[n++] = Int64GetDatum((int64) counted[i]);
	}
	histogram.p50 = dmu_param_if(n > 0, dmu_param_interval(dmu_profile_percentile(counted, 0.50, longest)));
	histogram.p95 = dmu_param_if(n > 0, dmu_param_interval(dmu_profile_percentile(counted, 0.95, longest)));
	histogram.p99 = dmu_param_if(n > 0, dmu_param_interval(dmu_profile_percentile(counted, 0.99, longest)));
	histogram.bucket_upto = dmu_param_array(INTERVALOID, upto, n);
	histogram.bucket_count = dmu_param_array(INT8OID, counts, n);
	return histogram;
}

/*
 * Who waits for a service may be in another priority than when its counts were
 * saved before, or nobody may be left.
 */
static void
forget_priorities(const DmuOwnerScope *scope, int64 cycle_id,
				  const int32 *found_by_priority)
{
	Datum		names[DMU_NPRIORITIES];
	int			n = 0;

	for (int p = 0; p < DMU_NPRIORITIES; p++)
	{
		if (found_by_priority[p] == 0)
			names[n++] = CStringGetTextDatum(dmu_priority_name((DmuPriority) p));
	}
	dmu_owner_run(scope,
				  "DELETE FROM %s.datamart_users_cycle_priorities"
				  " WHERE cycle_id = $1 AND priority = ANY ($2)",
				  SPI_OK_DELETE,
				  DMU_PARAMS(dmu_param_int8(cycle_id),
							 dmu_param_array(TEXTOID, names, n)));
}

void
dmu_history_save_priorities(const DmuOwnerScope *scope, int64 cycle_id,
							const int32 *found_by_priority,
							const DmuTally *by_priority,
							const DmuProfile *profile)
{
	forget_priorities(scope, cycle_id, found_by_priority);
	for (int p = 0; p < DMU_NPRIORITIES; p++)
	{
		const DmuTally *tally = &by_priority[p];
		const int64 *outcomes = tally->outcomes;
		Histogram	histogram;

		if (found_by_priority[p] == 0)
			continue;
		histogram = read_histogram(profile, p, tally->max_usec);

		dmu_owner_run(scope,
					  "INSERT INTO %s.datamart_users_cycle_priorities"
					  "  (cycle_id, priority, found, processed, failed, skipped, deferred,"
					  "   total_time, max_time, p50, p95, p99, bucket_upto, bucket_count)"
					  " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
					  " ON CONFLICT (cycle_id, priority) DO UPDATE"
					  "   SET found = excluded.found,"
					  "       processed = excluded.processed, failed = excluded.failed,"
					  "       skipped = excluded.skipped, deferred = excluded.deferred,"
					  "       total_time = excluded.total_time, max_time = excluded.max_time,"
					  "       p50 = excluded.p50, p95 = excluded.p95, p99 = excluded.p99,"
					  "       bucket_upto = excluded.bucket_upto, bucket_count = excluded.bucket_count",
					  SPI_OK_INSERT,
					  DMU_PARAMS(dmu_param_int8(cycle_id),
								 dmu_param_text(dmu_priority_name((DmuPriority) p)),
								 dmu_param_int4(found_by_priority[p]),
								 dmu_param_int4((int32) outcomes[DMU_PROCESSED]),
								 dmu_param_int4((int32) outcomes[DMU_FAILED]),
								 dmu_param_int4((int32) outcomes[DMU_SKIPPED]),
								 dmu_param_int4((int32) outcomes[DMU_DEFERRED]),
								 dmu_param_interval(tally->total_usec),
								 dmu_param_interval(tally->max_usec),
								 histogram.p50, histogram.p95, histogram.p99,
								 histogram.bucket_upto,
								 histogram.bucket_count));
	}
}

/* Histogram and course of the cycle; empty buckets and the rest are left out. */
void
dmu_history_insert_profile(const DmuOwnerScope *scope, const DmuCycleEnd *end)
{
	const DmuProfile *profile = end->profile;
	Datum		samples[DMU_NSAMPLES];
	int			nsamples = 0;
	Histogram	histogram;
	const DmuIdle *idle = end->idle;
	bool		ended = (idle != NULL);

	for (int i = 0; i < DMU_NSAMPLES; i++)
	{
		samples[i] = Int32GetDatum((int32) profile->samples[i]);
		if (profile->samples[i] > 0)
			nsamples = i + 1;
	}
	if (nsamples == 0)
		return;
	histogram = read_histogram(profile, -1, profile->slowest[0].usec);

	dmu_owner_run(scope,
				  "INSERT INTO %s.datamart_users_cycle_profiles"
				  "  (cycle_id, p50, p95, p99, bucket_upto, bucket_count,"
				  "   sample_width, samples, planned_alone, idle_time, work_time,"
				  "   last_worker, last_user_id, last_priority, last_actions, last_elapsed)"
				  " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
				  SPI_OK_INSERT,
				  DMU_PARAMS(dmu_param_int8(end->result->cycle_id),
							 histogram.p50, histogram.p95, histogram.p99,
							 histogram.bucket_upto, histogram.bucket_count,
							 dmu_param_interval(profile->sample_seconds * USECS_PER_SEC),
							 dmu_param_array(INT4OID, samples, nsamples),
							 dmu_param_int8(end->planned_alone),
							 dmu_param_if(ended, dmu_param_interval(ended ? idle->usec : 0)),
							 dmu_param_if(ended, dmu_param_interval(ended ? idle->total_usec : 0)),
							 dmu_param_if(ended, dmu_param_int4(ended ? idle->worker : 0)),
							 dmu_param_if(ended, dmu_param_int8(ended ? idle->last.dimension_user_id : 0)),
							 dmu_param_text(ended ? dmu_priority_name(idle->last.priority) : NULL),
							 dmu_param_if(ended, dmu_param_int8(ended ? idle->last.actions : 0)),
							 dmu_param_if(ended, dmu_param_interval(ended ? idle->last.usec : 0))));
}

void
dmu_history_insert_slowest(const DmuOwnerScope *scope, const DmuCycleEnd *end)
{
	for (int i = 0; i < end->profile->nslowest; i++)
	{
		const DmuSlowRefresh *refresh = &end->profile->slowest[i];

		dmu_owner_run(scope,
					  "INSERT INTO %s.datamart_users_slowest"
					  "  (cycle_id, position, dimension_user_id, priority, outcome, elapsed, users_table)"
					  " SELECT $1, $2, $3, $4, $5, $6, c.users_table"
					  "   FROM %s.datamart_users_cycles c WHERE c.cycle_id = $1",
					  SPI_OK_INSERT,
					  DMU_PARAMS(dmu_param_int8(end->result->cycle_id),
								 dmu_param_int4(i + 1),
								 dmu_param_int8(refresh->dimension_user_id),
								 dmu_param_text(dmu_priority_name(refresh->priority)),
								 dmu_param_text(dmu_outcome_name(refresh->outcome)),
								 dmu_param_interval(refresh->usec)));
	}
}
