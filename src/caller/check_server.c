/*-------------------------------------------------------------------------
 *
 * check_server.c
 *		The doctor on what the server has for a cycle, and on the settings of
 *		workers.
 *
 *		What these are is asked where a cycle asks.  Queries are needed only
 *		for the workers of running cycles, which are not to be counted as
 *		others' processes, and for what a setting would be by default.
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include "catalog.h"
#include "compat.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "ownersql.h"
#include "postmaster/bgworker.h"
#include "privilege.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#define PREFIX DMU_EXTENSION_NAME "."
#define WORKER_SETTINGS PREFIX "worker_settings"

/* The processes of the cycles of this database. */
static List *
list_own_workers(void)
{
	MemoryContext context = CurrentMemoryContext;
	DmuOwnerScope scope;
	List	   *pids = NIL;

	dmu_owner_enter(&scope);
	dmu_owner_read_latest(&scope,
						  "SELECT w.pid FROM %s.datamart_users_workers w"
						  " WHERE w.pid IS NOT NULL", 0, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int			pid = DatumGetInt32(dmu_owner_value(SPI_tuptable, i, 1));
		MemoryContext spi_context = MemoryContextSwitchTo(context);

		pids = lappend_int(pids, pid);
		MemoryContextSwitchTo(spi_context);
	}
	dmu_owner_leave(&scope);
	return pids;
}

/*
 * Counts the background workers of the server, but for those.  Not by
 * pg_stat_activity, which shows only some roles what others' processes are.
 */
static int
count_workers(const List *except, int *parallel)
{
	int			n = 0;

	*parallel = 0;
	for (int i = 1; i <= pgstat_fetch_stat_numbackends(); i++)
	{
		const LocalPgBackendStatus *backend = dmu_local_beentry(i);
		const char *type;
		int			pid;

		if (backend == NULL ||
			backend->backendStatus.st_backendType != B_BG_WORKER)
			continue;
		pid = backend->backendStatus.st_procpid;
		if (list_member_int(except, pid))
			continue;
		n++;
		type = GetBackgroundWorkerTypeByPid(pid);
		if (type != NULL && strcmp(type, "parallel worker") == 0)
			(*parallel)++;
	}
	return n;
}

void
dmu_check_worker_slots(DmuDoctor *doctor, DmuFinding *finding)
{
	int			wanted = dmu_settings_worker_target(0);
	int			parallel;
	int			taken = count_workers(list_own_workers(), &parallel);
	int			available = Max(max_worker_processes - taken, 0);

	finding->detail = psprintf(ngettext("%d of %d slots is free, a cycle asks for %d%s",
										"%d of %d slots are free, a cycle asks for %d%s",
										available),
							   available, max_worker_processes, wanted,
							   parallel == 0 ? "" :
							   psprintf(" (parallel queries have %d)", parallel));
	if (available >= wanted)
		return;
	finding->status = available < 1 ? "error" : "warning";
	finding->hint = psprintf("ALTER SYSTEM SET max_worker_processes = %d; -- and restart the server",
							 taken + wanted);
}

char	   *
dmu_check_worker_value(const char *name)
{
	int			guc_level = NewGUCNestLevel();
	char	   *value;
	ListCell   *lc;

	foreach(lc, dmu_settings_worker_settings())
	{
		const DmuWorkerSetting *setting = lfirst(lc);

		if (pg_strcasecmp(setting->name, name) == 0)
			(void) set_config_option(name, setting->value,
									 superuser() ? PGC_SUSET : PGC_USERSET,
									 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
									 false);
	}
	value = pstrdup(GetConfigOption(name, false, false));
	AtEOXact_GUC(false, guc_level);
	return value;
}

static void
add_fault(StringInfo faults, const char *fault)
{
	appendStringInfo(faults, "%s%s", faults->len > 0 ? "; " : "", fault);
}

void
dmu_check_worker_settings(DmuDoctor *doctor, DmuFinding *finding)
{
	StringInfoData faults;
	char	   *value;
	DmuCatalogQuery query;

	/* Whose they are is asked first: to try a value is to run code with it. */
	dmu_privilege_settings();
	dmu_settings_check_worker_settings();

	initStringInfo(&faults);
	value = dmu_check_worker_value("jit");
	if (strcmp(value, "off") != 0)
		add_fault(&faults, "jit is on: compiling costs more than a refresh saves by it");
	value = dmu_check_worker_value("plan_cache_mode");
	if (strcmp(value, "force_generic_plan") != 0)
		add_fault(&faults, psprintf("plan_cache_mode is %s: most of a light refresh may go into planning", value));
	if (dmu_custom_plan_actions > 0 && !dmu_settings_keep_plans())
		add_fault(&faults, "custom_plan_actions has no effect without plan_cache_mode = force_generic_plan among them");
	value = dmu_check_worker_value("max_parallel_workers_per_gather");
	if (strcmp(value, "0") != 0)
		add_fault(&faults, psprintf("max_parallel_workers_per_gather is %s: refreshes take worker slots and processors from each other", value));

	if (faults.len == 0)
	{
		finding->detail = pstrdup(GetConfigOption(WORKER_SETTINGS, false, false));
		return;
	}
	finding->status = "warning";
	finding->detail = faults.data;
	dmu_catalog_begin(&query, doctor->context,
					  "SELECT boot_val, source FROM pg_settings"
					  " WHERE name = '" WORKER_SETTINGS "'", 0, NULL, NULL, NULL);
	finding->hint = psprintf("%s -- it was changed in: %s",
							 dmu_check_set(doctor, WORKER_SETTINGS,
										   quote_literal_cstr(dmu_catalog_text(0, 1))),
							 dmu_catalog_text(0, 2));
	dmu_catalog_end(&query);
}
