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
	DmuControl *control;
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
	filling->control->found_by_priority[entry->priority]++;
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

void
dmu_fill_queue(DmuControl *control, MemoryContext context, DmuLook *look)
{
	Filling		filling = {.control = control,.capacity = 1024};
	DmuWarehouse *warehouse;
	DmuBacklog	backlog;

	dmu_transaction_begin();
	XactIsoLevel = XACT_REPEATABLE_READ;
	MemoryContextSwitchTo(context);

	warehouse = dmu_warehouse_resolve_again(control->request.users);
	dmu_warehouse_lock(warehouse);
	filling.nfailures = dmu_failures_list(control->request.users,
										  &filling.failures);
	look->at = GetCurrentTimestamp();
	dmu_priority_look(warehouse, filling.failures, filling.nfailures, &backlog);
	control->backlog = backlog.total;
	control->max_users =
		dmu_settings_max_users(control->request.max_users, control->backlog);

	filling.entries = palloc(filling.capacity * sizeof(DmuQueueEntry));
	dmu_priority_run(warehouse, &backlog, control->max_users, add_to_queue,
					 &filling);
	keep_ids(warehouse, &backlog, look);
	pfree(backlog.waiting);
	pfree(backlog.held);
	dmu_queue_fill(control, filling.entries, filling.nentries);
	control->found = (int32) filling.nentries;
	pfree(filling.entries);
	pfree(filling.failures);
	dmu_transaction_commit(context);
}
