/*-------------------------------------------------------------------------
 *
 * blockers.c
 *		Does a process wait for a lock of this one?
 *
 *		The deadlock check of storage/lmgr/deadlock.c knows who waits for locks.
 *		It does not see that this process waits for another one on its latch, so
 *		whoever does that has to look.
 *
 *		This file knows nothing of cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "blockers.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"

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
