/*-------------------------------------------------------------------------
 *
 * queue.h
 *		The shared memory of one cycle.
 *
 *		Two dynamic segments.  The control segment is made by the caller's
 *		backend: request, identity, session state, a slot for every worker.
 *		The queue segment is made by the coordinator once it knows how many
 *		datamart users there are.  Neither has a lock: a field has one writer,
 *		or is atomic.
 *
 *		A service has one control segment for all of its cycles, each of which
 *		begins with the counters at zero, and a new queue segment whenever it has
 *		found something else to do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_QUEUE_H
#define DMU_QUEUE_H

#include "datamart_users.h"

#include "estimate.h"
#include "port/atomics.h"
#include "profile.h"
#include "request.h"
#include "storage/dsm.h"

/*
 * The life of a cycle, written by the coordinator, each step only once and
 * after everything that the step promises is in place.  A service has entered
 * the directory and looked once when it is DMU_PHASE_RUNNING, and goes on to
 * DMU_PHASE_WORKING and back with every cycle.
 */
typedef enum DmuPhase
{
	DMU_PHASE_CREATED,			/* by the caller */
	DMU_PHASE_RUNNING,			/* its history row is committed */
	DMU_PHASE_QUEUED,			/* the queue segment is filled */
	DMU_PHASE_WORKING,			/* the workers are registered */
	DMU_PHASE_FINISHED			/* result and error are final */
} DmuPhase;

/*
 * Why workers are to stop; a later one overrides an earlier one.  Up to
 * DMU_STOP_TIME_LIMIT the datamart users at work are finished, beyond it they
 * are canceled and roll back.  Other builds of the library write
 * DMU_STOP_CANCEL, so the numbers stay as they are.
 */
typedef enum DmuStop
{
	DMU_STOP_NONE = 0,
	DMU_STOP_TIME_LIMIT = 1,
	DMU_STOP_CANCEL = 2,		/* somebody asked for it */
	DMU_STOP_FAILED,			/* the cycle cannot go on; error says why */
	DMU_STOP_ABORT				/* the coordinator goes down */
} DmuStop;

typedef enum DmuWorkerState
{
	DMU_WORKER_EMPTY,			/* never started */
	DMU_WORKER_IDLE,			/* between datamart users */
	DMU_WORKER_REFRESHING,		/* at work on dimension_user_id */
	DMU_WORKER_RECORDING,		/* writes down that it failed */
	DMU_WORKER_DONE				/* has left the queue */
} DmuWorkerState;

/* Room for who somebody is, in words: two roles, a process, an application. */
#define DMU_WHO_LEN (4 * NAMEDATALEN)

/* Who the caller is; written before the coordinator exists. */
typedef struct DmuIdentity
{
	Oid			authenticated_role;
	Oid			current_role;
	int			security_context;
	char		synchronous_commit[16]; /* the caller's */
	char		application_name[NAMEDATALEN];
	char		who[DMU_WHO_LEN];	/* all of it, in words */
} DmuIdentity;

/* Written by one worker, read by everybody. */
typedef struct DmuSlot
{
	pg_atomic_uint32 state;		/* DmuWorkerState */
	pg_atomic_uint32 pid;
	pg_atomic_uint32 live_pid;	/* the same, 0 again when the process exits */
	pg_atomic_uint32 joined;	/* 1 when it takes part; the coordinator of a
								 * service: 0 before it starts another one */
	pg_atomic_uint32 priority;	/* of the datamart user at work */
	pg_atomic_uint32 actions;	/* the same: facts */
	pg_atomic_uint64 dimension_user_id; /* at work, or the last one */
	pg_atomic_uint64 since;		/* TimestampTz, when it took on what it does */
	pg_atomic_uint64 outcomes[DMU_NPRIORITIES][DMU_NOUTCOMES];
	pg_atomic_uint64 total_usec[DMU_NPRIORITIES];
	pg_atomic_uint64 max_usec[DMU_NPRIORITIES];
	DmuWork		work;
	pg_atomic_uint64 planned_alone; /* datamart users */
	pg_atomic_uint64 free_since;	/* TimestampTz, since the last one was
									 * done */
	DmuProfile	profile;
} DmuSlot;

/*
 * What every build of the library finds at the beginning of a control segment,
 * whichever build has made it: enough to see that there is a cycle, to name it
 * and to stop it.  Nothing here ever changes; all that follows it is for
 * processes with the same layout only.
 */
typedef struct DmuControlHead
{
	uint64		magic;
	uint64		layout;			/* of the build that made it */
	uint64		size;			/* of the segment, bytes */
	Oid			database;
	Oid			users;			/* the users table */
	Oid			role;			/* that the cycle runs as */
	pg_atomic_uint32 stop;		/* DmuStop, anybody who may */
	pg_atomic_uint32 refused;	/* the coordinator is of another build */
	int32		coordinator_pid;	/* coordinator, before cycle_id */
	int64		cycle_id;		/* coordinator; 0 until it has one */
} DmuControlHead;

