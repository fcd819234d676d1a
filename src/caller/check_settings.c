/*-------------------------------------------------------------------------
 *
 * check_settings.c
 *		The doctor on settings: do they go together, and will those that are
 *		stored for later sessions be taken?
 *
 *		ALTER ROLE and the like take any name and value where the library is not
 *		loaded, and what is wrong shows in the sessions to come, maybe of
 *		another role.  So all that is stored is looked at, whoever asks.
 *
 *		Values are only tried; nothing is set.
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include "catalog.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "misspelt.h"
#include "parse.h"
#include "privilege.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#define PREFIX DMU_EXTENSION_NAME "."
#define WORKER_SETTINGS PREFIX "worker_settings"

/* A setting that is stored for sessions to come. */
typedef struct StoredSetting
{
	const char *name;
	const char *value;
	const char *where;			/* for whom it is */
	const char *removal;		/* a statement, or a comment */
} StoredSetting;

/*
 * Name, value, for whom, and how to get rid of it.  The names come from others,
 * so each part of them is quoted.
 */
#define STORED_QUERY \
	"WITH written AS (" \
	"  SELECT split_part(c, '=', 1) AS name, substr(c, strpos(c, '=') + 1) AS value," \
	"         CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN format('for role %I in database %I', r.rolname, d.datname)" \
	"              WHEN s.setrole <> 0 THEN format('for role %I', r.rolname)" \
	"              WHEN s.setdatabase <> 0 THEN format('for database %I', d.datname)" \
	"              ELSE 'for all roles' END AS place," \
	"         CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN format('ALTER ROLE %I IN DATABASE %I RESET ', r.rolname, d.datname)" \
	"              WHEN s.setrole <> 0 THEN format('ALTER ROLE %I RESET ', r.rolname)" \
	"              WHEN s.setdatabase <> 0 THEN format('ALTER DATABASE %I RESET ', d.datname)" \
	"              ELSE 'ALTER ROLE ALL RESET ' END AS removal" \
	"    FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c" \
	"    LEFT JOIN pg_roles r ON r.oid = s.setrole" \
	"    LEFT JOIN pg_database d ON d.oid = s.setdatabase" \
	"   WHERE s.setdatabase IN (0, $1)" \
	"  UNION ALL" \
	"  SELECT split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)," \
	"         format('in %s', p.oid::regprocedure)," \
	"         format('ALTER ROUTINE %s RESET ', p.oid::regprocedure)" \
	"    FROM pg_proc p CROSS JOIN unnest(p.proconfig) c)"  \
	" SELECT name, value, place, removal || " \
	"        (SELECT string_agg(quote_ident(part), '.' ORDER BY i)" \
	"           FROM unnest(string_to_array(name, '.')) WITH ORDINALITY AS u (part, i)) || ';'" \
	"  FROM written WHERE starts_with(lower(name), '" PREFIX "')"

/*
 * Who may read it sees the file as it is now, and not as it was loaded.  Of a
 * name that it does not know ALTER SYSTEM takes nothing away.
 */
#define FILES_QUERY \
	"SELECT name, setting, format('in %s, line %s', sourcefile, sourceline)," \
	"       CASE WHEN sourcefile LIKE '%postgresql.auto.conf'" \
	"             AND EXISTS (SELECT FROM pg_settings s WHERE s.name = f.name)" \
	"            THEN format('ALTER SYSTEM RESET %s;', name)" \
	"            ELSE format('-- correct line %s of %s', sourceline, sourcefile) END" \
	"  FROM pg_file_settings f" \
	" WHERE starts_with(lower(name), '" PREFIX "')" \
	"   AND NOT EXISTS (SELECT FROM pg_file_settings later" \
	"                    WHERE lower(later.name) = lower(f.name) AND later.seqno > f.seqno)"

#define MAY_READ_FILES \
	"SELECT has_function_privilege('pg_show_all_file_settings()', 'EXECUTE')"

static List *
add_stored(DmuDoctor *doctor, List *stored, const char *sql, int nparams)
{
	Oid			type = OIDOID;
	Datum		database = ObjectIdGetDatum(MyDatabaseId);
	DmuCatalogQuery query;

	dmu_catalog_begin(&query, doctor->context, sql, nparams, &type, &database,
					  NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		StoredSetting *setting = palloc(sizeof(StoredSetting));

		setting->name = dmu_catalog_text(i, 1);
		setting->value = dmu_catalog_text(i, 2);
		setting->where = dmu_catalog_text(i, 3);
		setting->removal = dmu_catalog_text(i, 4);
		stored = lappend(stored, setting);
	}
	dmu_catalog_end(&query);
	return stored;
}

static List *
list_stored(DmuDoctor *doctor)
{
	List	   *stored = add_stored(doctor, NIL, STORED_QUERY, 1);
	DmuCatalogQuery query;
	bool		may_read;

	dmu_catalog_begin(&query, doctor->context, MAY_READ_FILES, 0, NULL, NULL,
					  NULL);
	may_read = DatumGetBool(dmu_catalog_datum(0, 1));
	dmu_catalog_end(&query);
	if (may_read)
		stored = add_stored(doctor, stored, FILES_QUERY, 0);
	return stored;
}

