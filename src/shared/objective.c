/*-------------------------------------------------------------------------
 *
 * objective.c
 *		The setting freshness_objective: how long datamart users may wait.
 *
 *		No cycle goes by it; it is there to be compared with.  This file looks
 *		nothing up, and does not know how long anybody has waited.
 *
 *-------------------------------------------------------------------------
 */
#include "objective.h"

#include "parse.h"
#include "utils/guc.h"

int			dmu_freshness_objective[DMU_NPRIORITIES];

bool
dmu_objective_parse(const char *text, int *objective)
{
	List	   *items;
	ListCell   *lc;

	memset(objective, 0, DMU_NPRIORITIES * sizeof(int));
	if (!dmu_parse_parameters(text, &items))
		return false;
	foreach(lc, items)
	{
		const DmuWorkerSetting *item = lfirst(lc);
		int			p = 0;
		int			seconds;

		while (p < DMU_NPRIORITIES &&
			   pg_strcasecmp(item->name, dmu_priority_name((DmuPriority) p)) != 0)
			p++;
		if (p == DMU_NPRIORITIES || objective[p] != 0 ||
			!parse_int(item->value, &seconds, GUC_UNIT_S, NULL) || seconds <= 0)
			return false;
		objective[p] = seconds;
	}
	return true;
}
