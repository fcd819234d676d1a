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
 *		A person can read that query, EXPLAIN it and reckon with its order: the
 *		text for the person and the text that runs come from one builder, and
 *		differ in where the ids come from and in literals.  The file knows no
 *		shared memory: where the rows go is the caller's business.
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

/*
 * All names are qualified: the text is run with the caller's search_path, as
 * what is behind his views and policies has to be, and by persons with theirs.
 */
#define EQUAL "OPERATOR(pg_catalog.=)"
#define LESS "OPERATOR(pg_catalog.<)"

/* What differs between the text to run and the text to read. */
typedef struct QueryParts
{
	const char *with;			/* in front of what reads the ids */
	const char *ids;			/* a FROM item with a column id */
	const char *array;			/* the ids as an array, or NULL */
	const char *limit;			/* NULL: all of them, in no order */
	const char *days[DMU_NRECENCY];
	const char *thresholds[DMU_NACTIVITY];
} QueryParts;

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

/* Collects ids in an array that grows. */
typedef struct IdReceiver
{
	DestReceiver pub;
	ArrayType  *array;
	int64		nids;
	int64		capacity;
} IdReceiver;

DmuPriority
dmu_priority_of(int recency_class, int activity_class)
{
	Assert(recency_class >= 1 && recency_class <= DMU_NRECENCY + 1);
	Assert(activity_class >= 1 && activity_class <= DMU_NACTIVITY + 1);

	if (recency_class <= DMU_NRECENCY)
		return (DmuPriority) (DMU_CRITICAL + recency_class - 1);
	return (DmuPriority) (DMU_HISTORICAL + activity_class - 1);
}

/*
 * What is to be known of each: how many facts, and the last action.  Those
 * without facts come from the second branch.  It is no outer join, because a
 * planner that expects few rows would aggregate all of them anew for each.
 *
 * The ids are joined to the facts, or else compared with them as an array:
 * only that is sent to a foreign server, which would otherwise have to send
 * all of its facts.
 */
static void
append_counts(StringInfo buf, const DmuWarehouse *warehouse,
			  const QueryParts *parts)
{
	const char *user = warehouse->facts_user.quoted;
	const char *time = warehouse->facts_time.quoted;

	if (parts->array == NULL)
		appendStringInfo(buf,
						 "        SELECT w.id,\n"
						 "               pg_catalog.count(*) AS action_count,\n"
						 "               pg_catalog.max(f.%s) AS last_action_at\n"
						 "        FROM %s\n"
						 "        JOIN %s AS f ON f.%s " EQUAL " w.id\n"
						 "        GROUP BY w.id\n",
						 time, parts->ids, warehouse->facts_name, user);
	else
		appendStringInfo(buf,
						 "        SELECT f.%s::bigint AS id,\n"
						 "               pg_catalog.count(*) AS action_count,\n"
						 "               pg_catalog.max(f.%s) AS last_action_at\n"
						 "        FROM %s AS f\n"
						 "        WHERE f.%s " EQUAL " ANY (%s)\n"
						 "        GROUP BY f.%s\n",
						 user, time, warehouse->facts_name, user, parts->array,
						 user);
	appendStringInfo(buf,
					 "        UNION ALL\n"
					 "        SELECT w.id, 0, NULL\n"
					 "        FROM %s\n",
					 parts->ids);
}

static char *
build_query(const DmuWarehouse *warehouse, const QueryParts *parts)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf,
						   "SELECT a.id AS dimension_user_id,\n"
						   "       CASE");
	for (int i = 0; i < DMU_NRECENCY; i++)
		appendStringInfo(&buf, "%s WHEN a.last_action_at OPERATOR(pg_catalog.>=) (CURRENT_DATE OPERATOR(pg_catalog.-) %s) THEN %d\n",
						 i == 0 ? "" : "           ", parts->days[i], i + 1);
	appendStringInfo(&buf,
					 "            ELSE %d\n"
					 "       END AS recency_class,\n"
					 "       CASE", DMU_NRECENCY + 1);
	for (int i = 0; i < DMU_NACTIVITY; i++)
		appendStringInfo(&buf, "%s WHEN a.action_count OPERATOR(pg_catalog.>) %s THEN %d\n",
						 i == 0 ? "" : "           ", parts->thresholds[i], i + 1);

	/*
	 * Not every date is a timestamp, and the first days of the calendar are
	 * none in some time zones; one bad fact must not end it all.
	 */
	appendStringInfo(&buf,
					 "            ELSE %d\n"
					 "       END AS activity_class,\n"
					 "       a.action_count,\n"
					 "       CASE WHEN a.last_action_at " LESS " '4700-01-01 BC' THEN '-infinity'\n"
					 "            WHEN a.last_action_at " LESS " '9999-12-31' THEN a.last_action_at::timestamp with time zone\n"
					 "            WHEN a.last_action_at IS NOT NULL THEN 'infinity'\n"
					 "       END AS last_action_at\n"
					 "FROM (\n"
					 "%s"
					 "    SELECT p.id,\n"
					 "           pg_catalog.max(p.action_count) AS action_count,\n"
					 "           pg_catalog.max(p.last_action_at) AS last_action_at\n"
					 "    FROM (\n",
					 DMU_NACTIVITY + 1, parts->with);
	append_counts(&buf, warehouse, parts);
	appendStringInfoString(&buf,
						   "    ) AS p\n"
						   "    GROUP BY p.id\n"
						   ") AS a\n");
	if (parts->limit != NULL)
		appendStringInfo(&buf,
						 "ORDER BY recency_class,\n"
						 "         activity_class,\n"
						 "         action_count DESC,\n"
						 "         a.last_action_at DESC NULLS LAST,\n"
						 "         dimension_user_id\n"
						 "LIMIT %s", parts->limit);
	return buf.data;
}

