/*-------------------------------------------------------------------------
 *
 * blocked.c
 *		Does another process wait for a lock of this very backend?
 *
 *		A backend that waits on its latch is invisible to the deadlock check of
 *		storage/lmgr/deadlock.c: if a worker waits for a lock of the backend
 *		that waits for the worker, both wait for ever.  So whoever waits for a
 *		cycle looks now and then whether one of its processes waits for him.
 *
 *		This file knows nothing of cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "blocked.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

/* A chain of waiting processes that is longer is looked at in part. */
#define DMU_MAX_CHAIN 100

bool
dmu_blocked_by_me(int pid)
{
	List	   *chain = list_make1_int(pid);

	/* The list grows while we walk it. */
	for (int i = 0; i < list_length(chain) && i < DMU_MAX_CHAIN; i++)
	{
		Datum		blockers = DirectFunctionCall1(pg_blocking_pids,
												   Int32GetDatum(list_nth_int(chain, i)));
		Datum	   *pids;
		int			npids;

		deconstruct_array(DatumGetArrayTypeP(blockers), INT4OID, sizeof(int32),
						  true, TYPALIGN_INT, &pids, NULL, &npids);
		for (int j = 0; j < npids; j++)
		{
			int			blocker = DatumGetInt32(pids[j]);

			if (blocker == MyProcPid)
				return true;
			/* A prepared transaction is 0, and waits for nobody. */
			if (blocker != 0)
				chain = list_append_unique_int(chain, blocker);
		}
	}
	return false;
}

char	   *
dmu_blocked_object(int pid)
{
	BlockedProcsData *data = GetBlockerStatusData(pid);

	for (int i = 0; i < data->nlocks; i++)
	{
		const LockInstanceData *lock = &data->locks[i];
		StringInfoData text;

		if (lock->pid != pid || lock->waitLockMode == NoLock)
			continue;

		initStringInfo(&text);
		if ((lock->locktag.locktag_type == LOCKTAG_RELATION ||
			 lock->locktag.locktag_type == LOCKTAG_TUPLE) &&
			lock->locktag.locktag_field1 == MyDatabaseId)
		{
			char	   *name = get_rel_name(lock->locktag.locktag_field2);

			if (name != NULL)
			{
				appendStringInfo(&text, "relation \"%s\"", name);
				return text.data;
			}
		}
		DescribeLockTag(&text, &lock->locktag);
		return text.data;
	}
	return NULL;
}
