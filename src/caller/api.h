/*-------------------------------------------------------------------------
 *
 * api.h
 *		What a function must see to before it has a process started.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_API_H
#define DMU_API_H

#include "datamart_users.h"

#include "fmgr.h"
#include "warehouse.h"

/* An integer argument from 1 to "max"; "fallback" if it is NULL. */
extern int32 dmu_api_int_arg(FunctionCallInfo fcinfo, int argno,
							 const char *name, int32 max, int32 fallback);

/*
 * An interval argument in milliseconds, rounded up, "fallback" if it is NULL;
 * neither negative nor more than a century.
 */
extern int64 dmu_api_interval_arg(FunctionCallInfo fcinfo, int argno,
								  const char *name, int64 fallback);

/* The warehouse; raises the errors of a cycle that could not work. */
extern DmuWarehouse *dmu_api_check_warehouse(void);

#endif							/* DMU_API_H */
