/*-------------------------------------------------------------------------
 *
 * worker_settings.c
 *		What the setting worker_settings does: checked in the caller's session,
 *		applied in each worker.
 *
 *		The server's own rules say who may set what to which value.  All that
 *		is added here is what no caller may set for a cycle.  Knows nothing of
 *		background workers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datamart_users.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/guc.h"

#define PREFIX DMU_EXTENSION_NAME "."

/* Names that a cycle depends on, or that would change whose rights it has. */
static const char *const refused_parameters[] = {
	"role", "session_authorization", "client_encoding",
	"transaction_isolation", "transaction_read_only",
	"transaction_deferrable", "transaction_timeout",
	"default_transaction_isolation", "default_transaction_read_only",
	"default_transaction_deferrable"
};

static GucContext
current_role_context(void)
{
	return superuser() ? PGC_SUSET : PGC_USERSET;
}

static void
refuse_parameter(const char *name)
{
	bool		refused = pg_strncasecmp(name, PREFIX, strlen(PREFIX)) == 0;

	for (int i = 0; i < (int) lengthof(refused_parameters) && !refused; i++)
		refused = pg_strcasecmp(name, refused_parameters[i]) == 0;

	if (refused)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("parameter \"%s\" cannot be set for workers", name),
				 errdetail("A worker takes this parameter from its caller or sets it itself."),
				 errhint("Remove it from the setting " PREFIX "worker_settings.")));
}

/* The server's own error says what is wrong, but not where it was written. */
static void
try_parameter(const DmuWorkerSetting *setting)
{
	const char *where = "Change the setting " PREFIX "worker_settings.";
	MemoryContext caller_context = CurrentMemoryContext;

	PG_TRY();
	{
		(void) set_config_option(setting->name, setting->value,
								 current_role_context(), PGC_S_SESSION,
								 GUC_ACTION_SET, false, ERROR, false);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller_context);
		error = CopyErrorData();
		FlushErrorState();
		error->hint = error->hint == NULL ? pstrdup(where) :
			psprintf("%s %s", error->hint, where);
		ReThrowError(error);
	}
	PG_END_TRY();
}

void
dmu_settings_check_worker_settings(void)
{
	ListCell   *lc;

	foreach(lc, dmu_settings_worker_settings())
	{
		const DmuWorkerSetting *setting = lfirst(lc);

		refuse_parameter(setting->name);
		try_parameter(setting);
	}
}

void
dmu_settings_apply_worker_settings(void)
{
	ListCell   *lc;

	foreach(lc, dmu_settings_worker_settings())
	{
		const DmuWorkerSetting *setting = lfirst(lc);

		SetConfigOption(setting->name, setting->value,
						current_role_context(), PGC_S_SESSION);
	}
}

bool
dmu_settings_keep_plans(void)
{
	bool		result = false;
	ListCell   *lc;

	/* Of several the last one holds. */
	foreach(lc, dmu_settings_worker_settings())
	{
		const DmuWorkerSetting *setting = lfirst(lc);

		if (pg_strcasecmp(setting->name, "plan_cache_mode") == 0)
			result = pg_strcasecmp(setting->value, "force_generic_plan") == 0;
	}
	return result;
}
