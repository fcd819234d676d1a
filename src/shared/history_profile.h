/*-------------------------------------------------------------------------
 *
 * history_profile.h
 *		What the history keeps of a cycle beside its row; a part of history.h.
 *
 *		Each runs as the owner, in a scope that the caller has entered.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_HISTORY_PROFILE_H
#define DMU_HISTORY_PROFILE_H

#include "history.h"
#include "ownersql.h"

/*
 * What came of each priority that had any datamart users, in the place of what
 * was saved before.  Without a profile, while the workers still write theirs,
 * there are no percentiles.
 */
extern void dmu_history_save_priorities(const DmuOwnerScope *scope,
										int64 cycle_id,
										const int32 *found_by_priority,
										const DmuTally *by_priority,
										const DmuProfile *profile);

/* Once, when the cycle has ended; nothing if nobody was refreshed. */
extern void dmu_history_insert_profile(const DmuOwnerScope *scope,
									   const DmuCycleEnd *end);
extern void dmu_history_insert_slowest(const DmuOwnerScope *scope,
									   const DmuCycleEnd *end);

#endif							/* DMU_HISTORY_PROFILE_H */
