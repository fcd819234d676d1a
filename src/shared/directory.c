/*-------------------------------------------------------------------------
 *
 * directory.c
 *		One cycle per datamart, and how other sessions find it.
 *
 *		All of it is heavyweight locks of the advisory lock method, because that
 *		needs no preloading, no file and no cleaning up: the lock manager
 *		releases session-level locks of this method when the process ends, in
 *		whatever way (ShutdownPostgres in utils/init/postinit.c).  The fourth
 *		field of the tag is one that no SQL function can produce (those use 1
 *		and 2, see utils/adt/lockfuncs.c), so no role can take or fake them.
 *
 *		The cycle lock is that of a users table.  The second lock carries the
 *		handle of the control segment in its tag; whoever looks for running
 *		cycles reads it off the lock table, as pg_locks does.  The third is
 *		shared by the workers of a cycle: it outlives their coordinator if they
 *		do, and tells the next one to wait.
 *
 *		The code of a refresh can release session-level advisory locks, ours
 *		too, with pg_advisory_unlock_all(); those of a transaction it cannot.
 *		So a lock is held by the transaction while there is one, and by the
 *		session from one transaction to the next.  It changes hands where no
 *		code but the server's runs, the new hold before the old one goes.
 *
 *		This file knows what a handle is, not what it leads to.
 *
 *-------------------------------------------------------------------------
 */
#include "directory.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lock.h"

/* First field that is free in our tags, to be told from other extensions. */
#define DMU_LOCK_KEY 0x64617461

/* Fourth field of the tag, and what the third one is then. */
#define DMU_LOCK_CYCLE 3		/* users table */
#define DMU_LOCK_HANDLE 4		/* control segment */
#define DMU_LOCK_WORKER 5		/* users table */

/* The locks that this process keeps. */
typedef struct KeptLock
{
	LOCKTAG		tag;
	LOCKMODE	mode;
} KeptLock;

static KeptLock kept[2];
static int	nkept = 0;

/* Who holds them now: the open transaction, or else the session. */
static bool held_by_transaction = false;

static void
set_tag(LOCKTAG *tag, Oid database, uint32 what, uint16 kind)
{
	SET_LOCKTAG_ADVISORY(*tag, database, DMU_LOCK_KEY, what, kind);
}

/*
 * For the session.  We hold each of them already, so that this only counts:
 * it can neither wait nor fail.
 */
static void
hold_for_session(void)
{
	for (int i = 0; i < nkept; i++)
		(void) LockAcquire(&kept[i].tag, kept[i].mode, true, true);
}

/*
 * XactCallback.  The locks of the transaction are released soon after these
 * two events, and no more code is run before.
 */
static void
end_transaction(XactEvent event, void *arg)
{
	if (!held_by_transaction ||
		(event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	hold_for_session();
	held_by_transaction = false;
}

/*
 * before_shmem_exit callback, for a process that ends before it is connected
 * to a database: ShutdownPostgres does not run then.
 */
static void
release_all(int code, Datum arg)
{
	LockReleaseAll(USER_LOCKMETHOD, true);
	nkept = 0;
}

static bool
keep(const LOCKTAG *tag, LOCKMODE mode)
{
	Assert(nkept < (int) lengthof(kept));
	if (LockAcquire(tag, mode, !held_by_transaction, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	kept[nkept].tag = *tag;
	kept[nkept].mode = mode;
	nkept++;
	return true;
}

bool
dmu_directory_enter(Oid users, dsm_handle handle)
{
	LOCKTAG		tag;

	set_tag(&tag, MyDatabaseId, users, DMU_LOCK_CYCLE);
	if (!keep(&tag, ExclusiveLock))
		return false;
	set_tag(&tag, MyDatabaseId, handle, DMU_LOCK_HANDLE);
	(void) keep(&tag, ExclusiveLock);
	return true;
}

bool
dmu_directory_join(Oid database, Oid users)
{
	LOCKTAG		tag;

	before_shmem_exit(release_all, (Datum) 0);
	set_tag(&tag, database, users, DMU_LOCK_WORKER);
	return keep(&tag, ShareLock);
}

void
dmu_directory_leave(void)
{
	Assert(!held_by_transaction);
	while (nkept > 0)
	{
		nkept--;
		(void) LockRelease(&kept[nkept].tag, kept[nkept].mode, true);
	}
}

bool
dmu_directory_has_workers(Oid users)
{
	LOCKTAG		tag;

	set_tag(&tag, MyDatabaseId, users, DMU_LOCK_WORKER);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	(void) LockRelease(&tag, ExclusiveLock, true);
	return false;
}

int
dmu_directory_list(dsm_handle **handles)
{
	LockData   *data = GetLockStatusData();
	int			nhandles = 0;

	*handles = palloc(Max(data->nelements, 1) * sizeof(dsm_handle));
	for (int i = 0; i < data->nelements; i++)
	{
		const LOCKTAG *tag = &data->locks[i].locktag;

		if (tag->locktag_type == LOCKTAG_ADVISORY &&
			tag->locktag_lockmethodid == USER_LOCKMETHOD &&
			tag->locktag_field1 == MyDatabaseId &&
			tag->locktag_field2 == DMU_LOCK_KEY &&
			tag->locktag_field4 == DMU_LOCK_HANDLE &&
			data->locks[i].holdMask != 0)
			(*handles)[nhandles++] = (dsm_handle) tag->locktag_field3;
	}

	pfree(data->locks);
	pfree(data);
	return nhandles;
}

void
dmu_directory_begin_transaction(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(end_transaction, NULL);
	registered = true;

	for (int i = 0; i < nkept; i++)
		(void) LockAcquire(&kept[i].tag, kept[i].mode, false, true);
	held_by_transaction = true;
	for (int i = 0; i < nkept; i++)
		(void) LockRelease(&kept[i].tag, kept[i].mode, true);
}

void
dmu_directory_drop_advisory_locks(void)
{
	LockReleaseSession(USER_LOCKMETHOD);

	/* The end of the transaction has had its turn. */
	if (!held_by_transaction)
		hold_for_session();
}
