/*-------------------------------------------------------------------------
 *
 * since.c
 *		Since when datamart users wait.
 *
 *		A flag does not say when it was set.  Either the ETL writes that down
 *		in a column, or the cycles do: each looks at the whole backlog anyway,
 *		and datamart_users_seen keeps when an id was first in it.  That is later
 *		than the truth by the time between two cycles at the most.
 *
 *		Ids come as arrays, in bulk: no statement here is run per datamart user,
 *		and none compares every id with every row.  This file knows no shared
 *		memory, and not in which order anybody is taken.
 *
 *-------------------------------------------------------------------------
 */
#include "since.h"

#include "executor/spi.h"
#include "ownersql.h"
#include "plan.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Rows that one look adds at the most, so that a cycle is not held up. */
#define DMU_SEEN_MAX 1000000

/* Enters what a query finds beside the ids that wait. */
typedef struct SinceReceiver
{
	DestReceiver pub;
	const int64 *ids;			/* in order */
	int64		nids;
	int64		next;			/* place behind the last one entered */
	TimestampTz *since;
} SinceReceiver;

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receiver_nothing(DestReceiver *self)
{
}

/* The place of the first one that is not less than an id. */
static int64
find_place(const SinceReceiver *receiver, int64 id)
{
	int64		low = 0;
	int64		high = receiver->nids;

	while (low < high)
	{
		int64		middle = low + (high - low) / 2;

		if (receiver->ids[middle] < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * An id may be there twice, in a view; it waits since the first of them.  Most
 * rows come in order of the ids.
 */
static void
enter(SinceReceiver *receiver, int64 id, TimestampTz since)
{
	int64		place = receiver->next;

	if (place >= receiver->nids || receiver->ids[place] != id)
		place = find_place(receiver, id);
	if (place >= receiver->nids || receiver->ids[place] != id)
		return;
	receiver->next = place + 1;
	if (!TIMESTAMP_NOT_FINITE(since))
		receiver->since[place] = Min(receiver->since[place], since);
}

static bool
receive(TupleTableSlot *slot, DestReceiver *self)
{
	slot_getallattrs(slot);
	if (!slot->tts_isnull[0] && !slot->tts_isnull[1])
		enter((SinceReceiver *) self, DatumGetInt64(slot->tts_values[0]),
			  DatumGetTimestampTz(slot->tts_values[1]));
	return true;
}

/* Not every date is a timestamp; one bad row must not end it all. */
static void
read_column(const DmuWarehouse *warehouse, SinceReceiver *receiver)
{
	const char *since = warehouse->users_since.quoted;
	bool		push_snapshot = !ActiveSnapshotSet();

	if (push_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	dmu_plan_run(dmu_plan_make(psprintf("SELECT u.%s::bigint,"
										" CASE WHEN u.%s OPERATOR(pg_catalog.>) '4700-01-01 BC'"
										" AND u.%s OPERATOR(pg_catalog.<) '9999-12-31'"
										" THEN u.%s::timestamp with time zone END"
										" FROM %s AS u WHERE u.%s",
										warehouse->users_key.quoted, since,
										since, since, warehouse->users_name,
										warehouse->users_flag.quoted),
							   NULL, DMU_PLAN_PARALLEL | DMU_PLAN_SEARCH), &receiver->pub);
	if (push_snapshot)
		PopActiveSnapshot();
}

static void
read_seen(Oid users, SinceReceiver *receiver)
{
	DmuOwnerScope scope;

	dmu_owner_enter(&scope);
	dmu_owner_read(&scope,
				   "SELECT dimension_user_id, first_seen_at"
				   "  FROM %s.datamart_users_seen WHERE users_oid = $1",
				   DMU_PARAMS(dmu_param_oid(users)), &receiver->pub);
	dmu_owner_leave(&scope);
}

TimestampTz *
dmu_since_list(const DmuWarehouse *warehouse, const DmuBacklog *backlog)
{
	SinceReceiver receiver = {
		.pub = {receive, receiver_startup,
		receiver_nothing, receiver_nothing, DestNone},
		.ids = (const int64 *) ((char *) backlog->waiting + ARR_OVERHEAD_NONULLS(1)),
		.nids = backlog->nwaiting,
	};

	receiver.since = palloc_extended(Max(backlog->nwaiting, 1) * sizeof(TimestampTz),
									 MCXT_ALLOC_HUGE);
	for (int64 i = 0; i < backlog->nwaiting; i++)
		TIMESTAMP_NOEND(receiver.since[i]);
	if (backlog->nwaiting > 0 && warehouse->users_since.name != NULL)
		read_column(warehouse, &receiver);
	else if (backlog->nwaiting > 0)
		read_seen(warehouse->users, &receiver);
	return receiver.since;
}

/*
 * Whatever the planner believes of a table that grows and shrinks with the
 * backlog: the ids are hashed or sorted, not searched for one by one.
 */
static void
enter_in_bulk(DmuOwnerScope *scope)
{
	dmu_owner_enter(scope);
	(void) set_config_option("enable_nestloop", "off",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
dmu_since_remember(Oid users, const int64 *ids, int nids, TimestampTz at)
{
	DmuOwnerScope scope;
	DmuParam	params[] = {
		dmu_param_oid(users),
		dmu_param_int8_array(ids, nids),
		dmu_param_timestamptz(at)
	};

	enter_in_bulk(&scope);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_seen s"
				  " WHERE s.users_oid = $1"
				  "   AND NOT EXISTS (SELECT FROM unnest($2) AS w (id)"
				  "                    WHERE w.id = s.dimension_user_id)",
				  SPI_OK_DELETE, 2, params);
	dmu_owner_run(&scope,
				  "INSERT INTO %s.datamart_users_seen"
				  "  (users_oid, dimension_user_id, first_seen_at)"
				  " SELECT $1, w.id, $3 FROM unnest($2) AS w (id)"
				  "  WHERE NOT EXISTS (SELECT FROM %s.datamart_users_seen s"
				  "                     WHERE s.users_oid = $1"
				  "                       AND s.dimension_user_id = w.id)"
				  "  LIMIT " CppAsString2(DMU_SEEN_MAX)
				  " ON CONFLICT DO NOTHING",
				  SPI_OK_INSERT, lengthof(params), params);
	dmu_owner_leave(&scope);
}

void
dmu_since_forget(Oid users, const int64 *ids, int nids)
{
	DmuOwnerScope scope;

	enter_in_bulk(&scope);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_seen"
				  " WHERE users_oid = $1 AND dimension_user_id = ANY ($2)",
				  SPI_OK_DELETE,
				  DMU_PARAMS(dmu_param_oid(users),
							 dmu_param_int8_array(ids, nids)));
	dmu_owner_leave(&scope);
}

void
dmu_since_forget_all(Oid users)
{
	DmuOwnerScope scope;

	dmu_owner_enter(&scope);
	dmu_owner_run(&scope,
				  "DELETE FROM %s.datamart_users_seen WHERE users_oid = $1",
				  SPI_OK_DELETE, DMU_PARAMS(dmu_param_oid(users)));
	dmu_owner_leave(&scope);
}