/* A rehearsal, which has a control segment of its own and is no cycle. */
typedef struct DmuRehearsal
{
	bool		wanted;			/* the caller: it is for dimension_user_id */
	bool		tried;			/* false: there is nobody to refresh */
	bool		modified;		/* false: there was nothing to do */
	bool		planned_alone;	/* see custom_plan_actions */
	int64		dimension_user_id;	/* the caller, or the first of the queue */
	DmuOutcome	outcome;
	int64		usec;			/* what the refresh took, microseconds */
	int64		nheld;			/* if nobody was: datamart users under
								 * back-off */
	int64		nparked;		/* the same: those parked */
} DmuRehearsal;

/* What a service tells of itself; its coordinator. */
typedef struct DmuServiceState
{
	TimestampTz since;
	pg_atomic_uint64 cycles;	/* that it has begun */
	pg_atomic_uint64 looks;
	pg_atomic_uint64 looked_at; /* TimestampTz, the last time */
	pg_atomic_uint64 look_usec; /* what that took */
	char		version[64];	/* of the extension, when it started */

	/*
	 * The pid of a worker that leaves to another process, 0 again when the
	 * coordinator has seen that; that worker.
	 */
	pg_atomic_uint32 leaving;

	/*
	 * Two more with every change of settings; odd while they are written.
	 * Coordinator.
	 */
	pg_atomic_uint32 settings;
} DmuServiceState;

typedef struct DmuControl
{
	DmuControlHead head;
	DmuRequest	request;		/* the caller, before the coordinator exists */
	DmuIdentity identity;
	pid_t		caller_pid;

	pg_atomic_uint32 phase;		/* DmuPhase, coordinator */

	/* From DMU_PHASE_RUNNING on; coordinator. */
	NameData	role_name;		/* the role may be dropped meanwhile */
	TimestampTz started_at;
	TimestampTz deadline;		/* no claims after it; 0 = none */
	bool		follows_crash;	/* workers note what they are at */

	/* From DMU_PHASE_QUEUED on; coordinator. */
	int64		backlog;
	int32		max_users;		/* what the limit came to */
	int32		found;
	int32		found_by_priority[DMU_NPRIORITIES];
	uint32		found_by_size[DMU_NSIZES];	/* see estimate.h */
	int32		workers_wanted; /* no more than datamart users */
	TimestampTz queued_at;
	pg_atomic_uint32 queue_handle;	/* DSM_HANDLE_INVALID if there is nobody */
	pg_atomic_uint32 workers_registered;	/* coordinator included */

	pg_atomic_uint64 streak;	/* see streak.h; any worker */
	pg_atomic_uint64 streak_since;	/* TimestampTz; who began the streak */

	/*
	 * The error that ended the cycle: whoever moves error_claimed from 0 to 1
	 * writes it, the coordinator reads it when that process has stopped.
	 */
	pg_atomic_uint32 error_claimed;
	DmuError	error;

	/*
	 * Why it was canceled: whoever moves stop_told from 0 to 1 writes it, and
	 * then sets 2, before it sets the stop flag.
	 */
	pg_atomic_uint32 stop_told;
	char		stop_reason[DMU_ERROR_TEXT_LEN];

	/* The same for the first worker that could not take part. */
	pg_atomic_uint32 missing_claimed;
	DmuError	missing_error;

	/*
	 * A commit of the coordinator did not wait for its synchronous standby to
	 * the end, because it was canceled; coordinator.
	 */
	pg_atomic_uint32 not_replicated;

	/* With DMU_PHASE_FINISHED; coordinator. */
	DmuCycleResult result;

	/* The same; the process of the rehearsal.  Its error is "error". */
	DmuRehearsal rehearsal;

	DmuServiceState service;

	int32		nslots;
	Size		session_offset; /* the caller's settings and libraries */
	Size		session_size;	/* bytes; the caller */
	DmuSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} DmuControl;

/* One datamart user in the queue; 16 bytes. */
typedef struct DmuQueueEntry
{
	int64		dimension_user_id;
	uint8		priority;		/* DmuPriority */
	bool		has_failure;	/* a row in a table of ours to remove */
	uint8		turn;			/* DmuTurn; whoever has claimed it, after the
								 * rest */
	bool		fresh;			/* processed or skipped; the same, and the
								 * coordinator when it has written that down */
	uint32		actions;		/* facts, or as many as fit; coordinator */
} DmuQueueEntry;

StaticAssertDecl(sizeof(DmuQueueEntry) == 16, "an entry of the queue has 16 bytes");

