/*-------------------------------------------------------------------------
 *
 * coordinator.h
 *		The background worker that owns a cycle and is its worker 1.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_COORDINATOR_H
#define DMU_COORDINATOR_H

#include "postgres.h"

/* Entry point of a background worker; the argument is a control segment. */
extern PGDLLEXPORT void dmu_coordinator_main(Datum main_arg);

#endif							/* DMU_COORDINATOR_H */
