/*-------------------------------------------------------------------------
 *
 * priority.c
 *		The prioritisation query: its text, and its rows.
 *
 *		This is what makes a cycle worth more than its speed, so a person can
 *		read the query, EXPLAIN it and reckon with its order: the text for the
 *		person and the text that runs come from one builder and differ in
 *		literals and parameters only.  The file knows no shared memory: where
 *		the rows go is the caller's business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/params.h"
#include "priority.h"
#include "settings.h"
#include "tcop/dest.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* What differs between the text to run and the text to read. */
typedef struct QueryParts
{
	const char *limit;			/* NULL: all of them, in no order */
	const char *days[DMU_NRECENCY];
	const char *thresholds[DMU_NACTIVITY];
	const char *held;			/* array of bigint; NULL if none is held */
} QueryParts;

/* Parameters of the text to run, in the order of QueryParts. */
#define PARAM_LIMIT 0
#define PARAM_DAYS 1
#define PARAM_THRESHOLDS (PARAM_DAYS + DMU_NRECENCY)
#define PARAM_HELD (PARAM_THRESHOLDS + DMU_NACTIVITY)

/* Hands rows on as the executor finds them. */
typedef struct QueueReceiver
{
	DestReceiver pub;
	DmuQueueRowConsumer consume;
	void	   *arg;
	MemoryContext context;		/* the consumer's */
	int64		rows;
} QueueReceiver;

/* Takes the one number of a one-row result. */
typedef struct CountReceiver
{
	DestReceiver pub;
	int64		count;
} CountReceiver;

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
 * The facts are aggregated over an inner join and joined to the modified
 * datamart users a second time, to get in those without facts.  One outer
 * join would say the same, but costs half as much again: before version 16
 * no parallel plan can hash the few datamart users and read the many facts.
 */
static char *
build_query(const DmuWarehouse *warehouse, const QueryParts *parts)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf,
						   "SELECT u." DMU_COL_USER_KEY "::bigint AS dimension_user_id,\n"
						   "       CASE");
	for (int i = 0; i < DMU_NRECENCY; i++)
		appendStringInfo(&buf, "%s WHEN a.last_action_at >= CURRENT_DATE - %s THEN %d\n",
						 i == 0 ? "" : "           ", parts->days[i], i + 1);
	appendStringInfo(&buf,
					 "            ELSE %d\n"
					 "       END AS recency_class,\n"
					 "       CASE", DMU_NRECENCY + 1);
	for (int i = 0; i < DMU_NACTIVITY; i++)
		appendStringInfo(&buf, "%s WHEN a.action_count > %s THEN %d\n",
						 i == 0 ? "" : "           ", parts->thresholds[i], i + 1);
	/* Not every date is a timestamp, and one bad fact must not end it all. */
	appendStringInfo(&buf,
					 "            ELSE %d\n"
					 "       END AS activity_class,\n"
					 "       coalesce(a.action_count, 0) AS action_count,\n"
					 "       CASE WHEN a.last_action_at < '9999-12-31' THEN a.last_action_at::timestamptz\n"
					 "            WHEN a.last_action_at IS NOT NULL THEN 'infinity'\n"
					 "       END AS last_action_at\n",
					 DMU_NACTIVITY + 1);
	appendStringInfo(&buf,
					 "FROM %s AS u\n"
					 "LEFT JOIN (\n"
					 "    SELECT m." DMU_COL_USER_KEY ",\n"
					 "           count(*) AS action_count,\n"
					 "           max(f." DMU_COL_ACTION_AT ") AS last_action_at\n"
					 "    FROM %s AS m\n"
					 "    JOIN %s AS f ON f." DMU_COL_FACT_KEY " = m." DMU_COL_USER_KEY "\n"
					 "    WHERE m." DMU_COL_MODIFIED "\n"
					 "    GROUP BY m." DMU_COL_USER_KEY "\n"
					 ") AS a ON a." DMU_COL_USER_KEY " = u." DMU_COL_USER_KEY "\n"
					 "WHERE u." DMU_COL_MODIFIED "\n",
					 warehouse->users_name, warehouse->users_name,
					 warehouse->facts_name);

	/*
	 * Not "<> ALL": for a key without statistics, such as a view's, the
	 * planner takes a long array to leave one row, and chooses nested loops.
	 */
	if (parts->held != NULL)
		appendStringInfo(&buf,
						 "  AND NOT EXISTS (\n"
						 "      SELECT FROM unnest(%s) AS held (id)\n"
						 "      WHERE held.id = u." DMU_COL_USER_KEY "\n"
						 "  )\n",
						 parts->held);
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

static char *
held_literal(const int64 *held, int nheld)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "'{");
	for (int i = 0; i < nheld; i++)
		appendStringInfo(&buf, "%s" INT64_FORMAT, i == 0 ? "" : ",", held[i]);
	appendStringInfoString(&buf, "}'::bigint[]");
	return buf.data;
}

