/*-------------------------------------------------------------------------
 *
 * prepared.c
 *		Statements that a worker prepares once and runs for every datamart user.
 *
 *		Nearly all of a light refresh is planning, so plans are kept; and none
 *		of what they are for is known here.
 *
 *-------------------------------------------------------------------------
 */
#include "prepared.h"

#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "utils/plancache.h"

SPIPlanPtr
dmu_prepared_make(const char *sql, Oid argtype)
{
	SPIPlanPtr	plan = SPI_prepare(sql, 1, &argtype);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql,
			 SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep plan of \"%s\"", sql);
	return plan;
}

/*
 * Gives the kept plan its query ids back.  pg_stat_statements takes that of a
 * utility command away when it runs (pgss_ProcessUtility()), so that nothing
 * counts twice; but in a plan that is kept it is missing ever after, and the
 * next runs are not counted at all.
 */
static void
restore_query_ids(SPIPlanPtr plan)
{
	ListCell   *lc;

	foreach(lc, SPI_plan_get_plan_sources(plan))
	{
		CachedPlanSource *source = lfirst(lc);
		ListCell   *query;
		ListCell   *statement;

		if (source->gplan == NULL)
			continue;
		forboth(query, source->query_list, statement, source->gplan->stmt_list)
			lfirst_node(PlannedStmt, statement)->queryId =
			lfirst_node(Query, query)->queryId;
	}
}

uint64
dmu_prepared_run(SPIPlanPtr plan, Datum argument, int expected)
{
	int			result;

	restore_query_ids(plan);
	result = SPI_execute_plan(plan, &argument, NULL, false, 0);
	if (result != expected)
		elog(ERROR, "unexpected result %s of a statement of a refresh",
			 SPI_result_code_string(result));
	return SPI_processed;
}
