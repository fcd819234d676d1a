/*-------------------------------------------------------------------------
 *
 * queue.c
 *		The shared memory of one cycle: segments, claims, phases.
 *
 *		A claim is one atomic step, so workers never wait for each other, and a
 *		worker that dies holds nothing.  Other sessions may read everything here
 *		at any time: counters are single atomic words, and no reader needs two
 *		of them to agree.
 *
 *		This file runs no SQL and no transaction, starts and cancels no process,
 *		and does not know why a cycle is to stop (stop.c).
 *
 *-------------------------------------------------------------------------
 */
#include "queue.h"

#include "miscadmin.h"
#include "slot.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"

/* Told apart from any other module's segment. */
#define DMU_CONTROL_MAGIC UINT64CONST(0x6461746d61727401)

/*
 * Builds that share a segment must agree on every field of it.  The checksum
 * of the headers that describe it comes from the Makefile, so that no number
 * has to be remembered when they change.
 */
#ifndef DMU_LAYOUT
#error "DMU_LAYOUT is not defined: it is the checksum of the headers of the shared memory, see the Makefile"
#endif
#define DMU_CONTROL_LAYOUT \
	((uint64) DMU_LAYOUT << 32 | (sizeof(DmuControl) + sizeof(DmuSlot)))

static Size
control_size(int nslots)
{
	return MAXALIGN(add_size(offsetof(DmuControl, slots),
							 mul_size(nslots, sizeof(DmuSlot))));
}

dsm_segment *
dmu_queue_create(int nslots, Size session_size)
{
	Size		size = add_size(control_size(nslots), session_size);
	dsm_segment *seg = dsm_create(size, 0);
	DmuControl *control = dsm_segment_address(seg);

	memset(control, 0, control_size(nslots));
	control->head.size = size;
	control->head.layout = DMU_CONTROL_LAYOUT;
	control->nslots = nslots;
	control->session_offset = control_size(nslots);

	pg_atomic_init_u32(&control->phase, DMU_PHASE_CREATED);
	pg_atomic_init_u32(&control->head.stop, DMU_STOP_NONE);
	pg_atomic_init_u32(&control->head.refused, 0);
	pg_atomic_init_u32(&control->queue_handle, DSM_HANDLE_INVALID);
	pg_atomic_init_u32(&control->workers_registered, 0);
	pg_atomic_init_u32(&control->error_claimed, 0);
	pg_atomic_init_u32(&control->missing_claimed, 0);
	pg_atomic_init_u32(&control->stop_told, 0);
	pg_atomic_init_u32(&control->not_replicated, 0);
	pg_atomic_init_u64(&control->streak, 0);
	pg_atomic_init_u64(&control->streak_since, 0);

	pg_atomic_init_u32(&control->service.leaving, 0);
	pg_atomic_init_u32(&control->service.settings, 0);
	pg_atomic_init_u64(&control->service.cycles, 0);
	pg_atomic_init_u64(&control->service.looks, 0);
	pg_atomic_init_u64(&control->service.looked_at, 0);
	pg_atomic_init_u64(&control->service.look_usec, 0);

	for (int i = 0; i < nslots; i++)
	{
		DmuSlot    *slot = &control->slots[i];

		pg_atomic_init_u32(&slot->pid, 0);
		pg_atomic_init_u32(&slot->live_pid, 0);
		pg_atomic_init_u32(&slot->joined, 0);
		dmu_slot_init(slot);
	}

	control->head.magic = DMU_CONTROL_MAGIC;
	return seg;
}

DmuControl *
dmu_queue_control(dsm_segment *seg)
{
	return dsm_segment_address(seg);
}