/* True if the server would take the value; nothing is set. */
static bool
would_take(const char *name, const char *value)
{
	return set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, false, DEBUG5, false) != 0;
}

/* What is wrong within a list for workers, NULL if nothing is. */
static char *
fault_within(const char *value)
{
	List	   *settings;
	ListCell   *lc;

	(void) dmu_parse_parameters(value, &settings);
	foreach(lc, settings)
	{
		const DmuWorkerSetting *setting = lfirst(lc);
		bool		known = GetConfigOption(setting->name, true, false) != NULL;

		/* A library that is not loaded yet may have one with a prefix. */
		if (!known && strchr(setting->name, '.') == NULL)
			return psprintf("names %s, which is no setting", setting->name);
		if (known && !would_take(setting->name, setting->value))
			return psprintf("gives %s the value %s, which that does not take",
							setting->name, quote_literal_cstr(setting->value));
	}
	return NULL;
}

/* What is wrong with it, NULL if nothing is. */
static char *
fault_of(const StoredSetting *setting)
{
	char	   *name = asc_tolower(setting->name, strlen(setting->name));
	char	   *fault;
	const char *nearest;

	if (GetConfigOption(name, true, false) == NULL)
	{
		nearest = dmu_misspelt_nearest(name);
		return psprintf("there is no setting %s, which is set %s%s",
						setting->name, setting->where,
						nearest == NULL ? "" :
						psprintf(" (%s is meant?)", nearest));
	}
	if (!would_take(name, setting->value))
		return psprintf("%s does not take the value %s, which is set %s",
						setting->name, quote_literal_cstr(setting->value),
						setting->where);
	if (strcmp(name, WORKER_SETTINGS) == 0 &&
		(fault = fault_within(setting->value)) != NULL)
		return psprintf("%s, as set %s, %s", setting->name, setting->where, fault);
	return NULL;
}

/*
 * The server writes the name of a setting that it knows as that has it, and
 * then does not find what was written otherwise.
 */
static const char *
removal_needs(const StoredSetting *setting)
{
	const char *name = asc_tolower(setting->name, strlen(setting->name));

	if (strcmp(name, setting->name) == 0 ||
		GetConfigOption(name, true, false) == NULL)
		return "";
	return " -- as the first statement of a session";
}

/* False if nothing is wrong with any of them. */
static bool
find_faults(DmuDoctor *doctor, DmuFinding *finding)
{
	StringInfoData detail;
	StringInfoData hint;
	ListCell   *lc;

	initStringInfo(&detail);
	initStringInfo(&hint);
	foreach(lc, list_stored(doctor))
	{
		const StoredSetting *setting = lfirst(lc);
		const char *fault = fault_of(setting);

		if (fault == NULL)
			continue;
		appendStringInfo(&detail, "%s%s", detail.len > 0 ? "; " : "", fault);
		appendStringInfo(&hint, "%s%s%s", hint.len > 0 ? "\n" : "",
						 setting->removal, removal_needs(setting));
	}
	if (detail.len == 0)
		return false;
	finding->status = "error";
	finding->detail = detail.data;
	finding->hint = hint.data;
	return true;
}

char	   *
dmu_check_set(const DmuDoctor *doctor, const char *name, const char *value)
{
	return psprintf("SET %s = %s; -- in this session; for later ones: ALTER ROLE %s IN DATABASE %s SET %s = %s;",
					name, value, quote_identifier(doctor->role_name),
					quote_identifier(get_database_name(MyDatabaseId)),
					name, value);
}

void
dmu_check_settings(DmuDoctor *doctor, DmuFinding *finding)
{
	const char *read_only = GetConfigOption("default_transaction_read_only",
											false, false);

	if (find_faults(doctor, finding))
		return;
	dmu_settings_refuse_rejected();
	dmu_privilege_settings();

	finding->status = "warning";
	if (dmu_catchup_threshold > 0 && dmu_catchup_max_users == 0)
	{
		finding->detail = "catchup_threshold is set, but catchup_max_users is 0: there is no catching up";
		finding->hint = dmu_check_set(doctor, PREFIX "catchup_max_users", "5000");
	}
	else if (dmu_catchup_threshold == 0 && dmu_catchup_max_users > 0)
	{
		finding->detail = "catchup_max_users is set, but catchup_threshold is 0: there is no catching up";
		finding->hint = dmu_check_set(doctor, PREFIX "catchup_threshold", "20000");
	}
	else if (dmu_retry_delay == 0)
	{
		finding->detail = "retry_delay is 0: a datamart user that always fails is taken by every cycle";
		finding->hint = dmu_check_set(doctor, PREFIX "retry_delay", "'1min'");
	}
	else if (strcmp(read_only, "on") == 0)
	{
		finding->detail = "default_transaction_read_only is on: no cycle starts in this session";
		finding->hint = dmu_check_set(doctor, "default_transaction_read_only", "off");
	}
	else
	{
		finding->status = "ok";
		finding->detail = "they go together";
	}
}
