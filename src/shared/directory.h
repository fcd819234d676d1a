/*-------------------------------------------------------------------------
 *
 * directory.h
 *		One cycle per datamart, and how other sessions find it.
 *
 *		A datamart is the oid of its users table.  What a process enters here
 *		it keeps until it gives it back or ends, whatever advisory locks the
 *		code that it runs takes and releases.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_DIRECTORY_H
#define DMU_DIRECTORY_H

#include "postgres.h"

#include "storage/dsm.h"

/*
 * Takes the cycle lock of a datamart of this database for the calling process
 * and enters "handle" as the control segment of its running cycle.  False if
 * another process holds the lock.  Never waits.
 */
extern bool dmu_directory_enter(Oid users, dsm_handle handle);

/*
 * Enters the calling process as a worker of a cycle of that datamart; it need
 * not be connected to the database yet.  False if the next cycle has begun,
 * or is about to.  Never waits.
 */
extern bool dmu_directory_join(Oid database, Oid users);

/* Gives everything back, with no transaction open; the end of the process
 * does the same. */
extern void dmu_directory_leave(void);

/*
 * True if a process is entered as a worker of the datamart.  Only for the
 * holder of its cycle lock, before it has workers of its own.
 */
extern bool dmu_directory_has_workers(Oid users);

/*
 * The control segments of this database's running cycles, palloc'd in the
 * current context; returns how many.  Each may be gone by the time it is
 * attached.
 */
extern int	dmu_directory_list(dsm_handle **handles);

/*
 * To be called once in every transaction of a process that may be entered
 * here, at its beginning.
 */
extern void dmu_directory_begin_transaction(void);

/*
 * Releases all session-level advisory locks of this process but those that
 * keep its entry.  In a transaction that was announced as above, or in a
 * callback at its end (commit or abort).  Raises nothing.
 */
extern void dmu_directory_drop_advisory_locks(void);

#endif							/* DMU_DIRECTORY_H */
