/*-------------------------------------------------------------------------
 *
 * launch.h
 *		Background workers: start, end, and whose rights and settings they
 *		have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_LAUNCH_H
#define DMU_LAUNCH_H

#include "postgres.h"

#include "postmaster/bgworker.h"
#include "queue.h"

/* Worker number of the coordinator; the others count on from 2. */
#define DMU_COORDINATOR 1

/* A process that belongs to no cycle; it has the only slot of its segment. */
#define DMU_REHEARSAL 0

/* The coordinator of a service; it has the first slot, as any other. */
#define DMU_SERVICE (-1)

/* Bytes that dmu_launch_save_session() will need. */
extern Size dmu_launch_session_size(void);

/*
 * Writes identity, settings and loaded libraries of this backend into the
 * control segment.
 */
extern void dmu_launch_save_session(DmuControl *control, Size session_size);

/*
 * Registers a worker process; its pid changes reach this process's latch.
 * False if max_worker_processes leaves no slot.  The handle is palloc'd in
 * the current context.
 */
extern bool dmu_launch_register(dsm_handle handle, int number,
								BackgroundWorkerHandle **worker);

/* True until all of them have stopped, or will not start any more. */
extern bool dmu_launch_any_running(BackgroundWorkerHandle **workers,
								   int nworkers);

/*
 * For the main function of a new process: signals, control segment (mapped
 * until exit), the directory of workers, slot.  NULL if the cycle is over
 * already, or about to be.
 */
extern DmuControl *dmu_launch_attach(Datum main_arg, int *number);

/*
 * Connects to the caller's database as the caller, with the caller's settings.
 * Afterwards no SQL can change the role.  Where it cannot connect, which is
 * FATAL, the reason is left in the control segment: as the error of the cycle
 * by a coordinator, as missing_error by any other worker.
 */
extern void dmu_launch_assume_session(DmuControl *control);

/*
 * Shows cycle and worker number as application_name; or that it belongs to a
 * service, which is at no cycle.
 */
extern void dmu_launch_announce(DmuControl *control, int number);

/*
 * In the backend that started the process of slot 1, when that has ended
 * before its time: raises the reason, if it is known to have come from its
 * start.
 */
extern void dmu_launch_raise_not_started(DmuControl *control);

/*
 * The settings of the processes, palloc'd, as RestoreGUCState() reads them; the
 * process counts as having these from then on.
 */
extern char *dmu_launch_settings(DmuControl *control);

/*
 * Coordinator of a service: gives the next processes other settings, "size"
 * bytes; false if there is no room for them.  To be followed by
 * dmu_launch_settings(), or it counts as outdated itself.
 */
extern bool dmu_launch_publish_settings(DmuControl *control,
										const char *settings, Size size);

/* True if there are others than this process has. */
extern bool dmu_launch_is_outdated(DmuControl *control);

/* Role and own settings again, after RestoreGUCState(); with no transaction. */
extern void dmu_launch_become_caller(DmuControl *control);

#endif							/* DMU_LAUNCH_H */
