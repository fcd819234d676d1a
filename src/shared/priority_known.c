/*-------------------------------------------------------------------------
 *
 * priority_known.c
 *		The prioritisation where counts are remembered: counts what is not
 *		known, and puts all in order.
 *
 *		The rows and their order are those of the query in priority_query.c, to
 *		the last tie, whatever the type of the time column and the time zone:
 *		last actions are compared as the column has them, and the server's own
 *		functions make the days of the classes and the times that are shown.
 *
 *		This file neither reads flags nor knows where counts are kept.
 *
 *-------------------------------------------------------------------------
 */
#include "priority_known.h"

#include "catalog/pg_type.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"
#include "param.h"
#include "plan.h"
#include "priority_query.h"
#include "settings.h"
#include "utils/array.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#define ST_SORT sort_counts
#define ST_ELEMENT_TYPE DmuCount
#define ST_COMPARE(a, b) \
	((a)->dimension_user_id < (b)->dimension_user_id ? -1 : \
	 (a)->dimension_user_id > (b)->dimension_user_id)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* From so many on it may be cheaper to count everybody's facts. */
#define COUNT_ALL_FROM 10000

/* Memory of a hash table for each of those to be counted, bytes. */
#define HASH_ENTRY 160

/* What a backend may use for it, kilobytes; the session's setting if more. */
#define WORK_MEM_MAX (256 * 1024)

/* Enters what is counted. */
typedef struct CountReceiver
{
	DestReceiver pub;
	DmuCounts  *counts;
	Oid			time_type;
} CountReceiver;

/* What the order depends on, as the type of the column has it. */
typedef struct Order
{
	Oid			time_type;
	int64		recent[DMU_NRECENCY];	/* the first time of each class */
	int64		first_shown;	/* what is earlier is shown as -infinity */
	int64		first_hidden;	/* from here on as infinity */
} Order;

void
dmu_known_sort(DmuCounts *counts)
{
	int64		n = 0;

	sort_counts(counts->list, counts->n);
	for (int64 i = 0; i < counts->n; i++)
	{
		if (n > 0 && counts->list[n - 1].dimension_user_id ==
			counts->list[i].dimension_user_id)
			counts->list[n - 1].xmin = InvalidTransactionId;
		else
			counts->list[n++] = counts->list[i];
	}
	counts->unique = n == counts->n;
	counts->n = n;
}

