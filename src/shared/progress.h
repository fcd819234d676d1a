/*-------------------------------------------------------------------------
 *
 * progress.h
 *		How far a running cycle is, from its shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PROGRESS_H
#define DMU_PROGRESS_H

#include "queue.h"

/* The state of a cycle at one moment. */
typedef struct DmuProgress
{
	TimestampTz at;
	int64		done;			/* datamart users with an outcome */
	DmuTally	total;
} DmuProgress;

/* A look at one running cycle after the other. */
typedef struct DmuProgressScan
{
	dsm_handle *handles;		/* palloc'd */
	int			nhandles;
	int			next;
	dsm_segment *seg;			/* of the last one, as by dmu_queue_attach() */
} DmuProgressScan;

/*
 * The running cycles of this database that were started by this build of the
 * library, each from the moment that it has an id, which its first commit
 * shows to others, until its history is written, in no order.  What next() returns is there
 * until the next call; NULL after the last one.
 */
extern void dmu_progress_begin(DmuProgressScan *scan);
extern DmuControl *dmu_progress_next(DmuProgressScan *scan);
extern void dmu_progress_end(DmuProgressScan *scan);

/* The same for the services of this build, those too that are idle. */
extern DmuControl *dmu_progress_next_service(DmuProgressScan *scan);

/*
 * The cycle of a datamart, from the moment that it keeps others from beginning,
 * or that with an id, of whatever build; NULL if there is none.  "seg" is set as
 * by dmu_queue_attach().
 */
extern DmuControlHead *dmu_progress_attach_datamart(Oid users,
													dsm_segment **seg);
extern DmuControlHead *dmu_progress_attach_cycle(int64 cycle_id,
												 dsm_segment **seg);

/*
 * The cycle of this database, likewise, if it is the only one.  Raises 55000 if
 * there are several.
 */
extern DmuControlHead *dmu_progress_attach_only(dsm_segment **seg);

/*
 * Removes from "cycle_ids" the cycles that run in this database, those too
 * that are just committing their first row; returns how many are left.
 */
extern int	dmu_progress_remove_running(int64 *cycle_ids, int ncycles);

/* Raises 55006, naming it, if a cycle or service of that datamart is running. */
extern void dmu_progress_refuse_second(Oid users);

/* Reads it; from any process, at any time, without a lock. */
extern void dmu_progress_read(DmuControl *control, DmuProgress *progress);

/*
 * Datamart users per second: over the last ten seconds, or over all if nothing
 * was done in them.
 */
extern double dmu_progress_rate(DmuControl *control, const DmuProgress *now);

/*
 * Microseconds until it is through, by the number of actions of those that are
 * left; negative if nobody knows.
 */
extern double dmu_progress_time_left(DmuControl *control,
									 const DmuProgress *now);

/* The phase of a cycle, and what a worker does, in words; constant strings. */
extern const char *dmu_progress_phase_name(DmuControl *control);
extern const char *dmu_progress_state_name(DmuControl *control, int slot);

/* Tells the client of this backend, as a NOTICE, how far the cycle is. */
extern void dmu_progress_notice(DmuControl *control);

/*
 * The result of a cycle that ends now, or, with DMU_STATUS_RUNNING, as far as
 * it is known.
 */
extern void dmu_progress_result(DmuControl *control, DmuStatus status,
								DmuCycleResult *result);

#endif							/* DMU_PROGRESS_H */
