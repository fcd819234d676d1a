/*-------------------------------------------------------------------------
 *
 * residue.h
 *		What a refresh leaves in its session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_RESIDUE_H
#define DMU_RESIDUE_H

#include "postgres.h"

/* In the transaction of a refresh, before any code of the user. */
extern void dmu_residue_begin(void);

/*
 * When that transaction has nothing left to do but commit: undoes settings
 * and drops temporary objects.  May raise an error; then
 * the refresh that left them does not commit.
 */
extern void dmu_residue_undo(void);

/*
 * After its commit or abort, with no transaction open: drops what heeds no
 * transaction.  Raises nothing.
 */
extern void dmu_residue_drop(void);

#endif							/* DMU_RESIDUE_H */
