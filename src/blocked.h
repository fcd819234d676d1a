/*-------------------------------------------------------------------------
 *
 * blocked.h
 *		Does another process wait for a lock of this very backend?
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_BLOCKED_H
#define DMU_BLOCKED_H

/*
 * True if process "pid" waits for a heavyweight lock that this process holds,
 * directly or behind others.
 */
extern bool dmu_blocked_by_me(int pid);

/* What it waits for, in words, or NULL if it does not wait; palloc'd. */
extern char *dmu_blocked_object(int pid);

#endif							/* DMU_BLOCKED_H */
