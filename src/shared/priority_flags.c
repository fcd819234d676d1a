/*-------------------------------------------------------------------------
 *
 * priority_flags.c
 *		Reads the flags: who waits, and in which version their rows are.
 *
 *		Every look reads all of them, so this is what a look at a large backlog
 *		consists of when nothing has to be counted.
 *
 *		This file knows neither facts nor back-off.
 *
 *-------------------------------------------------------------------------
 */
#include "priority_flags.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/executor.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "plan.h"
#include "tcop/dest.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* As many ids as an array can hold. */
#define BACKLOG_MAX \
	((int64) ((MaxAllocSize - ARR_OVERHEAD_NONULLS(1)) / sizeof(int64)))

/* Collects ids, or whole entries, in an array that grows. */
typedef struct LookReceiver
{
	DestReceiver pub;
	ArrayType  *array;			/* of ids */
	int64		nids;
	int64		capacity;
	DmuCounts  *counts;			/* or these; NULL if there are too many */
	int64		counts_capacity;
	MemoryContext context;		/* of all of these; the executor has its own */
} LookReceiver;

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receiver_nothing(DestReceiver *self)
{
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
										dmu_ids_size(receiver->capacity));
	}
	dmu_ids_of(receiver->array)[receiver->nids++] = id;
}

static void
add_version(LookReceiver *receiver, int64 id, Oid relation, TransactionId xmin,
			ItemPointer tid)
{
	DmuCounts  *counts = receiver->counts;
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
	count->dimension_user_id = id;
	count->relation = relation;
	count->xmin = xmin;
	count->block = ItemPointerGetBlockNumberNoCheck(tid);
	count->offset = ItemPointerGetOffsetNumberNoCheck(tid);
	count->run = DMU_COUNT_NEW;
}

/* They have become too many to be remembered. */
static void
give_up_counts(LookReceiver *receiver)
{
	receiver->capacity = receiver->counts->n;
	receiver->array = MemoryContextAllocHuge(receiver->context,
											 dmu_ids_size(receiver->capacity));
	for (int64 i = 0; i < receiver->counts->n; i++)
		add_id(receiver, receiver->counts->list[i].dimension_user_id);
	pfree(receiver->counts->list);
	pfree(receiver->counts);
	receiver->counts = NULL;
}

/* One more who waits; the version is not looked at where none is remembered. */
static void
add_waiting(LookReceiver *receiver, int64 id, Oid relation, TransactionId xmin,
			ItemPointer tid)
{
	if (receiver->counts == NULL)
	{
		add_id(receiver, id);
		return;
	}
	add_version(receiver, id, relation, xmin, tid);
	if (receiver->counts->n > DMU_COUNTS_MAX)
		give_up_counts(receiver);
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
		add_waiting(receiver, DatumGetInt64(slot->tts_values[0]),
					DatumGetObjectId(slot->tts_values[1]),
					DatumGetTransactionId(slot->tts_values[2]),
					(ItemPointer) DatumGetPointer(slot->tts_values[3]));
	return true;
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

static int64
key_of(Datum key, Oid type)
{
	switch (type)
	{
		case INT2OID:
			return DatumGetInt16(key);
		case INT4OID:
			return DatumGetInt32(key);
		case INT8OID:
			return DatumGetInt64(key);
		default:
			elog(ERROR, "unexpected type %u of a key", type);
	}
}

/* What the executor does with such a plan, without its work for each row. */
static void
scan_table(Relation relation, const DmuPlanScan *columns,
		   LookReceiver *receiver)
{
	TupleDesc	desc = RelationGetDescr(relation);
	TableScanDesc scan = dmu_table_beginscan(relation, GetActiveSnapshot());
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		is_null;
		Datum		value = heap_getattr(tuple, columns->condition, desc, &is_null);

		if (is_null || !DatumGetBool(value))
			continue;
		value = heap_getattr(tuple, columns->first, desc, &is_null);
		if (!is_null)
			add_waiting(receiver, key_of(value, columns->first_type),
						tuple->t_tableOid, HeapTupleHeaderGetRawXmin(tuple->t_data),
						&tuple->t_self);
	}
	table_endscan(scan);
}

/*
 * Where nothing but the table is read, by somebody who may read all of it, and
 * nobody looks at what he reads: permissions are what the executor's hook is
 * asked for, as auditing does.  No policy is there, or versions would not be
 * read; see dmu_counts_begin(), which has looked before the table was locked.
 */
static bool
may_scan(const DmuWarehouse *warehouse, const DmuPlan *plan,
		 const LookReceiver *receiver, DmuPlanScan *columns)
{
	return receiver->counts != NULL && ExecutorCheckPerms_hook == NULL &&
		dmu_plan_is_scan(plan, warehouse->users, columns) &&
		pg_class_aclcheck(warehouse->users, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

static void
run_look(const DmuWarehouse *warehouse, DmuPlan *plan, LookReceiver *receiver)
{
	DmuPlanScan columns;
	Relation	relation;
	bool		is_heap;

	if (!may_scan(warehouse, plan, receiver, &columns))
	{
		dmu_plan_run(plan, &receiver->pub);
		return;
	}

	/* Planning has locked it. */
	relation = table_open(warehouse->users, NoLock);
	is_heap = relation->rd_rel->relam == HEAP_TABLE_AM_OID;
	if (is_heap)
		scan_table(relation, &columns, receiver);
	table_close(relation, NoLock);
	if (is_heap)
		dmu_plan_free(plan);
	else
		dmu_plan_run(plan, &receiver->pub);
}

/* The ids alone, beside the counts. */
static void
list_ids(LookReceiver *receiver, const DmuCounts *counts)
{
	int64	   *ids;

	receiver->array = palloc_extended(dmu_ids_size(Max(counts->n, 1)),
									  MCXT_ALLOC_HUGE);
	receiver->nids = counts->n;
	ids = dmu_ids_of(receiver->array);
	for (int64 i = 0; i < counts->n; i++)
		ids[i] = counts->list[i].dimension_user_id;
}

void
dmu_flags_read(const DmuWarehouse *warehouse, DmuBacklog *backlog)
{
	LookReceiver receiver = {
		.pub = {look_receive, receiver_startup,
		receiver_nothing, receiver_nothing, DestNone},
		.capacity = 1024,
		.counts = dmu_counts_begin(warehouse),
		.counts_capacity = 1024,
		.context = CurrentMemoryContext,
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
		receiver.array = palloc(dmu_ids_size(receiver.capacity));
	run_look(warehouse, plan, &receiver);

	backlog->counts = receiver.counts;
	if (backlog->counts != NULL)
	{
		dmu_counts_sort(backlog->counts);
		list_ids(&receiver, backlog->counts);
		backlog->total = receiver.nids;
	}
	else
	{
		qsort(dmu_ids_of(receiver.array), receiver.nids, sizeof(int64), compare_ids);
		backlog->total = qunique(dmu_ids_of(receiver.array), receiver.nids,
								 sizeof(int64), compare_ids);
	}
	backlog->waiting = receiver.array;
}
