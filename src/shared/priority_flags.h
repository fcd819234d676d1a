/*-------------------------------------------------------------------------
 *
 * priority_flags.h
 *		Reads the flags; a part of priority.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PRIORITY_FLAGS_H
#define DMU_PRIORITY_FLAGS_H

#include "priority.h"
#include "utils/array.h"

/* The ids in a bigint[] without nulls, and the size of one with so many. */
static inline int64 *
dmu_ids_of(ArrayType *array)
{
	return (int64 *) ((char *) array + ARR_OVERHEAD_NONULLS(1));
}

static inline Size
dmu_ids_size(int64 nids)
{
	return ARR_OVERHEAD_NONULLS(1) + nids * sizeof(int64);
}

/*
 * Fills "waiting", whose header is still to be set, "total" and "counts" with
 * everybody who has the flag, in order of the ids.  Needs an active snapshot;
 * errors are those of dmu_priority_look().
 */
extern void dmu_flags_read(const DmuWarehouse *warehouse, DmuBacklog *backlog);

#endif							/* DMU_PRIORITY_FLAGS_H */
