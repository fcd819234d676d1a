/*-------------------------------------------------------------------------
 *
 * fill.c
 *		Fills the queue of a cycle with those who wait, in their order.
 *
 *		Part of the coordinator: one transaction, whose snapshot and locks on
 *		the warehouse are gone when the others begin to work.
 *
 *-------------------------------------------------------------------------
 */
#include "fill.h"

#include "access/xact.h"
#include "failures.h"
#include "priority.h"
#include "settings.h"
#include "transaction.h"
#include "utils/array.h"
#include "utils/timestamp.h"
#include "warehouse.h"

/* The queue while it is read. */
typedef struct Filling
{
	DmuQueueEntry *entries;
	uint32		nentries;
	uint32		capacity;
	DmuFailure *failures;
	int			nfailures;
} Filling;

/* DmuQueueRowConsumer */
static void
add_to_queue(const DmuQueueRow *row, void *arg)
{
	Filling    *filling = (Filling *) arg;
	DmuQueueEntry *entry;

	if (filling->nentries == filling->capacity)
	{
		filling->capacity *= 2;
		filling->entries = repalloc_huge(filling->entries,
										 filling->capacity * sizeof(DmuQueueEntry));
	}

	entry = &filling->entries[filling->nentries++];
	entry->turn = DMU_TURN_FIRST;
	entry->fresh = false;
	entry->dimension_user_id = row->dimension_user_id;
	entry->actions = (uint32) Min(row->action_count, PG_UINT32_MAX);
	entry->priority = dmu_priority_of(row->recency_class, row->activity_class);
	entry->has_failure = dmu_failures_find(filling->failures,
										   filling->nfailures,
										   row->dimension_user_id) != NULL;
}

static void
keep_ids(const DmuWarehouse *warehouse, const DmuBacklog *backlog,
		 DmuLook *look)
{
	const int64 *waiting = (const int64 *) ((char *) backlog->waiting +
											ARR_OVERHEAD_NONULLS(1));

	look->since_is_told = warehouse->users_since.name != NULL;
	look->nids = (int) (backlog->nwaiting + backlog->nheld);
	look->ids = palloc_extended(Max(look->nids, 1) * sizeof(int64),
								MCXT_ALLOC_HUGE);
	memcpy(look->ids, waiting, backlog->nwaiting * sizeof(int64));
	memcpy(look->ids + backlog->nwaiting, backlog->held,
		   backlog->nheld * sizeof(int64));
}

uint32
dmu_fill_look(const DmuRequest *request, int32 max_users, int lock_wait,
			  MemoryContext context, DmuLook *look, DmuQueueEntry **entries)
{
	Filling		filling = {.capacity = 1024};
	DmuWarehouse *warehouse;
	DmuBacklog	backlog;

	dmu_transaction_begin();
	XactIsoLevel = XACT_REPEATABLE_READ;
	MemoryContextSwitchTo(context);
	if (lock_wait > 0)
		dmu_transaction_limit_locks(lock_wait);

	warehouse = dmu_warehouse_resolve_again(request->users);
	dmu_warehouse_lock(warehouse);
	filling.nfailures = dmu_failures_list(request->users, &filling.failures);
	look->at = GetCurrentTimestamp();
	dmu_priority_look(warehouse, filling.failures, filling.nfailures, &backlog);
	look->backlog = backlog.total;
	look->waiting = backlog.nwaiting;
	look->max_users = dmu_settings_max_users(max_users, backlog.total);

	filling.entries = palloc(filling.capacity * sizeof(DmuQueueEntry));
	dmu_priority_run(warehouse, &backlog, look->max_users, add_to_queue,
					 &filling);
	keep_ids(warehouse, &backlog, look);
	look->counts = backlog.counts;
	pfree(backlog.waiting);
	pfree(backlog.held);
	pfree(filling.failures);
	dmu_transaction_commit(context);
	*entries = filling.entries;
	return filling.nentries;
}

void
dmu_fill_queue(DmuControl *control, MemoryContext context, DmuLook *look)
{
	DmuQueueEntry *entries;
	uint32		nentries = dmu_fill_look(&control->request,
										 control->request.max_users, 0,
										 context, look, &entries);

	control->backlog = look->backlog;
	control->max_users = look->max_users;
	for (uint32 i = 0; i < nentries; i++)
	{
		control->found_by_priority[entries[i].priority]++;
		control->found_by_size[dmu_estimate_size(entries[i].actions)]++;
	}
	dmu_queue_fill(control, entries, nentries);
	control->found = (int32) nentries;
	pfree(entries);
}
