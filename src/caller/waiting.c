/*-------------------------------------------------------------------------
 *
 * waiting.c
 *		Who waits now: how many, since when, and what for; a view's rows, and a
 *		function.
 *
 *		They ask the warehouse, with the rights of whoever looks, and plan the
 *		same query as a cycle, for everybody who is flagged.  They see no
 *		running cycle: whom one has taken waits until that one is refreshed.
 *
 *-------------------------------------------------------------------------
 */
#include "datamart_users.h"

#include "failures.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "objective.h"
#include "param.h"
#include "priority.h"
#include "since.h"
#include "source.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "warehouse.h"

PG_FUNCTION_INFO_V1(datamart_users_stale);

/* A datamart user that waits. */
typedef struct Waiter
{
	int64		dimension_user_id;
	TimestampTz since;			/* DT_NOEND: nobody knows */
	TimestampTz last_action_at; /* DT_NOEND if there is none */
	DmuPriority priority;
	const DmuFailure *held;		/* what holds it now, or NULL */
} Waiter;

/* All of them, while they are read. */
typedef struct Waiters
{
	DmuWarehouse *warehouse;
	DmuBacklog	backlog;
	TimestampTz *since;			/* by position in backlog.waiting */
	DmuFailure *failures;
	int			nfailures;
	Waiter	   *list;
	int64		nlist;
} Waiters;

/* What waits in one priority. */
typedef struct Waiting
{
	int64		waiting;		/* datamart users, without those parked */
	int64		parked;
	int64		held;			/* those of them under back-off */
	TimestampTz held_until;		/* the first of those; DT_NOEND if none */
	TimestampTz oldest_action_at;	/* DT_NOEND if there is none */
	int64		overdue;		/* not held, and beyond the objective */
} Waiting;

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

#define ST_SORT sort_ages
#define ST_ELEMENT_TYPE int64
#define ST_COMPARE(a, b) (*(a) < *(b) ? -1 : *(a) > *(b))
#define ST_CHECK_FOR_INTERRUPTS
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/*
 * The place of one that waits, or -1; where counts are known they come in
 * order.
 */
static int64
place_of(const Waiters *waiters, int64 dimension_user_id)
{
	const int64 *ids = (const int64 *) ((char *) waiters->backlog.waiting +
										ARR_OVERHEAD_NONULLS(1));
	const int64 *place;

	if (waiters->nlist < waiters->backlog.nwaiting &&
		ids[waiters->nlist] == dimension_user_id)
		return waiters->nlist;
	place = bsearch(&dimension_user_id, ids, waiters->backlog.nwaiting,
					sizeof(int64), compare_ids);
	return place == NULL ? -1 : place - ids;
}

/* DmuQueueRowConsumer */
static void
add_waiter(const DmuQueueRow *row, void *arg)
{
	Waiters    *waiters = (Waiters *) arg;
	int64		place = place_of(waiters, row->dimension_user_id);
	Waiter	   *waiter;

	if (place < 0 || waiters->nlist == waiters->backlog.nwaiting)
		return;
	waiter = &waiters->list[waiters->nlist++];
	waiter->dimension_user_id = row->dimension_user_id;
	waiter->priority = dmu_priority_of(row->recency_class, row->activity_class);
	waiter->held = dmu_failures_find(waiters->failures, waiters->nfailures,
									 row->dimension_user_id);
	if (waiter->held != NULL && !waiter->held->held)
		waiter->held = NULL;
	waiter->since = waiters->since[place];
	if (row->has_last_action)
		waiter->last_action_at = row->last_action_at;
	else
		TIMESTAMP_NOEND(waiter->last_action_at);
}

/* Everybody who is flagged, in no order. */
static void
read_waiters(Waiters *waiters)
{
	memset(waiters, 0, sizeof(*waiters));
	waiters->warehouse = dmu_warehouse_resolve();
	dmu_warehouse_check_privileges(waiters->warehouse, false);
	waiters->nfailures = dmu_failures_list(waiters->warehouse->users,
										   &waiters->failures);
	dmu_priority_look(waiters->warehouse, NULL, 0, &waiters->backlog);
	waiters->since = dmu_since_list(waiters->warehouse, &waiters->backlog);
	waiters->list = palloc_extended(Max(waiters->backlog.nwaiting, 1) * sizeof(Waiter),
									MCXT_ALLOC_HUGE);
	dmu_priority_run(waiters->warehouse, &waiters->backlog, DMU_WHOLE_BACKLOG,
					 add_waiter, waiters);
	if (waiters->backlog.counts != NULL)
		dmu_counts_store_at_commit(waiters->backlog.counts);
}

/* Microseconds; who was not seen yet has waited for no time that we know of. */
static int64
age_of(const Waiter *waiter, TimestampTz now)
{
	if (TIMESTAMP_IS_NOEND(waiter->since))
		return 0;
	return Max(now - waiter->since, 0);
}

/* The priority's own row of "rows", and the ages of those not held. */
static void
count_waiter(const Waiter *waiter, int64 age, Waiting *row)
{
	int			objective = dmu_freshness_objective[waiter->priority];

	if (waiter->held != NULL && waiter->held->parked)
	{
		row->parked++;
		return;
	}
	row->waiting++;
	row->oldest_action_at = Min(row->oldest_action_at, waiter->last_action_at);
	if (waiter->held != NULL)
	{
		row->held++;
		row->held_until = Min(row->held_until, waiter->held->next_attempt_at);
	}
	else if (objective > 0 && age > objective * USECS_PER_SEC)
		row->overdue++;
}

