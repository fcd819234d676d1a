/*-------------------------------------------------------------------------
 *
 * report_workers.h
 *		The part of the report that only a running cycle has: its workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_REPORT_WORKERS_H
#define DMU_REPORT_WORKERS_H

#include "picture.h"

/*
 * Fills in the workers of the picture's cycle, those that live; none if it
 * has ended since, or is of another build of the library.  "ids" tells whether
 * the caller may see ids of datamart users.  Needs a transaction, and the
 * caller's own role.
 */
extern void dmu_report_workers(DmuPicture *picture, bool ids);

#endif							/* DMU_REPORT_WORKERS_H */
