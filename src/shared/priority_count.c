/*-------------------------------------------------------------------------
 *
 * priority_count.c
 *		Counts facts for the prioritisation, of those of whom it is not known.
 *
 *		Where there are many more than will be taken, it begins with the most
 *		recent facts: whoever has one of the last days comes before everybody
 *		who has none.  If these are enough, nobody else has to be counted, and of
 *		the others it is remembered that they have been looked for.
 *
 *		This file neither reads flags nor knows where counts are kept, and puts
 *		nobody in order.  How the facts are read priority_count_plan.c decides.
 *
 *-------------------------------------------------------------------------
 */
#include "priority_count.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "priority.h"
#include "priority_count_plan.h"
#include "settings.h"
#include "utils/array.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

/* From so many on it may be better not to count all of them. */
#define MANY 10000

/* Memory of a hash table for each of those to be counted, bytes. */
#define HASH_ENTRY 160

/* What a backend may use for it, kilobytes; the session's setting if more. */
#define WORK_MEM_MAX (256 * 1024)

/* While nobody is in order, two of DMU_COUNT_CLASSES tell who is meant. */
#define WANTED 0x01				/* to be counted now */
#define RECENT 0x02				/* of these, with recent facts */

/* Enters what is counted, or who has recent facts. */
typedef struct CountReceiver
{
	DestReceiver pub;
	DmuCounts  *counts;
	Oid			time_type;
} CountReceiver;

int64
dmu_count_raw_date(Oid type, Datum date)
{
	if (type == TIMESTAMPOID)
		return DatumGetTimestamp(DirectFunctionCall1(date_timestamp, date));
	if (type == TIMESTAMPTZOID)
		return DatumGetTimestampTz(DirectFunctionCall1(date_timestamptz, date));
	return DatumGetDateADT(date);
}

int64
dmu_count_recent(Oid type, int recency_class)
{
	Datum		today = DateADTGetDatum(GetSQLCurrentDate());
	Datum		days = Int32GetDatum(dmu_recency_days[recency_class]);

	return dmu_count_raw_date(type, DirectFunctionCall2(date_mii, today, days));
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
	count->run = DMU_COUNT_NEW;
	count->action_count = DatumGetInt64(slot->tts_values[1]);
	count->last_action = 0;
	count->flags = DMU_COUNT_KNOWN;
	if (!slot->tts_isnull[2])
	{
		count->last_action = raw_time(receiver->time_type, slot->tts_values[2]);
		count->flags |= DMU_COUNT_HAS_LAST;
	}
	return true;
}

static bool
recent_receive(TupleTableSlot *slot, DestReceiver *self)
{
	CountReceiver *receiver = (CountReceiver *) self;
	DmuCount   *count;

	slot_getallattrs(slot);
	if (slot->tts_isnull[0])
		return true;
	count = dmu_counts_find(receiver->counts, DatumGetInt64(slot->tts_values[0]));
	if (count != NULL && (count->flags & WANTED) != 0)
		count->flags |= RECENT;
	return true;
}

/*
 * Makes WANTED who is not counted and may have facts since then; returns how
 * many they are.
 */
static int64
mark_wanted(DmuCounts *counts, int64 since)
{
	int64		n = 0;

	for (int64 i = 0; i < counts->n; i++)
	{
		DmuCount   *count = &counts->list[i];

		count->flags &= ~DMU_COUNT_CLASSES;
		if ((count->flags & DMU_COUNT_KNOWN) != 0 ||
			((count->flags & DMU_COUNT_EARLIER) != 0 &&
			 count->last_action <= since))
			continue;
		count->flags |= WANTED;
		n++;
	}
	return n;
}

/* The ids of those who are WANTED, so many, a bigint[]. */
static ArrayType *
wanted_ids(const DmuCounts *counts, int64 n)
{
	Size		size = ARR_OVERHEAD_NONULLS(1) + n * sizeof(int64);
	ArrayType  *array = palloc(size);
	int64	   *ids = (int64 *) ((char *) array + ARR_OVERHEAD_NONULLS(1));

	SET_VARSIZE(array, size);
	array->ndim = 1;
	array->dataoffset = 0;
	array->elemtype = INT8OID;
	ARR_DIMS(array)[0] = (int) n;
	ARR_LBOUND(array)[0] = 1;
	for (int64 i = 0; i < counts->n; i++)
	{
		if ((counts->list[i].flags & WANTED) != 0)
			*ids++ = counts->list[i].dimension_user_id;
	}
	return array;
}

