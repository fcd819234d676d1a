/*-------------------------------------------------------------------------
 *
 * who.h
 *		Who did it, in words for a message.
 *
 *		Both functions need a transaction; what they return is palloc'd.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_WHO_H
#define DMU_WHO_H

#include "postgres.h"

/* This session: its role, its process, and what its client calls itself. */
extern char *dmu_who_am_i(void);

/*
 * The process with that pid and the role of its session, as far as it is still
 * there; -1 stands for one that is not known.
 */
extern char *dmu_who_is(int pid);

#endif							/* DMU_WHO_H */
