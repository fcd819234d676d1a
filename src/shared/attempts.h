/*-------------------------------------------------------------------------
 *
 * attempts.h
 *		The log of refreshes that did not succeed.
 *
 *		Every function needs a transaction, and a caller who has made sure that
 *		the current role may update the flag of the users table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_ATTEMPTS_H
#define DMU_ATTEMPTS_H

#include "datamart_users.h"

/* What stands for a message where failure_texts is off. */
#define DMU_TEXT_NOT_KEPT "not kept, see datamart_users.failure_texts"

/* An attempt of a cycle that did not succeed. */
typedef struct DmuAttempt
{
	Oid			users;			/* the users table */
	const char *users_name;		/* its name, quoted */
	int64		dimension_user_id;
	int64		cycle_id;
	DmuOutcome	outcome;		/* DMU_FAILED or DMU_DEFERRED */
	bool		charged;		/* the datamart user got a back-off for it */
	const DmuError *error;
} DmuAttempt;

/* Adds it; without failure_texts, only the SQLSTATE is told of the error. */
extern void dmu_attempts_add(const DmuAttempt *attempt);

/*
 * The same for datamart users that were deferred because the cycle had to stop
 * before their second turn; with the error of the first one, where
 * datamart_users_contention has it.
 */
extern void dmu_attempts_add_put_off(Oid users, const char *users_name,
									 int64 cycle_id, const int64 *ids, int nids);

/*
 * For a process that ends and cannot be interrupted any more: what follows in
 * the transaction waits for no lock, and 55P03 is raised here rather.
 */
extern void dmu_attempts_lock_nowait(void);

#endif							/* DMU_ATTEMPTS_H */
