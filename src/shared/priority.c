/*-------------------------------------------------------------------------
 *
 * priority.c
 *		Who waits, and in which order a cycle takes them.
 *
 *		Two steps.  The flags are read first: that is the backlog, and where it
 *		is empty nothing else is done.  Then the ids are handed to one query as
 *		an array, whose length the planner knows, while of the flag it knows
 *		what ANALYZE saw last.
 *
 *		Where rows have versions they are read with the flags, and
 *		priority_count.c counts and priority_known.c sorts; that query is for all else.  Its text
 *		is priority_query.c's.  The file knows no shared memory: where the rows
 *		go is the caller's business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/qunique.h"
#include "lib/stringinfo.h"
#include "nodes/params.h"
#include "plan.h"
#include "priority.h"
#include "priority_count.h"
#include "priority_known.h"
#include "priority_query.h"
#include "settings.h"
#include "tcop/dest.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/*
 * Beyond this number of ids no parallel workers: the array goes to each of
 * them as a text of four bytes for every one of its own.
 */
#define PARALLEL_MAX 1000000

/* As many ids as an array can hold. */
#define BACKLOG_MAX \
	((int64) ((MaxAllocSize - ARR_OVERHEAD_NONULLS(1)) / sizeof(int64)))

/* Parameters of the text to run. */
#define PARAM_IDS 0
#define PARAM_LIMIT 1
#define PARAM_DAYS 2
#define PARAM_THRESHOLDS (PARAM_DAYS + DMU_NRECENCY)
#define NPARAMS (PARAM_THRESHOLDS + DMU_NACTIVITY)

/* Hands rows on as the executor finds them. */
typedef struct QueueReceiver
{
	DestReceiver pub;
	DmuQueueRowConsumer consume;
	void	   *arg;
	MemoryContext context;		/* the consumer's */
} QueueReceiver;

/* Collects ids, or whole entries, in an array that grows. */
typedef struct LookReceiver
{
	DestReceiver pub;
	ArrayType  *array;			/* of ids */
	int64		nids;
	int64		capacity;
	DmuCounts  *counts;			/* or these; NULL if there are too many */
	int64		counts_capacity;
} LookReceiver;

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receiver_nothing(DestReceiver *self)
{
}

static int64 *
ids_of(ArrayType *array)
{
	return (int64 *) ((char *) array + ARR_OVERHEAD_NONULLS(1));
}

static Size
array_size(int64 nids)
{
	return ARR_OVERHEAD_NONULLS(1) + nids * sizeof(int64);
}

static void
add_id(LookReceiver *receiver, int64 id)
{
	if (receiver->nids == receiver->capacity)
	{
		if (receiver->capacity == BACKLOG_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("more than " INT64_FORMAT " datamart users are modified",
							BACKLOG_MAX),
					 errhint("Clear the flags of some of them first.")));
		receiver->capacity = Min(2 * receiver->capacity, BACKLOG_MAX);
		receiver->array = repalloc_huge(receiver->array,
										array_size(receiver->capacity));
	}
	ids_of(receiver->array)[receiver->nids++] = id;
}

static void
add_version(LookReceiver *receiver, TupleTableSlot *slot)
{
	DmuCounts  *counts = receiver->counts;
	ItemPointer tid = (ItemPointer) DatumGetPointer(slot->tts_values[3]);
	DmuCount   *count;

	if (counts->n == receiver->counts_capacity)
	{
		receiver->counts_capacity = Min(2 * receiver->counts_capacity,
										DMU_COUNTS_MAX + 1);
		counts->list = repalloc_huge(counts->list,
									 receiver->counts_capacity * sizeof(DmuCount));
	}
	count = &counts->list[counts->n++];
	memset(count, 0, sizeof(*count));
	count->dimension_user_id = DatumGetInt64(slot->tts_values[0]);
	count->relation = DatumGetObjectId(slot->tts_values[1]);
	count->xmin = DatumGetTransactionId(slot->tts_values[2]);
	count->block = ItemPointerGetBlockNumberNoCheck(tid);
	count->offset = ItemPointerGetOffsetNumberNoCheck(tid);
	count->run = DMU_COUNT_NEW;
}

/* They have become too many to be remembered. */
static void
give_up_counts(LookReceiver *receiver)
{
	receiver->capacity = receiver->counts->n;
	receiver->array = palloc_extended(array_size(receiver->capacity),
									  MCXT_ALLOC_HUGE);
	for (int64 i = 0; i < receiver->counts->n; i++)
		add_id(receiver, receiver->counts->list[i].dimension_user_id);
	pfree(receiver->counts->list);
	pfree(receiver->counts);
	receiver->counts = NULL;
}

