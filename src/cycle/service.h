/*-------------------------------------------------------------------------
 *
 * service.h
 *		The background worker that owns a service: a cycle that goes on.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_SERVICE_H
#define DMU_SERVICE_H

#include "postgres.h"

/* Entry point of a background worker; the argument is a control segment. */
extern PGDLLEXPORT void dmu_service_main(Datum main_arg);

#endif							/* DMU_SERVICE_H */
