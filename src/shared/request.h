/*-------------------------------------------------------------------------
 *
 * request.h
 *		What the caller of a cycle wants.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_REQUEST_H
#define DMU_REQUEST_H

#include "datamart_users.h"

/* No number of datamart users is given: the settings decide. */
#define DMU_USERS_BY_SETTINGS 0

typedef struct DmuRequest
{
	Oid			users;			/* the users table, which is the datamart */
	char		users_name[DMU_QUALIFIED_NAME_LEN]; /* its name, quoted */
	int32		max_users;		/* datamart users, or DMU_USERS_BY_SETTINGS */
	int32		workers;		/* with the coordinator, at least 1 */
	int64		time_limit;		/* milliseconds; 0 = none */
	bool		caller_waits;	/* the cycle ends with its caller */
	Oid			function;		/* that started a service */
	int64		poll;			/* milliseconds between two looks of a
								 * service; 0 = it is a cycle */
} DmuRequest;

#endif							/* DMU_REQUEST_H */
