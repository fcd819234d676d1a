/*-------------------------------------------------------------------------
 *
 * report_workers.c
 *		The part of the report that only a running cycle has: its workers.
 *
 *		What they are at is read from shared memory, what they wait for as the
 *		role that asks, who sees no more of other sessions than elsewhere.
 *
 *-------------------------------------------------------------------------
 */
#include "report_workers.h"

#include "catalog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "progress.h"
#include "queue.h"
#include "utils/timestamp.h"

/* What the workers of a running cycle are at, from its shared memory. */
static void
look_at_workers(DmuPicture *picture, DmuControl *control, bool ids)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < control->nslots; i++)
	{
		DmuSlot    *slot = &control->slots[i];
		uint32		state = pg_atomic_read_u32(&slot->state);
		bool		at_work = state == DMU_WORKER_REFRESHING ||
		state == DMU_WORKER_RECORDING;
		DmuPictureWorker *worker;

		if (pg_atomic_read_u32(&slot->live_pid) == 0)
			continue;
		if (picture->nworkers++ >= DMU_PICTURE_WORKERS)
			continue;
		worker = &picture->running[picture->nworkers - 1];
		worker->number = i + 1;
		worker->pid = (int) pg_atomic_read_u32(&slot->live_pid);
		worker->state = dmu_progress_state_name(control, i);
		worker->dimension_user_id = at_work && ids ?
			(int64) pg_atomic_read_u64(&slot->dimension_user_id) : DMU_UNKNOWN;
		worker->priority = !at_work ? NULL :
			dmu_priority_name((DmuPriority) pg_atomic_read_u32(&slot->priority));
		worker->usec = state == DMU_WORKER_EMPTY ? DMU_UNKNOWN :
			Max(now - (TimestampTz) pg_atomic_read_u64(&slot->since), 0);
	}
}

/*
 * What a process waits for, as far as the caller may see that; as the view
 * datamart_users_workers has it.
 */
static char *
look_at_waits(int pid)
{
	DmuCatalogQuery query;
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(pid);
	char	   *waits = NULL;

	dmu_catalog_begin(&query, CurrentMemoryContext,
					  "SELECT coalesce('process ' || array_to_string("
					  "         CASE WHEN a.wait_event_type = 'Lock' OR a.backend_type IS NULL"
					  "              THEN nullif(pg_blocking_pids($1), '{}') END, ', '),"
					  "         a.wait_event)"
					  "  FROM (SELECT) AS one"
					  "  LEFT JOIN pg_stat_get_activity($1) AS a ON true",
					  1, &type, &value, NULL);
	if (SPI_processed > 0)
		waits = dmu_catalog_text(0, 1);
	dmu_catalog_end(&query);
	return waits;
}

void
dmu_report_workers(DmuPicture *picture, bool ids)
{
	dsm_segment *seg;
	DmuControlHead *head = dmu_progress_attach_cycle(picture->cycle_id, &seg);
	DmuControl *control = head != NULL ? dmu_queue_whole(head) : NULL;

	if (control != NULL)
		look_at_workers(picture, control, ids);
	if (seg != NULL)
		dsm_detach(seg);
	for (int i = 0; i < Min(picture->nworkers, DMU_PICTURE_WORKERS); i++)
		picture->running[i].waits = look_at_waits(picture->running[i].pid);
}
