/*-------------------------------------------------------------------------
 *
 * priority_known.c
 *		The prioritisation where counts are remembered: puts those who are
 *		counted in order.
 *
 *		The rows and their order are those of the query in priority_query.c, to
 *		the last tie, whatever the type of the time column and the time zone:
 *		last actions are compared as the column has them, and the server's own
 *		functions make the days of the classes and the times that are shown.
 *
 *		This file neither reads flags and facts nor knows where counts are kept.
 *
 *-------------------------------------------------------------------------
 */
#include "priority_known.h"

#include "catalog/pg_type.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"
#include "priority_count.h"
#include "settings.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

/* What the order depends on, as the type of the column has it. */
typedef struct Order
{
	Oid			time_type;
	int64		recent[DMU_NRECENCY];	/* the first time of each class */
	int64		first_shown;	/* what is earlier is shown as -infinity */
	int64		first_hidden;	/* from here on as infinity */
} Order;

static void
prepare_order(Order *order, Oid type)
{
	order->time_type = type;
	for (int i = 0; i < DMU_NRECENCY; i++)
		order->recent[i] = dmu_count_recent(type, i);
	order->first_shown = dmu_count_raw_date(type,
											DirectFunctionCall1(date_in,
																CStringGetDatum("4700-01-01 BC")));
	order->first_hidden = dmu_count_raw_date(type,
											 DirectFunctionCall1(date_in,
																 CStringGetDatum("9999-12-31")));
}

static int
recency_class(const Order *order, const DmuCount *count)
{
	int			class = 1;

	if ((count->flags & DMU_COUNT_HAS_LAST) == 0)
		return DMU_NRECENCY + 1;
	while (class <= DMU_NRECENCY && count->last_action < order->recent[class - 1])
		class++;
	return class;
}

static int
activity_class(const DmuCount *count)
{
	int			class = 1;

	while (class <= DMU_NACTIVITY &&
		   count->action_count <= dmu_activity_thresholds[class - 1])
		class++;
	return class;
}

/*
 * In one number, so that one comparison tells most of them apart.  Who is not
 * counted has no last action here, and comes after all who are handed on.
 */
static void
classify(const Order *order, DmuCount *count)
{
	StaticAssertStmt(((DMU_NRECENCY + 1) << 2 | (DMU_NACTIVITY + 1)) <= DMU_COUNT_CLASSES &&
					 DMU_NACTIVITY < 3, "the classes fit");

	count->flags &= ~DMU_COUNT_CLASSES;
	count->flags |= recency_class(order, count) << 2 | activity_class(count);
}

/* Who comes first is less. */
static inline int
compare_counts(const DmuCount *a, const DmuCount *b)
{
	int			left = a->flags & DMU_COUNT_CLASSES;
	int			right = b->flags & DMU_COUNT_CLASSES;

	if (left != right)
		return left - right;
	if (a->action_count != b->action_count)
		return a->action_count > b->action_count ? -1 : 1;
	left = a->flags & DMU_COUNT_HAS_LAST;
	right = b->flags & DMU_COUNT_HAS_LAST;
	if (left != right)
		return right - left;
	if (left != 0 && a->last_action != b->last_action)
		return a->last_action > b->last_action ? -1 : 1;
	return a->dimension_user_id < b->dimension_user_id ? -1 :
		a->dimension_user_id > b->dimension_user_id;
}

typedef DmuCount *CountPointer;

#define ST_SORT sort_pointers
#define ST_ELEMENT_TYPE CountPointer
#define ST_COMPARE(a, b) compare_counts(*(a), *(b))
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* For a heap whose first one is the last of the queue. */
static int
compare_in_heap(Datum a, Datum b, void *arg)
{
	return compare_counts((const DmuCount *) DatumGetPointer(a),
						  (const DmuCount *) DatumGetPointer(b));
}

/* True if one that is not classified has a later recency class than this one. */
static inline bool
is_less_recent(const Order *order, const DmuCount *count,
			   const DmuCount *classified)
{
	int			class = (classified->flags & DMU_COUNT_CLASSES) >> 2;

	return class <= DMU_NRECENCY &&
		((count->flags & DMU_COUNT_HAS_LAST) == 0 ||
		 count->last_action < order->recent[class - 1]);
}

/* The first "n" of all, classified and in order; palloc'd. */
static DmuCount **
choose_first(const Order *order, DmuCounts *counts, int64 n)
{
	DmuCount  **first = palloc_extended(n * sizeof(DmuCount *), MCXT_ALLOC_HUGE);
	binaryheap *heap;

	for (int64 i = 0; i < n; i++)
	{
		first[i] = &counts->list[i];
		classify(order, first[i]);
	}
	if (n == counts->n)
	{
		sort_pointers(first, n);
		return first;
	}

	heap = binaryheap_allocate((int) n, compare_in_heap, NULL);
	for (int64 i = 0; i < n; i++)
		binaryheap_add_unordered(heap, PointerGetDatum(first[i]));
	binaryheap_build(heap);
	for (int64 i = n; i < counts->n; i++)
	{
		DmuCount   *count = &counts->list[i];
		DmuCount   *last = (DmuCount *) DatumGetPointer(binaryheap_first(heap));

		if (is_less_recent(order, count, last))
			continue;
		classify(order, count);
		if (compare_counts(count, last) < 0)
			binaryheap_replace_first(heap, PointerGetDatum(count));
	}
	for (int64 i = n - 1; i >= 0; i--)
		first[i] = (DmuCount *) DatumGetPointer(binaryheap_remove_first(heap));
	binaryheap_free(heap);
	return first;
}

static TimestampTz
shown_time(const Order *order, int64 time)
{
	if (time < order->first_shown)
		return DT_NOBEGIN;
	if (time >= order->first_hidden)
		return DT_NOEND;
	if (order->time_type == TIMESTAMPTZOID)
		return time;
	return DatumGetTimestampTz(order->time_type == DATEOID ?
							   DirectFunctionCall1(date_timestamptz,
												   DateADTGetDatum((DateADT) time)) :
							   DirectFunctionCall1(timestamp_timestamptz,
												   TimestampGetDatum(time)));
}

static void
hand_on(const Order *order, const DmuCount *count, DmuQueueRowConsumer consume,
		void *arg)
{
	DmuQueueRow row;

	row.dimension_user_id = count->dimension_user_id;
	row.recency_class = (count->flags & DMU_COUNT_CLASSES) >> 2;
	row.activity_class = count->flags & 3;
	row.action_count = count->action_count;
	row.has_last_action = (count->flags & DMU_COUNT_HAS_LAST) != 0;
	row.last_action_at = row.has_last_action ?
		shown_time(order, count->last_action) : 0;
	consume(&row, arg);
}

void
dmu_known_run(const DmuWarehouse *warehouse, DmuCounts *counts, int max_users,
			  DmuQueueRowConsumer consume, void *arg)
{
	Order		order;
	DmuCount  **first;
	int64		n = Min(max_users, counts->n);

	prepare_order(&order, warehouse->facts_time_type);
	if (max_users == DMU_WHOLE_BACKLOG)
	{
		for (int64 i = 0; i < counts->n; i++)
		{
			classify(&order, &counts->list[i]);
			hand_on(&order, &counts->list[i], consume, arg);
		}
		return;
	}
	if (n <= 0)
		return;
	first = choose_first(&order, counts, n);
	for (int64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		hand_on(&order, first[i], consume, arg);
	}
	pfree(first);
}
