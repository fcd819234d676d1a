/*-------------------------------------------------------------------------
 *
 * streak.c
 *		The streak of errors that the workers of a cycle share.
 *
 *		One word of the control segment, so that each step is atomic and no
 *		worker waits for another.
 *
 *		This file only counts; what follows from it trouble.c decides.
 *
 *-------------------------------------------------------------------------
 */
#include "streak.h"

#include "utils/timestamp.h"

/* SQLSTATE in the lower half, then 16 bits each for the two counts. */
static uint64
pack_streak(DmuStreak streak)
{
	return (uint64) Min(streak.probes, PG_UINT16_MAX) << 48 |
		(uint64) Min(streak.failures, PG_UINT16_MAX) << 32 |
		(uint32) streak.sqlerrcode;
}

static DmuStreak
unpack_streak(uint64 packed)
{
	DmuStreak	streak;

	streak.sqlerrcode = (int) (uint32) packed;
	streak.failures = (int) (packed >> 32 & PG_UINT16_MAX);
	streak.probes = (int) (packed >> 48);
	return streak;
}

DmuStreak
dmu_queue_streak(DmuControl *control)
{
	return unpack_streak(pg_atomic_read_u64(&control->streak));
}

DmuStreak
dmu_queue_add_to_streak(DmuControl *control, int sqlerrcode, bool probe)
{
	TimestampTz now = GetCurrentTimestamp();
	uint64		packed = pg_atomic_read_u64(&control->streak);
	DmuStreak	streak;

	do
	{
		streak = unpack_streak(packed);
		if (streak.failures == 0)
			streak.sqlerrcode = sqlerrcode;
		streak.failures++;
		if (probe)
			streak.probes++;
	} while (!pg_atomic_compare_exchange_u64(&control->streak, &packed,
											 pack_streak(streak)));
	if (streak.failures == 1)
		pg_atomic_write_u64(&control->streak_since, (uint64) now);
	return streak;
}

void
dmu_queue_end_streak(DmuControl *control, int sqlerrcode)
{
	uint64		packed = pg_atomic_read_u64(&control->streak);

	while (packed != 0 && unpack_streak(packed).sqlerrcode == sqlerrcode)
	{
		if (pg_atomic_compare_exchange_u64(&control->streak, &packed, 0))
			break;
	}
}
