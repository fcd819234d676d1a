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
 *		Where rows have versions priority_flags.c reads them with the flags,
 *		priority_count.c counts and priority_known.c sorts; that query is for
 *		all else.  Its text is priority_query.c's.  The file knows no shared
 *		memory: where the rows go is the caller's business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/params.h"
#include "plan.h"
#include "priority.h"
#include "priority_count.h"
#include "priority_flags.h"
#include "priority_known.h"
#include "priority_query.h"
#include "settings.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/*
 * Beyond this number of ids no parallel workers: the array goes to each of
 * them as a text of four bytes for every one of its own.
 */
#define PARALLEL_MAX 1000000

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

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receiver_nothing(DestReceiver *self)
{
}

/* Takes those that are held out of the ids that were read; both are in order. */
static void
leave_out_held(DmuBacklog *backlog, const DmuFailure *failures, int nfailures)
{
	int64	   *ids = dmu_ids_of(backlog->waiting);
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
	const int64 *ids = dmu_ids_of(backlog->waiting);
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

void
dmu_priority_look(const DmuWarehouse *warehouse, const DmuFailure *failures,
				  int nfailures, DmuBacklog *backlog)
{
	bool		pushed_snapshot = begin_query();
	ArrayType  *array;

	dmu_flags_read(warehouse, backlog);
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
	SET_VARSIZE(array, dmu_ids_size(backlog->nwaiting));
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
