/*-------------------------------------------------------------------------
 *
 * directory.c
 *		One cycle per database, and how other sessions find it.
 *
 *		Both are heavyweight locks of the advisory lock method, because that
 *		needs no preloading, no file and no cleaning up: the lock manager
 *		releases session-level locks of this method when the process ends, in
 *		whatever way (ShutdownPostgres in utils/init/postinit.c).  The fourth
 *		field of the tag is one that no SQL function can produce (those use 1
 *		and 2, see utils/adt/lockfuncs.c), so no role can take or fake them.
 *
 *		The second lock carries the handle of the control segment in its tag;
 *		whoever looks for the running cycle reads it off the lock table, as
 *		pg_locks does.
 *
 *		This file knows what a handle is, not what it leads to.
 *
 *-------------------------------------------------------------------------
 */
#include "directory.h"

#include "miscadmin.h"
#include "storage/lock.h"

/* First field that is free in our tags, to be told from other extensions. */
#define DMU_LOCK_KEY 0x64617461

/* Fourth field of the tag. */
#define DMU_LOCK_CYCLE 3
#define DMU_LOCK_HANDLE 4

static void
cycle_tag(LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, DMU_LOCK_KEY, 0, DMU_LOCK_CYCLE);
}

static void
handle_tag(LOCKTAG *tag, dsm_handle handle)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, DMU_LOCK_KEY, handle,
						 DMU_LOCK_HANDLE);
}

bool
dmu_directory_enter(dsm_handle handle)
{
	LOCKTAG		tag;

	cycle_tag(&tag);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;

	handle_tag(&tag, handle);
	(void) LockAcquire(&tag, ExclusiveLock, true, true);
	return true;
}

void
dmu_directory_leave(dsm_handle handle)
{
	LOCKTAG		tag;

	handle_tag(&tag, handle);
	(void) LockRelease(&tag, ExclusiveLock, true);
	cycle_tag(&tag);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

dsm_handle
dmu_directory_find(void)
{
	LockData   *data = GetLockStatusData();
	dsm_handle	handle = DSM_HANDLE_INVALID;

	for (int i = 0; i < data->nelements; i++)
	{
		const LOCKTAG *tag = &data->locks[i].locktag;

		if (tag->locktag_type == LOCKTAG_ADVISORY &&
			tag->locktag_lockmethodid == USER_LOCKMETHOD &&
			tag->locktag_field1 == MyDatabaseId &&
			tag->locktag_field2 == DMU_LOCK_KEY &&
			tag->locktag_field4 == DMU_LOCK_HANDLE &&
			data->locks[i].holdMask != 0)
			handle = (dsm_handle) tag->locktag_field3;
	}

	pfree(data->locks);
	pfree(data);
	return handle;
}
