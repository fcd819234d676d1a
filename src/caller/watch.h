/*-------------------------------------------------------------------------
 *
 * watch.h
 *		What a backend has to look after while it waits for a cycle.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_WATCH_H
#define DMU_WATCH_H

#include "queue.h"

/* How often a waiting backend looks around, milliseconds. */
#define DMU_WATCH_INTERVAL 1000

/* What it remembers between two looks. */
typedef struct DmuWatch
{
	MemoryContext context;		/* reset at every look */
	TimestampTz looked_at;
	TimestampTz reported_at;	/* the last NOTICE */
} DmuWatch;

/* Creates the memory context, below the current one. */
extern void dmu_watch_begin(DmuWatch *watch);
extern void dmu_watch_end(DmuWatch *watch);

/*
 * If the last look is long enough ago: raises 40P01 if a process of the cycle
 * waits for a lock of this backend, and ends this backend if its client has
 * gone.
 */
extern void dmu_watch_look(DmuWatch *watch, DmuControl *control);

/* Every progress_interval, tells the client how far the cycle is. */
extern void dmu_watch_report(DmuWatch *watch, DmuControl *control);

#endif							/* DMU_WATCH_H */