DmuControlHead *
dmu_queue_attach(dsm_handle handle, dsm_segment **seg)
{
	dsm_segment *mapping = dsm_find_mapping(handle);
	DmuControlHead *head;

	*seg = NULL;
	if (mapping == NULL)
	{
		mapping = dsm_attach(handle);
		if (mapping == NULL)
			return NULL;
		*seg = mapping;
	}

	/* Handles are reused; make sure of what this one stands for today. */
	head = dsm_segment_address(mapping);
	if (dsm_segment_map_length(mapping) >= sizeof(DmuControlHead) &&
		head->magic == DMU_CONTROL_MAGIC &&
		head->size <= dsm_segment_map_length(mapping) &&
		(!OidIsValid(MyDatabaseId) || head->database == MyDatabaseId))
		return head;

	if (*seg != NULL)
		dsm_detach(*seg);
	*seg = NULL;
	return NULL;
}

bool
dmu_queue_is_running(DmuControlHead *head)
{
	DmuControl *control = dmu_queue_whole(head);

	return control == NULL || dmu_queue_phase(control) < DMU_PHASE_FINISHED;
}

DmuControl *
dmu_queue_whole(DmuControlHead *head)
{
	return head->layout == DMU_CONTROL_LAYOUT ? (DmuControl *) head : NULL;
}

void	   *
dmu_queue_session(DmuControl *control)
{
	return (char *) control + control->session_offset;
}

void
dmu_queue_make(DmuQueueMap *map, const DmuQueueEntry *entries, uint32 nentries)
{
	map->seg = dsm_create(add_size(offsetof(DmuQueue, entries),
								   mul_size(nentries, sizeof(DmuQueueEntry))), 0);
	dsm_pin_mapping(map->seg);
	map->handle = dsm_segment_handle(map->seg);
	map->queue = dsm_segment_address(map->seg);
	pg_atomic_init_u64(&map->queue->taken, 0);
	map->queue->nentries = nentries;
	map->queue->closed = false;
	memcpy(map->queue->entries, entries, nentries * sizeof(DmuQueueEntry));
}

void
dmu_queue_fill(DmuControl *control, const DmuQueueEntry *entries,
			   uint32 nentries)
{
	DmuQueueMap map;

	if (nentries == 0)
		return;
	dmu_queue_make(&map, entries, nentries);
	pg_atomic_write_u32(&control->queue_handle, map.handle);
}

DmuQueue   *
dmu_queue_open(DmuControl *control)
{
	dsm_handle	handle = pg_atomic_read_u32(&control->queue_handle);
	dsm_segment *seg;

	if (handle == DSM_HANDLE_INVALID)
		return NULL;

	seg = dsm_find_mapping(handle);
	if (seg == NULL)
	{
		seg = dsm_attach(handle);
		if (seg == NULL)
			return NULL;
		dsm_pin_mapping(seg);
	}
	return dsm_segment_address(seg);
}

void
dmu_queue_publish(DmuControl *control, dsm_handle handle)
{
	pg_write_barrier();
	pg_atomic_write_u32(&control->queue_handle, handle);
	if (handle != DSM_HANDLE_INVALID)
		dmu_queue_nudge(control);
}

void
dmu_queue_unmap(DmuQueueMap *map)
{
	if (map->seg != NULL)
		dsm_detach(map->seg);
	map->handle = DSM_HANDLE_INVALID;
	map->seg = NULL;
	map->queue = NULL;
}

/*
 * One that has gone was replaced since its handle was read; the handle of one
 * that is mapped is nobody else's.
 */
DmuQueue   *
dmu_queue_follow(DmuControl *control, DmuQueueMap *map)
{
	dsm_handle	handle;

	while ((handle = pg_atomic_read_u32(&control->queue_handle)) != map->handle)
	{
		dmu_queue_unmap(map);
		if (handle == DSM_HANDLE_INVALID)
			break;
		map->seg = dsm_attach(handle);
		if (map->seg == NULL)
			continue;
		dsm_pin_mapping(map->seg);
		map->handle = handle;
		map->queue = dsm_segment_address(map->seg);
	}
	pg_read_barrier();
	return map->queue;
}