static bool
look_receive(TupleTableSlot *slot, DestReceiver *self)
{
	LookReceiver *receiver = (LookReceiver *) self;

	/* A view can have rows without a key; nobody could refresh them. */
	slot_getallattrs(slot);
	if (slot->tts_isnull[0])
		return true;
	if (receiver->counts == NULL)
		add_id(receiver, DatumGetInt64(slot->tts_values[0]));
	else
		add_version(receiver, slot);
	if (receiver->counts != NULL && receiver->counts->n > DMU_COUNTS_MAX)
		give_up_counts(receiver);
	return true;
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

/* Takes those that are held out of the ids that were read; both are in order. */
static void
leave_out_held(DmuBacklog *backlog, const DmuFailure *failures, int nfailures)
{
	int64	   *ids = ids_of(backlog->waiting);
	int64		nids = backlog->nwaiting;
	int			f = 0;

	backlog->nwaiting = 0;
	for (int64 i = 0; i < nids; i++)
	{
		while (f < nfailures && failures[f].dimension_user_id < ids[i])
			f++;
		if (f < nfailures && failures[f].dimension_user_id == ids[i] &&
			failures[f].held)
		{
			backlog->held[backlog->nheld++] = ids[i];
			if (failures[f].parked)
				backlog->nparked++;
		}
		else
			ids[backlog->nwaiting++] = ids[i];
	}
	backlog->total -= backlog->nparked;
}

/* The transaction may not have a snapshot yet.  True if it has one from here. */
static bool
begin_query(void)
{
	bool		push_snapshot = !ActiveSnapshotSet();

	if (push_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	return push_snapshot;
}

static void
end_query(bool pushed_snapshot)
{
	if (pushed_snapshot)
		PopActiveSnapshot();
}

/* The counts of those who are left out go, too; both are in order. */
static void
keep_waiting(DmuBacklog *backlog)
{
	const int64 *ids = ids_of(backlog->waiting);
	DmuCounts  *counts = backlog->counts;
	int64		n = 0;

	for (int64 i = 0; i < counts->n && n < backlog->nwaiting; i++)
	{
		if (counts->list[i].dimension_user_id == ids[n])
			counts->list[n++] = counts->list[i];
	}
	Assert(n == backlog->nwaiting);
	counts->n = n;
}

/* All the flags, in order of the ids. */
static void
read_flags(const DmuWarehouse *warehouse, DmuBacklog *backlog)
{
	LookReceiver receiver = {
		.pub = {look_receive, receiver_startup,
		receiver_nothing, receiver_nothing, DestNone},
		.capacity = 1024,
		.counts = dmu_counts_begin(warehouse),
		.counts_capacity = 1024,
	};
	const char *version = "";
	DmuPlan    *plan;

	if (receiver.counts != NULL)
		version = ", u.tableoid, u.xmin, u.ctid";
	plan = dmu_plan_make(psprintf("SELECT u.%s::bigint%s FROM %s AS u WHERE u.%s",
								  warehouse->users_key.quoted, version,
								  warehouse->users_name,
								  warehouse->users_flag.quoted),
						 NULL, DMU_PLAN_PARALLEL | DMU_PLAN_SEARCH);
	if (receiver.counts != NULL)
	{
		/* What is as large as it will be need not be copied. */
		receiver.counts->expected = dmu_plan_rows(plan);
		receiver.counts_capacity = (int64) Min(Max(receiver.counts->expected, 1024),
											   DMU_COUNTS_MAX) + 1;
		receiver.counts->list = palloc_extended(receiver.counts_capacity * sizeof(DmuCount),
												MCXT_ALLOC_HUGE);
	}
	else
		receiver.array = palloc(array_size(receiver.capacity));
	dmu_plan_run(plan, &receiver.pub);

	backlog->counts = receiver.counts;
	if (backlog->counts != NULL)
	{
		dmu_counts_sort(backlog->counts);
		receiver.capacity = Max(backlog->counts->n, 1);
		receiver.array = palloc_extended(array_size(receiver.capacity),
										 MCXT_ALLOC_HUGE);
		for (int64 i = 0; i < backlog->counts->n; i++)
			add_id(&receiver, backlog->counts->list[i].dimension_user_id);
	}
	else
		qsort(ids_of(receiver.array), receiver.nids, sizeof(int64), compare_ids);
	backlog->waiting = receiver.array;
	backlog->total = qunique(ids_of(receiver.array), receiver.nids,
							 sizeof(int64), compare_ids);
}

void
dmu_priority_look(const DmuWarehouse *warehouse, const DmuFailure *failures,
				  int nfailures, DmuBacklog *backlog)
{
	bool		pushed_snapshot = begin_query();
	ArrayType  *array;

	read_flags(warehouse, backlog);
	backlog->nwaiting = backlog->total;
	backlog->held = palloc_extended(Max(nfailures, 1) * sizeof(int64),
									MCXT_ALLOC_HUGE);
	backlog->nheld = 0;
	backlog->nparked = 0;
	leave_out_held(backlog, failures, nfailures);
	if (backlog->counts != NULL && backlog->nheld > 0)
		keep_waiting(backlog);
	if (backlog->counts != NULL && backlog->nwaiting > 0)
		dmu_counts_recall(backlog->counts);
	end_query(pushed_snapshot);

	array = backlog->waiting;
	SET_VARSIZE(array, array_size(backlog->nwaiting));
	array->ndim = 1;
	array->dataoffset = 0;
	array->elemtype = INT8OID;
	ARR_DIMS(array)[0] = (int) backlog->nwaiting;
	ARR_LBOUND(array)[0] = 1;
}

/* Adds a parameter and returns how the text calls it. */
static const char *
add_param(ParamListInfo params, int number, Oid type, Datum value)
{
	ParamExternData *param = &params->params[number];

	param->value = value;
	param->isnull = false;
	param->pflags = PARAM_FLAG_CONST;
	param->ptype = type;

	return psprintf("$%d", number + 1);
}

/* The plan to run: with the ids joined to the facts, or as an array. */
static DmuPlan *
make_plan(const DmuWarehouse *warehouse, const DmuBacklog *backlog,
		  int max_users, bool as_array)
{
	ParamListInfo params = makeParamList(NPARAMS);
	DmuQueryParts parts = {.with = ""};
	const char *array = add_param(params, PARAM_IDS, INT8ARRAYOID,
								  PointerGetDatum(backlog->waiting));
	const char *limit = add_param(params, PARAM_LIMIT, INT4OID,
								  Int32GetDatum(max_users));

	parts.ids = psprintf("pg_catalog.unnest(%s) AS w (id)", array);
	parts.array = as_array ? array : NULL;
	parts.limit = max_users != DMU_WHOLE_BACKLOG ? limit : NULL;
	for (int i = 0; i < DMU_NRECENCY; i++)
		parts.days[i] = add_param(params, PARAM_DAYS + i, INT4OID,
								  Int32GetDatum(dmu_recency_days[i]));
	for (int i = 0; i < DMU_NACTIVITY; i++)
		parts.thresholds[i] = add_param(params, PARAM_THRESHOLDS + i, INT4OID,
										Int32GetDatum(dmu_activity_thresholds[i]));
	return dmu_plan_make(dmu_priority_build(warehouse, &parts), params,
						 (backlog->nwaiting <= PARALLEL_MAX ? DMU_PLAN_PARALLEL : 0) |
						 (backlog->nwaiting <= DMU_PLAN_FEW_MAX ? DMU_PLAN_FEW : 0));
}

static bool
queue_receive(TupleTableSlot *slot, DestReceiver *self)
{
	QueueReceiver *receiver = (QueueReceiver *) self;
	MemoryContext executor_context;
	DmuQueueRow row;

	slot_getallattrs(slot);
	row.dimension_user_id = DatumGetInt64(slot->tts_values[0]);
	row.recency_class = DatumGetInt32(slot->tts_values[1]);
	row.activity_class = DatumGetInt32(slot->tts_values[2]);
	row.action_count = DatumGetInt64(slot->tts_values[3]);
	row.has_last_action = !slot->tts_isnull[4];
	row.last_action_at = row.has_last_action ?
		DatumGetTimestampTz(slot->tts_values[4]) : 0;

	executor_context = MemoryContextSwitchTo(receiver->context);
	receiver->consume(&row, receiver->arg);
	MemoryContextSwitchTo(executor_context);
	return true;
}

void
dmu_priority_run(const DmuWarehouse *warehouse, const DmuBacklog *backlog,
				 int max_users, DmuQueueRowConsumer consume, void *arg)
{
	QueueReceiver receiver = {
		.pub = {queue_receive, receiver_startup,
		receiver_nothing, receiver_nothing, DestNone},
		.consume = consume,
		.arg = arg,
		.context = CurrentMemoryContext,
	};
	bool		pushed_snapshot;
	DmuPlan    *plan;

	if (backlog->nwaiting == 0)
		return;
	pushed_snapshot = begin_query();
	if (backlog->counts != NULL && dmu_count_facts(warehouse, backlog->counts,
												   max_users))
	{
		dmu_known_run(warehouse, backlog->counts, max_users, consume, arg);
		end_query(pushed_snapshot);
		return;
	}
	plan = make_plan(warehouse, backlog, max_users, false);
	if (dmu_plan_is_foreign(plan))
	{
		dmu_plan_free(plan);
		plan = make_plan(warehouse, backlog, max_users, true);
	}
	dmu_plan_run(plan, &receiver.pub);
	end_query(pushed_snapshot);
}