char	   *
dmu_priority_query(const DmuWarehouse *warehouse, int max_users,
				   const int64 *held, int nheld)
{
	QueryParts	parts = {.limit = psprintf("%d", max_users)};

	for (int i = 0; i < DMU_NRECENCY; i++)
		parts.days[i] = psprintf("%d", dmu_recency_days[i]);
	for (int i = 0; i < DMU_NACTIVITY; i++)
		parts.thresholds[i] = psprintf("%d", dmu_activity_thresholds[i]);
	if (nheld > 0)
		parts.held = held_literal(held, nheld);
	return build_query(warehouse, &parts);
}

static Datum
held_array(const int64 *held, int nheld)
{
	Datum	   *ids = palloc(nheld * sizeof(Datum));
	int16		length;
	bool		byval;
	char		align;

	for (int i = 0; i < nheld; i++)
		ids[i] = Int64GetDatum(held[i]);
	get_typlenbyvalalign(INT8OID, &length, &byval, &align);
	return PointerGetDatum(construct_array(ids, nheld, INT8OID,
										   length, byval, align));
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

static char *
build_parameterised_query(const DmuWarehouse *warehouse, int max_users,
						  const int64 *held, int nheld,
						  ParamListInfo *params)
{
	ParamListInfo list = makeParamList(nheld > 0 ? PARAM_HELD + 1 : PARAM_HELD);
	QueryParts	parts = {0};

	parts.limit = add_param(list, PARAM_LIMIT, INT4OID,
							Int32GetDatum(max_users));
	if (max_users == 0)
		parts.limit = NULL;
	for (int i = 0; i < DMU_NRECENCY; i++)
		parts.days[i] = add_param(list, PARAM_DAYS + i, INT4OID,
								  Int32GetDatum(dmu_recency_days[i]));
	for (int i = 0; i < DMU_NACTIVITY; i++)
		parts.thresholds[i] = add_param(list, PARAM_THRESHOLDS + i, INT4OID,
										Int32GetDatum(dmu_activity_thresholds[i]));
	if (nheld > 0)
		parts.held = add_param(list, PARAM_HELD, INT8ARRAYOID,
							   held_array(held, nheld));
	*params = list;
	return build_query(warehouse, &parts);
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static bool
queue_receive(TupleTableSlot *slot, DestReceiver *self)
{
	QueueReceiver *receiver = (QueueReceiver *) self;
	MemoryContext executor_context;
	DmuQueueRow row;

	slot_getallattrs(slot);

	/* A view can have rows without a key; nobody could refresh them. */
	if (slot->tts_isnull[0])
		return true;

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
	receiver->rows++;
	return true;
}

static bool
count_receive(TupleTableSlot *slot, DestReceiver *self)
{
	slot_getallattrs(slot);
	((CountReceiver *) self)->count = DatumGetInt64(slot->tts_values[0]);
	return true;
}

static void
receiver_nothing(DestReceiver *self)
{
}

/*
 * Runs one query of ours.  Its names are to mean the server's own operators
 * and functions, whatever the caller's search_path is.  Rows go to "dest"
 * one by one; unlike the fetches of a cursor that leaves the executor free to
 * use parallel workers.  A one-shot plan knows the parameters' values, even
 * under plan_cache_mode = force_generic_plan.
 */
static void
run_query(const char *query, ParamListInfo params, DestReceiver *dest)
{
	SPIExecuteOptions options = {0};
	int			nest_level = NewGUCNestLevel();
	bool		push_snapshot = !ActiveSnapshotSet();
	int			result;

	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (push_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();

	options.params = params;
	options.read_only = true;
	options.dest = dest;
	result = SPI_execute_extended(query, &options);
	if (result < 0)
		elog(ERROR, "SPI_execute_extended failed: %s",
			 SPI_result_code_string(result));

	SPI_finish();
	if (push_snapshot)
		PopActiveSnapshot();
	AtEOXact_GUC(false, nest_level);
}

int64
dmu_priority_run(const DmuWarehouse *warehouse, int max_users,
				 const int64 *held, int nheld,
				 DmuQueueRowConsumer consume, void *arg)
{
	ParamListInfo params;
	char	   *query;
	QueueReceiver receiver = {
		.pub = {queue_receive, receiver_startup,
		receiver_nothing, receiver_nothing, DestNone},
		.consume = consume,
		.arg = arg,
		.context = CurrentMemoryContext,
	};

	query = build_parameterised_query(warehouse, max_users, held, nheld,
									  &params);
	run_query(query, params, &receiver.pub);
	return receiver.rows;
}

int64
dmu_priority_backlog(const DmuWarehouse *warehouse)
{
	CountReceiver receiver = {
		.pub = {count_receive, receiver_startup,
		receiver_nothing, receiver_nothing, DestNone},
	};

	run_query(psprintf("SELECT count(u." DMU_COL_USER_KEY ") FROM %s AS u WHERE u." DMU_COL_MODIFIED,
					   warehouse->users_name),
			  NULL, &receiver.pub);
	return receiver.count;
}
