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

uint64
dmu_prepared_run(SPIPlanPtr plan, Datum argument, int expected)
{
	int			result = SPI_execute_plan(plan, &argument, NULL, false, 0);

	if (result != expected)
		elog(ERROR, "unexpected result %s of a statement of a refresh",
			 SPI_result_code_string(result));
	return SPI_processed;
}