/* With days, as a person would say it, and no fractions of a second. */
static Datum
age_datum(int64 usec)
{
	return DirectFunctionCall1(interval_justify_hours,
							   dmu_interval(usec / USECS_PER_SEC * USECS_PER_SEC));
}

/* The smallest one that "part" of all do not exceed; they are in order. */
static Datum
percentile(const int64 *ages, int64 nages, double part)
{
	int64		position = (int64) (part * nages + 0.999999) - 1;

	return age_datum(ages[Min(Max(position, 0), nages - 1)]);
}

/* "ages" are nages microseconds. */
static void
put_waiting(DmuRows *rows, const char *users_name, DmuPriority priority,
			const Waiting *row, int64 *ages, int64 nages)
{
	int			objective = dmu_freshness_objective[priority];
	Datum		values[12];
	bool		nulls[12] = {false};

	values[0] = CStringGetTextDatum(users_name);
	values[1] = CStringGetTextDatum(dmu_priority_name(priority));
	values[2] = Int64GetDatum(row->waiting);
	values[3] = Int64GetDatum(row->held);
	values[4] = TimestampTzGetDatum(row->held_until);
	nulls[4] = TIMESTAMP_IS_NOEND(row->held_until);
	values[5] = TimestampTzGetDatum(row->oldest_action_at);
	nulls[5] = TIMESTAMP_IS_NOEND(row->oldest_action_at);
	values[6] = Int64GetDatum(row->parked);
	if (nages > 0)
	{
		sort_ages(ages, nages);
		values[7] = percentile(ages, nages, 1.0);
		values[8] = percentile(ages, nages, 0.50);
		values[9] = percentile(ages, nages, 0.95);
	}
	nulls[7] = nulls[8] = nulls[9] = nages == 0;
	values[10] = age_datum(objective * USECS_PER_SEC);
	values[11] = Int64GetDatum(row->overdue);
	nulls[10] = nulls[11] = objective == 0;
	dmu_source_put(rows, lengthof(values), values, nulls);
}

void
dmu_backlog_rows(DmuRows *rows)
{
	TimestampTz now = GetCurrentTimestamp();
	Waiters		waiters;
	int64	   *ages;

	read_waiters(&waiters);
	ages = palloc_extended(Max(waiters.nlist, 1) * sizeof(int64),
						   MCXT_ALLOC_HUGE);
	for (int p = 0; p < DMU_NPRIORITIES; p++)
	{
		Waiting		row = {0};
		int64		nages = 0;

		TIMESTAMP_NOEND(row.held_until);
		TIMESTAMP_NOEND(row.oldest_action_at);
		for (int64 i = 0; i < waiters.nlist; i++)
		{
			const Waiter *waiter = &waiters.list[i];

			if (waiter->priority != (DmuPriority) p)
				continue;
			count_waiter(waiter, age_of(waiter, now), &row);
			if (waiter->held == NULL)
				ages[nages++] = age_of(waiter, now);
		}
		put_waiting(rows, waiters.warehouse->users_name, (DmuPriority) p, &row,
					ages, nages);
	}
}

static bool
is_parked(const Waiter *waiter)
{
	return waiter->held != NULL && waiter->held->parked;
}

/*
 * Who has waited longest comes first, who was not seen yet last.  Those who
 * are parked come after all that really wait, for years as they may be there.
 */
static int
compare_waiters(const void *a, const void *b)
{
	const Waiter *left = (const Waiter *) a;
	const Waiter *right = (const Waiter *) b;

	if (is_parked(left) != is_parked(right))
		return is_parked(left) ? 1 : -1;
	if (left->since != right->since)
		return left->since < right->since ? -1 : 1;
	if (left->priority != right->priority)
		return left->priority < right->priority ? -1 : 1;
	return compare_ids(&left->dimension_user_id, &right->dimension_user_id);
}

static void
put_waiter(ReturnSetInfo *rsinfo, const Waiter *waiter, TimestampTz now)
{
	const char *waits_for = "queue";
	Datum		values[6];
	bool		nulls[6] = {false};

	if (waiter->held != NULL)
		waits_for = is_parked(waiter) ? "parked" :
			waiter->held->contention ? "contention" : "back-off";
	values[0] = Int64GetDatum(waiter->dimension_user_id);
	values[1] = CStringGetTextDatum(dmu_priority_name(waiter->priority));
	values[2] = TimestampTzGetDatum(waiter->since);
	values[3] = age_datum(age_of(waiter, now));
	nulls[2] = nulls[3] = TIMESTAMP_IS_NOEND(waiter->since);
	values[4] = CStringGetTextDatum(waits_for);
	nulls[5] = waiter->held == NULL || is_parked(waiter);
	values[5] = TimestampTzGetDatum(nulls[5] ? 0 : waiter->held->next_attempt_at);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
datamart_users_stale(PG_FUNCTION_ARGS)
{
	int64		limit = PG_ARGISNULL(0) ? PG_INT64_MAX : PG_GETARG_INT32(0);
	TimestampTz now = GetCurrentTimestamp();
	Waiters		waiters;

	if (limit < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("limit must not be negative"),
				 errhint("NULL means all of them.")));
	read_waiters(&waiters);
	InitMaterializedSRF(fcinfo, 0);
	qsort(waiters.list, waiters.nlist, sizeof(Waiter), compare_waiters);
	for (int64 i = 0; i < Min(limit, waiters.nlist); i++)
		put_waiter((ReturnSetInfo *) fcinfo->resultinfo, &waiters.list[i], now);
	return (Datum) 0;
}