DmuQueueEntry *
dmu_queue_claim(DmuQueue *queue, bool from_tail)
{
	uint64		taken = pg_atomic_read_u64(&queue->taken);

	for (;;)
	{
		uint32		head = (uint32) taken;
		uint32		tail = (uint32) (taken >> 32);
		uint64		one = from_tail ? UINT64CONST(1) << 32 : 1;

		if (head + tail >= queue->nentries)
			return NULL;
		if (pg_atomic_compare_exchange_u64(&queue->taken, &taken, taken + one))
			return &queue->entries[from_tail ? queue->nentries - 1 - tail : head];
	}
}

uint32
dmu_queue_left(DmuQueue *queue)
{
	uint64		taken = pg_atomic_read_u64(&queue->taken);

	return queue->nentries - Min(queue->nentries,
								 (uint32) taken + (uint32) (taken >> 32));
}

void
dmu_queue_claimed(DmuQueue *queue, uint32 *head, uint32 *tail)
{
	uint64		taken = pg_atomic_read_u64(&queue->taken);

	*head = (uint32) taken;
	*tail = (uint32) (taken >> 32);
	if (queue->closed)
	{
		*head = queue->closed_head;
		*tail = queue->closed_tail;
	}
}

void
dmu_queue_close(DmuQueue *queue, uint32 *head, uint32 *tail)
{
	if (!queue->closed)
	{
		uint64		taken = pg_atomic_exchange_u64(&queue->taken,
												   queue->nentries);

		queue->closed_head = (uint32) taken;
		queue->closed_tail = (uint32) (taken >> 32);
		queue->closed = true;
	}
	*head = queue->closed_head;
	*tail = queue->closed_tail;
}

DmuQueueEntry *
dmu_queue_next_again(DmuQueueEntry *entries, uint32 nentries, uint32 *from)
{
	for (; *from < nentries; (*from)++)
	{
		if (entries[*from].turn == DMU_TURN_AGAIN)
			return &entries[*from];
	}
	return NULL;
}

void
dmu_queue_reset(DmuControl *control)
{
	for (int i = 0; i < control->nslots; i++)
		dmu_slot_init(&control->slots[i]);
	memset(control->found_by_priority, 0, sizeof(control->found_by_priority));
	memset(control->found_by_size, 0, sizeof(control->found_by_size));
	control->found = 0;
	control->follows_crash = false;
	pg_atomic_write_u64(&control->streak, 0);
	pg_atomic_write_u64(&control->streak_since, 0);
	pg_atomic_write_u32(&control->not_replicated, 0);
}

DmuPhase
dmu_queue_phase(DmuControl *control)
{
	DmuPhase	phase = (DmuPhase) pg_atomic_read_u32(&control->phase);

	/* Pairs with dmu_queue_set_phase(). */
	pg_read_barrier();
	return phase;
}

void
dmu_queue_set_phase(DmuControl *control, DmuPhase phase)
{
	PGPROC	   *caller;

	pg_write_barrier();
	pg_atomic_write_u32(&control->phase, phase);

	/* The pid may be somebody else's by now; a latch set for nothing is fine. */
	caller = BackendPidGetProc(control->caller_pid);
	if (caller != NULL)
		SetLatch(&caller->procLatch);
}

bool
dmu_queue_runs_low(const DmuQueue *queue, const DmuQueueEntry *entry)
{
	return entry - queue->entries == queue->nentries - queue->nentries / 4;
}

void
dmu_queue_call_coordinator(DmuControl *control)
{
	PGPROC	   *proc = BackendPidGetProc(control->head.coordinator_pid);

	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

void
dmu_queue_nudge(DmuControl *control)
{
	for (int i = 0; i < control->nslots; i++)
	{
		int			pid = (int) pg_atomic_read_u32(&control->slots[i].live_pid);
		PGPROC	   *proc = pid != 0 ? BackendPidGetProc(pid) : NULL;

		/* As above: a latch set for nothing is fine. */
		if (proc != NULL)
			SetLatch(&proc->procLatch);
	}
}
