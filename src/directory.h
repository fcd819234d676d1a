/*-------------------------------------------------------------------------
 *
 * directory.h
 *		One cycle per database, and how other sessions find it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_DIRECTORY_H
#define DMU_DIRECTORY_H

#include "postgres.h"

#include "storage/dsm.h"

/*
 * Takes the cycle lock of this database for the calling process and enters
 * "handle" as the running cycle's control segment.  False if another process
 * holds the lock.  Never waits.
 */
extern bool dmu_directory_enter(dsm_handle handle);

/* Gives both back; the end of the process does the same. */
extern void dmu_directory_leave(dsm_handle handle);

/*
 * The control segment of this database's running cycle, DSM_HANDLE_INVALID
 * if there is none.  It may be gone by the time it is attached.
 */
extern dsm_handle dmu_directory_find(void);

#endif							/* DMU_DIRECTORY_H */
