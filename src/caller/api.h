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

#include "warehouse.h"

/* The warehouse; raises the errors of a cycle that could not work. */
extern DmuWarehouse *dmu_api_check_warehouse(void);

#endif							/* DMU_API_H */
