/*-------------------------------------------------------------------------
 *
 * blockers.h
 *		Does a process wait for a lock of this one?
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_BLOCKERS_H
#define DMU_BLOCKERS_H

#include "postgres.h"

/*
 * True if process "pid" waits for a heavyweight lock that this process holds
 * or waits for, directly or behind others.  Looks at the whole lock table, and
 * leaves some memory in the current context.
 */
extern bool dmu_blocked_by_me(int pid);

#endif							/* DMU_BLOCKERS_H */
