/*-------------------------------------------------------------------------
 *
 * renew.h
 *		Settings that change while a service runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_RENEW_H
#define DMU_RENEW_H

#include "queue.h"

/* Has a reload of the server noted; once, before the session is assumed. */
extern void dmu_renew_listen(void);

/* True once after a reload. */
extern bool dmu_renew_is_reloaded(void);

/*
 * True if what ALTER ROLE and ALTER DATABASE have stored for the session's role
 * and database is not what "stored" stands for, which is brought up to date.
 * In a transaction.
 */
extern bool dmu_renew_is_due(uint64 *stored);

/*
 * Takes over the settings that a new session would have now, those excepted
 * that the starting session or its client had set, and publishes them for
 * the next processes.  False if nothing is different, or if no cycle could
 * begin with them: then all stays, and a WARNING says why.  With no transaction
 * open; goes on in the given memory context.
 */
extern bool dmu_renew_settings(DmuControl *control, MemoryContext context);

#endif							/* DMU_RENEW_H */
