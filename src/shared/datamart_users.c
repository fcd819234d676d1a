/*-------------------------------------------------------------------------
 *
 * datamart_users.c
 *		Loads the extension: its settings, and nothing else.
 *
 *		No hook, no shared memory request: the library may be loaded by the
 *		first call of a function as well as by shared_preload_libraries.
 *
 *-------------------------------------------------------------------------
 */
#include "datamart_users.h"

#include "compat.h"
#include "settings.h"

DMU_MODULE_MAGIC("datamart_users", DMU_EXTENSION_VERSION);

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	dmu_settings_init();
}

/* The words that people see for the values of our enums. */
static const char *const priority_names[] = {
	[DMU_CRITICAL] = "critical",
	[DMU_HIGH] = "high",
	[DMU_MEDIUM] = "medium",
	[DMU_HISTORICAL] = "historical",
	[DMU_LOW] = "low",
	[DMU_LOWEST] = "lowest",
};

static const char *const outcome_names[] = {
	[DMU_PROCESSED] = "processed",
	[DMU_FAILED] = "failed",
	[DMU_SKIPPED] = "skipped",
	[DMU_DEFERRED] = "deferred",
};

static const char *const status_names[] = {
	[DMU_STATUS_RUNNING] = "running",
	[DMU_STATUS_COMPLETED] = "completed",
	[DMU_STATUS_TIME_LIMIT] = "time_limit",
	[DMU_STATUS_CANCELLED] = "cancelled",
	[DMU_STATUS_FAILED] = "failed",
	[DMU_STATUS_ABORTED] = "aborted",
};

const char *
dmu_priority_name(DmuPriority priority)
{
	return priority_names[priority];
}

const char *
dmu_outcome_name(DmuOutcome outcome)
{
	return outcome_names[outcome];
}

const char *
dmu_status_name(DmuStatus status)
{
	return status_names[status];
}

DmuStatus
dmu_status_of_name(const char *name)
{
	for (int i = 0; i < (int) lengthof(status_names); i++)
	{
		if (strcmp(name, status_names[i]) == 0)
			return (DmuStatus) i;
	}
	elog(ERROR, "unknown status \"%s\" of a cycle", name);
}