static const char *
without_held(const DmuWarehouse *warehouse, const DmuBacklog *backlog)
{
	StringInfoData buf;

	if (backlog->nheld == 0)
		return "";
	initStringInfo(&buf);
	appendStringInfoString(&buf,
						   "\n          AND NOT EXISTS (\n"
						   "              SELECT FROM pg_catalog.unnest('{");
	for (int i = 0; i < backlog->nheld; i++)
		appendStringInfo(&buf, "%s" INT64_FORMAT, i == 0 ? "" : ",", backlog->held[i]);
	appendStringInfo(&buf,
					 "}'::bigint[]) AS held (id)\n"
					 "              WHERE held.id " EQUAL " u.%s\n"
					 "          )",
					 warehouse->users_key.quoted);
	return buf.data;
}

char	   *
dmu_priority_query(const DmuWarehouse *warehouse, const DmuBacklog *backlog,
				   int max_users)
{
	QueryParts	parts = {
		.ids = "waiting AS w",
		.limit = psprintf("%d", max_users),
	};

	parts.with = psprintf("    WITH waiting AS MATERIALIZED (\n"
						  "        SELECT DISTINCT u.%s::bigint AS id\n"
						  "        FROM %s AS u\n"
						  "        WHERE u.%s\n"
						  "          AND u.%s IS NOT NULL%s\n"
						  "    )\n",
						  warehouse->users_key.quoted, warehouse->users_name,
						  warehouse->users_flag.quoted,
						  warehouse->users_key.quoted,
						  without_held(warehouse, backlog));
	for (int i = 0; i < DMU_NRECENCY; i++)
		parts.days[i] = psprintf("%d", dmu_recency_days[i]);
	for (int i = 0; i < DMU_NACTIVITY; i++)
		parts.thresholds[i] = psprintf("%d", dmu_activity_thresholds[i]);
	return build_query(warehouse, &parts);
}

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

static bool
id_receive(TupleTableSlot *slot, DestReceiver *self)
{
	IdReceiver *receiver = (IdReceiver *) self;

	/* A view can have rows without a key; nobody could refresh them. */
	slot_getallattrs(slot);
	if (slot->tts_isnull[0])
		return true;

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
	ids_of(receiver->array)[receiver->nids++] = DatumGetInt64(slot->tts_values[0]);
	return true;
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

/* Takes those of "held" out of the ids that were read; both are in order. */
static void
leave_out_held(DmuBacklog *backlog, const int64 *held, int nheld)
{
	int64	   *ids = ids_of(backlog->waiting);
	int64		nids = backlog->nwaiting;
	int			h = 0;

	backlog->nwaiting = 0;
	for (int64 i = 0; i < nids; i++)
	{
		while (h < nheld && held[h] < ids[i])
			h++;
		if (h < nheld && held[h] == ids[i])
			backlog->held[backlog->nheld++] = ids[i];
		else
			ids[backlog->nwaiting++] = ids[i];
	}
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

void
dmu_priority_look(const DmuWarehouse *warehouse, const int64 *held, int nheld,
				  DmuBacklog *backlog)
{
	IdReceiver	receiver = {
		.pub = {id_receive, receiver_startup,
		receiver_nothing, receiver_nothing, DestNone},
		.capacity = 1024,
	};
	bool		pushed_snapshot = begin_query();
	ArrayType  *array;

	receiver.array = palloc(array_size(receiver.capacity));
	dmu_plan_run(dmu_plan_make(psprintf("SELECT u.%s::bigint FROM %s AS u WHERE u.%s",
										warehouse->users_key.quoted,
										warehouse->users_name,
										warehouse->users_flag.quoted),
							   NULL, true), &receiver.pub);
	end_query(pushed_snapshot);

	array = receiver.array;
	qsort(ids_of(array), receiver.nids, sizeof(int64), compare_ids);
	backlog->total = qunique(ids_of(array), receiver.nids, sizeof(int64),
							 compare_ids);
	backlog->nwaiting = backlog->total;
	backlog->waiting = array;
	backlog->held = palloc_extended(Max(nheld, 1) * sizeof(int64),
									MCXT_ALLOC_HUGE);
	backlog->nheld = 0;
	leave_out_held(backlog, held, nheld);

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
	QueryParts	parts = {.with = ""};
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
	return dmu_plan_make(build_query(warehouse, &parts), params,
						 backlog->nwaiting <= PARALLEL_MAX);
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
	plan = make_plan(warehouse, backlog, max_users, false);
	if (dmu_plan_is_foreign(plan))
	{
		dmu_plan_free(plan);
		plan = make_plan(warehouse, backlog, max_users, true);
	}
	dmu_plan_run(plan, &receiver.pub);
	end_query(pushed_snapshot);
}