static int64
raw_time(Oid type, Datum value)
{
	return type == DATEOID ? DatumGetDateADT(value) : DatumGetInt64(value);
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receiver_nothing(DestReceiver *self)
{
}

static bool
count_receive(TupleTableSlot *slot, DestReceiver *self)
{
	CountReceiver *receiver = (CountReceiver *) self;
	DmuCount   *count;

	/* Facts may be nobody's, and everybody's may have been counted. */
	slot_getallattrs(slot);
	if (slot->tts_isnull[0])
		return true;
	count = dmu_counts_find(receiver->counts, DatumGetInt64(slot->tts_values[0]));
	if (count == NULL || (count->flags & DMU_COUNT_KNOWN) != 0)
		return true;
	count->action_count = DatumGetInt64(slot->tts_values[1]);
	count->flags = DMU_COUNT_KNOWN;
	if (!slot->tts_isnull[2])
	{
		count->last_action = raw_time(receiver->time_type, slot->tts_values[2]);
		count->flags |= DMU_COUNT_HAS_LAST;
	}
	return true;
}

/* The ids of those who are not counted yet, a bigint[]; NULL if there are none. */
static ArrayType *
unknown_ids(const DmuCounts *counts, int64 *nunknown)
{
	ArrayType  *array;
	int64	   *ids;

	*nunknown = 0;
	for (int64 i = 0; i < counts->n; i++)
		*nunknown += (counts->list[i].flags & DMU_COUNT_KNOWN) == 0;
	if (*nunknown == 0)
		return NULL;

	array = palloc(ARR_OVERHEAD_NONULLS(1) + *nunknown * sizeof(int64));
	SET_VARSIZE(array, ARR_OVERHEAD_NONULLS(1) + *nunknown * sizeof(int64));
	array->ndim = 1;
	array->dataoffset = 0;
	array->elemtype = INT8OID;
	ARR_DIMS(array)[0] = (int) *nunknown;
	ARR_LBOUND(array)[0] = 1;
	ids = (int64 *) ((char *) array + ARR_OVERHEAD_NONULLS(1));
	for (int64 i = 0; i < counts->n; i++)
	{
		if ((counts->list[i].flags & DMU_COUNT_KNOWN) == 0)
			*ids++ = counts->list[i].dimension_user_id;
	}
	return array;
}

static DmuPlan *
make_plan(const DmuWarehouse *warehouse, DmuCounted counted,
		  ParamListInfo params)
{
	return dmu_plan_make(dmu_priority_build_counts(warehouse, counted), params,
						 true);
}

/* The cheaper one; the other is freed. */
static DmuPlan *
cheaper_plan(DmuPlan *a, DmuPlan *b)
{
	DmuPlan    *cheaper = dmu_plan_cost(b) < dmu_plan_cost(a) ? b : a;

	dmu_plan_free(cheaper == a ? b : a);
	return cheaper;
}

/*
 * An array is as long as the planner thinks, but one process has to read it.
 * Where the planner happens to know how many are flagged, and next to all of
 * them are to be counted, the users table can be read in parallel.
 */
static bool
knows_flagged(const DmuCounts *counts, int64 nids)
{
	return counts->unique && nids > counts->n / 2 &&
		counts->expected * 2 > counts->n &&
		counts->expected / 2 < counts->n;
}

/*
 * With the ids joined to the facts, or counting everybody's facts, which reads
 * each partition once and hashes no more than its users.
 */
static DmuPlan *
choose_plan(const DmuWarehouse *warehouse, const DmuCounts *counts,
			ArrayType *ids, int64 nids)
{
	ParamListInfo params;
	DmuPlan    *plan;

	if (knows_flagged(counts, nids))
		plan = make_plan(warehouse, DMU_COUNT_FLAGGED, NULL);
	else
	{
		params = makeParamList(1);
		params->params[0].value = PointerGetDatum(ids);
		params->params[0].isnull = false;
		params->params[0].pflags = PARAM_FLAG_CONST;
		params->params[0].ptype = INT8ARRAYOID;
		plan = make_plan(warehouse, DMU_COUNT_IDS, params);
	}
	if (nids < COUNT_ALL_FROM)
		return plan;
	return cheaper_plan(plan, make_plan(warehouse, DMU_COUNT_ALL, NULL));
}

/* So that a hash table of them all need not go to disk. */
static void
raise_work_mem(int64 n)
{
	int64		wanted = Min(n * HASH_ENTRY / 1024, WORK_MEM_MAX);
	char		value[32];

	if (wanted <= work_mem)
		return;
	snprintf(value, sizeof(value), INT64_FORMAT "kB", wanted);
	(void) set_config_option("work_mem", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

bool
dmu_known_count(const DmuWarehouse *warehouse, DmuCounts *counts)
{
	CountReceiver receiver = {
		.pub = {count_receive, receiver_startup,
		receiver_nothing, receiver_nothing, DestNone},
		.counts = counts,
		.time_type = warehouse->facts_time_type,
	};
	uint8		fingerprint[DMU_FINGERPRINT_LEN];
	int64		nunknown;
	ArrayType  *ids = unknown_ids(counts, &nunknown);
	int			nest_level;

	if (ids != NULL)
	{
		nest_level = NewGUCNestLevel();
		raise_work_mem(counts->n);
		dmu_plan_run(choose_plan(warehouse, counts, ids, nunknown), &receiver.pub);
		AtEOXact_GUC(false, nest_level);
		pfree(ids);

		/* Who has no facts is not among the rows. */
		for (int64 i = 0; i < counts->n; i++)
			counts->list[i].flags |= DMU_COUNT_KNOWN;
	}

	/*
	 * What was read stays locked.  So a partition that has come and gone
	 * since is not among it, and one that has only come shows here.
	 */
	if (dmu_counts_fingerprint(warehouse, fingerprint) &&
		memcmp(fingerprint, counts->fingerprint, DMU_FINGERPRINT_LEN) == 0)
		return true;
	counts->n = counts->nstored = 0;
	return false;
}

/* A date as the type of the column. */
static int64
raw_of_date(Oid type, Datum date)
{
	if (type == TIMESTAMPOID)
		return DatumGetTimestamp(DirectFunctionCall1(date_timestamp, date));
	if (type == TIMESTAMPTZOID)
		return DatumGetTimestampTz(DirectFunctionCall1(date_timestamptz, date));
	return DatumGetDateADT(date);
}

static void
prepare_order(Order *order, Oid type)
{
	Datum		today = DateADTGetDatum(GetSQLCurrentDate());

	order->time_type = type;
	for (int i = 0; i < DMU_NRECENCY; i++)
		order->recent[i] = raw_of_date(type,
									   DirectFunctionCall2(date_mii, today,
														   Int32GetDatum(dmu_recency_days[i])));
	order->first_shown = raw_of_date(type,
									 DirectFunctionCall1(date_in,
														 CStringGetDatum("4700-01-01 BC")));
	order->first_hidden = raw_of_date(type,
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

/* In one number, so that one comparison tells most of them apart. */
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

/* The first "n" of all, in order; palloc'd. */
static DmuCount **
choose_first(DmuCounts *counts, int64 n)
{
	DmuCount  **first = palloc_extended(n * sizeof(DmuCount *), MCXT_ALLOC_HUGE);
	binaryheap *heap;

	if (n == counts->n)
	{
		for (int64 i = 0; i < n; i++)
			first[i] = &counts->list[i];
		sort_pointers(first, n);
		return first;
	}

	heap = binaryheap_allocate((int) n, compare_in_heap, NULL);
	for (int64 i = 0; i < n; i++)
		binaryheap_add_unordered(heap, PointerGetDatum(&counts->list[i]));
	binaryheap_build(heap);
	for (int64 i = n; i < counts->n; i++)
	{
		if (compare_counts(&counts->list[i],
						   (DmuCount *) DatumGetPointer(binaryheap_first(heap))) < 0)
			binaryheap_replace_first(heap, PointerGetDatum(&counts->list[i]));
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
	for (int64 i = 0; i < counts->n; i++)
		classify(&order, &counts->list[i]);
	if (max_users == DMU_WHOLE_BACKLOG)
	{
		for (int64 i = 0; i < counts->n; i++)
			hand_on(&order, &counts->list[i], consume, arg);
		return;
	}
	if (n <= 0)
		return;
	first = choose_first(counts, n);
	for (int64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		hand_on(&order, first[i], consume, arg);
	}
	pfree(first);
}