/* To count those who are WANTED, so many. */
static DmuPlan *
plan_counting(const DmuWarehouse *warehouse, const DmuCounts *counts, int64 n)
{
	return dmu_count_plan_counting(warehouse, counts, wanted_ids(counts, n), n);
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

static void
run_plan(DmuPlan *plan, const DmuWarehouse *warehouse, DmuCounts *counts,
		 bool (*receive) (TupleTableSlot *slot, DestReceiver *self))
{
	CountReceiver receiver = {
		.pub = {receive, receiver_startup,
		receiver_nothing, receiver_nothing, DestNone},
		.counts = counts,
		.time_type = warehouse->facts_time_type,
	};

	dmu_plan_run(plan, &receiver.pub);
}

/* Counts those who are WANTED. */
static void
count_wanted(const DmuWarehouse *warehouse, DmuCounts *counts, DmuPlan *plan)
{
	counts->counted = true;
	run_plan(plan, warehouse, counts, count_receive);
	for (int64 i = 0; i < counts->n; i++)
	{
		DmuCount   *count = &counts->list[i];

		if ((count->flags & WANTED) == 0)
			continue;

		/* Who has no facts is not among the rows. */
		count->action_count = count->last_action = 0;
		count->flags = DMU_COUNT_KNOWN;
		count->run = DMU_COUNT_NEW;
	}
}

/*
 * Of those who are WANTED only those with facts of a class still are, so many
 * as it returns.  The others are known to have no fact since its first time.
 */
static int64
look_for_recent(const DmuWarehouse *warehouse, DmuCounts *counts,
				DmuPlan *plan, int64 since)
{
	int64		n = 0;

	counts->counted = true;
	run_plan(plan, warehouse, counts, recent_receive);
	for (int64 i = 0; i < counts->n; i++)
	{
		DmuCount   *count = &counts->list[i];

		if ((count->flags & RECENT) != 0)
		{
			count->flags &= ~RECENT;
			n++;
		}
		else if ((count->flags & WANTED) != 0)
		{
			count->last_action = since;
			count->flags = DMU_COUNT_EARLIER;
			count->run = DMU_COUNT_NEW;
		}
	}
	return n;
}

/* How many are known to have facts since then. */
static int64
count_recent(const DmuCounts *counts, int64 since)
{
	int64		n = 0;

	for (int64 i = 0; i < counts->n; i++)
	{
		const DmuCount *count = &counts->list[i];

		n += (count->flags & DMU_COUNT_KNOWN) != 0 &&
			(count->flags & DMU_COUNT_HAS_LAST) != 0 &&
			count->last_action >= since;
	}
	return n;
}

/*
 * Counts those who have facts of that class, or everybody who may have some;
 * of more recent classes all are counted.
 */
static void
count_class(const DmuWarehouse *warehouse, DmuCounts *counts,
			int recency_class, int64 since)
{
	int64		n = mark_wanted(counts, since);
	DmuPlan    *counting;
	DmuPlan    *looking;

	if (n == 0)
		return;
	counting = plan_counting(warehouse, counts, n);
	if (n >= MANY)
	{
		looking = dmu_count_plan_looking(warehouse, recency_class);
		if (!dmu_count_plan_is_worth_looking(warehouse, looking, counting, n))
			dmu_plan_free(looking);
		else
		{
			dmu_plan_free(counting);
			n = look_for_recent(warehouse, counts, looking, since);
			if (n == 0)
				return;
			counting = plan_counting(warehouse, counts, n);
		}
	}
	count_wanted(warehouse, counts, counting);
}

static void
count_everybody(const DmuWarehouse *warehouse, DmuCounts *counts)
{
	int64		n = mark_wanted(counts, PG_INT64_MIN);

	if (n > 0)
		count_wanted(warehouse, counts, plan_counting(warehouse, counts, n));
}

static void
count_first(const DmuWarehouse *warehouse, DmuCounts *counts, int64 max_users)
{
	for (int i = 0; i < DMU_NRECENCY; i++)
	{
		int64		since = dmu_count_recent(warehouse->facts_time_type, i);

		count_class(warehouse, counts, i, since);
		if (count_recent(counts, since) >= max_users)
			return;
	}
	count_everybody(warehouse, counts);
}

bool
dmu_count_facts(const DmuWarehouse *warehouse, DmuCounts *counts,
				int max_users)
{
	uint8		fingerprint[DMU_FINGERPRINT_LEN];

	if (counts->nknown < counts->n)
	{
		int			nest_level = NewGUCNestLevel();

		raise_work_mem(counts->n);
		if (max_users == DMU_WHOLE_BACKLOG || max_users >= counts->n)
			count_everybody(warehouse, counts);
		else
			count_first(warehouse, counts, max_users);
		AtEOXact_GUC(false, nest_level);
	}

	/*
	 * What was read stays locked.  So a partition that has come and gone
	 * since is not among it, and one that has only come shows here.
	 */
	if (dmu_counts_fingerprint(warehouse, fingerprint) &&
		memcmp(fingerprint, counts->fingerprint, DMU_FINGERPRINT_LEN) == 0)
		return true;
	counts->n = counts->nstored = counts->nknown = 0;
	return false;
}
