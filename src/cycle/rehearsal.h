/*-------------------------------------------------------------------------
 *
 * rehearsal.h
 *		One refresh that is rolled back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_REHEARSAL_H
#define DMU_REHEARSAL_H

#include "queue.h"

/* Entry point of a background worker; the argument is a control segment. */
extern PGDLLEXPORT void dmu_rehearsal_main(Datum main_arg);

#endif							/* DMU_REHEARSAL_H */