/* What is still to be done for a datamart user whose first turn is over. */
typedef enum DmuTurn
{
	DMU_TURN_FIRST,				/* it is not over */
	DMU_TURN_AGAIN,				/* it collided: once more when all are through */
	DMU_TURN_OVER,
	DMU_TURN_SETTLED			/* the coordinator of a service has seen that */
} DmuTurn;

typedef struct DmuQueue
{
	pg_atomic_uint64 taken;		/* from the head, and << 32 from the tail */
	uint32		nentries;

	/* Where a service has put another one in its place; its coordinator. */
	uint32		closed_head;
	uint32		closed_tail;
	bool		closed;
	DmuQueueEntry entries[FLEXIBLE_ARRAY_MEMBER];
} DmuQueue;

/*
 * Creates a control segment with the given number of slots and of bytes for
 * the session state; all else is zero.  The mapping belongs to the current
 * resource owner.  Raises what dsm_create() raises.
 */
extern dsm_segment *dmu_queue_create(int nslots, Size session_size);

/* The control structure of a segment that dmu_queue_create() made. */
extern DmuControl *dmu_queue_control(dsm_segment *seg);

/*
 * The control structure of a segment found by its handle; NULL if that is
 * not, or no longer, a control segment of this database's cycle.  "seg" is
 * set to what the caller has to dsm_detach(), or to NULL if this process had
 * it mapped already.
 */
extern DmuControlHead *dmu_queue_attach(dsm_handle handle, dsm_segment **seg);

/* True if the cycle has not ended, as far as this build can tell. */
extern bool dmu_queue_is_running(DmuControlHead *head);

/* All of it, or NULL if another build of the library has made it. */
extern DmuControl *dmu_queue_whole(DmuControlHead *head);

extern void *dmu_queue_session(DmuControl *control);

/*
 * Copies the entries into a new queue segment, mapped until the process ends,
 * and enters it into "control".  Coordinator only.
 */
extern void dmu_queue_fill(DmuControl *control, const DmuQueueEntry *entries,
						   uint32 nentries);

/* Maps the queue segment until the process ends; NULL if there is none. */
extern DmuQueue *dmu_queue_open(DmuControl *control);

/*
 * A queue segment that is not the only one of its process; mapped until it is
 * detached.
 */
typedef struct DmuQueueMap
{
	dsm_handle	handle;
	dsm_segment *seg;			/* NULL: there is none */
	DmuQueue   *queue;			/* the same */
} DmuQueueMap;

/* Makes one for a service, which nobody sees before it is published. */
extern void dmu_queue_make(DmuQueueMap *map, const DmuQueueEntry *entries,
						   uint32 nentries);

/*
 * Puts it in the place of the one before; DSM_HANDLE_INVALID for none.  Wakes
 * the workers.
 */
extern void dmu_queue_publish(DmuControl *control, dsm_handle handle);

/*
 * Has "map" be the queue that is published now, for a worker of a service: maps
 * that, and unmaps the one before.  NULL if there is none.
 */
extern DmuQueue *dmu_queue_follow(DmuControl *control, DmuQueueMap *map);

/* Unmaps it. */
extern void dmu_queue_unmap(DmuQueueMap *map);

/* How many nobody has claimed yet. */
extern uint32 dmu_queue_left(DmuQueue *queue);

/* How many were claimed, from the head and from the tail. */
extern void dmu_queue_claimed(DmuQueue *queue, uint32 *head, uint32 *tail);

/* Nobody claims from it any more; and how many were claimed. */
extern void dmu_queue_close(DmuQueue *queue, uint32 *head, uint32 *tail);

/* True for one entry of those that are claimed from the head: a quarter is left. */
extern bool dmu_queue_runs_low(const DmuQueue *queue, const DmuQueueEntry *entry);

/* Wakes the coordinator of a service, for it to look whether more is to be done. */
extern void dmu_queue_call_coordinator(DmuControl *control);

/* Wakes the processes of a service, without a cancel. */
extern void dmu_queue_nudge(DmuControl *control);

/*
 * Everything at zero for the next cycle of a service, while nobody is at work.
 * The slots of processes that are there stay theirs.
 */
extern void dmu_queue_reset(DmuControl *control);

/*
 * Takes the next entry, from the head or from the tail; NULL when the queue
 * is empty.  Nobody else writes to it then.
 */
extern DmuQueueEntry *dmu_queue_claim(DmuQueue *queue, bool from_tail);

/* The next entry from position "from" on whose turn is AGAIN, or NULL. */
extern DmuQueueEntry *dmu_queue_next_again(DmuQueueEntry *entries,
										   uint32 nentries, uint32 *from);

extern DmuPhase dmu_queue_phase(DmuControl *control);

/* Publishes the next phase and wakes the caller's backend. */
extern void dmu_queue_set_phase(DmuControl *control, DmuPhase phase);

#endif							/* DMU_QUEUE_H */
