/*-------------------------------------------------------------------------
 *
 * settings.c
 *		The datamart_users.* settings: definition, range, parsing.
 *
 *		They are the environment variables of a script, made to obey
 *		SET, ALTER ROLE and postgresql.conf.  A hook sees a value at times when
 *		there is no transaction, so hooks check the form of a value only:
 *		whether a table, a procedure or a parameter exists is found out when a
 *		cycle starts.  This file knows no catalog, no SPI and no shared memory;
 *		what travels to the workers is the server's own copy of all settings.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <sched.h>
#include <unistd.h>

#include "compat.h"
#include "datamart_users.h"
#include "misspelt.h"
#include "objective.h"
#include "parse.h"
#include "request.h"
#include "settings.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define PREFIX DMU_EXTENSION_NAME "."

/* A thousand years: far enough, and CURRENT_DATE minus it is still a date. */
#define MAX_RECENCY_DAYS 365000

int			dmu_max_users_per_cycle = 1000;
int			dmu_max_workers = 0;
int			dmu_catchup_threshold = 0;
int			dmu_catchup_max_users = 0;
int			dmu_cycle_time_limit = 0;
int			dmu_user_timeout = 0;
int			dmu_custom_plan_actions = 20000;
char	   *dmu_facts_table;
char	   *dmu_users_table;
char	   *dmu_procedure;
char	   *dmu_facts_user_column;
char	   *dmu_facts_time_column;
char	   *dmu_users_key_column;
char	   *dmu_users_flag_column;
char	   *dmu_users_since_column;
int			dmu_retry_delay = 60;
int			dmu_retry_delay_max = 24 * 60 * 60;
int			dmu_progress_interval = 5000;
int			dmu_log_every_users = 100;
int			dmu_history_retention = 30 * 24 * 60 * 60;
int			dmu_worker_idle_timeout = 60 * 1000;
int			dmu_worker_memory_limit = 512 * 1024;
bool		dmu_error_on_failure = false;
bool		dmu_failure_texts = true;
int			dmu_recency_days[DMU_NRECENCY] = {7, 30, 90};
int			dmu_activity_thresholds[DMU_NACTIVITY] = {100, 10};

/* Only their parsed forms are of use to others. */
static char *recency_days_string;
static char *activity_thresholds_string;
static char *worker_settings_string;
static char *freshness_objective_string;

typedef struct IntSetting
{
	const char *name;
	const char *short_desc;
	const char *long_desc;
	int		   *variable;
	int			min;
	int			max;
	GucContext	context;
	int			flags;
} IntSetting;

/*
 * The variables' initial values are the defaults.  What decides over rows of
 * others is for superusers and whom they grant it.
 */
static const IntSetting int_settings[] = {
	{PREFIX "max_users_per_cycle",
		"Sets the maximum number of datamart users that one cycle refreshes.",
		"The others stay modified and wait for the next cycle.",
	&dmu_max_users_per_cycle, 1, DMU_MAX_USERS, PGC_USERSET, 0},
	{PREFIX "max_workers",
		"Sets the maximum number of processes that work on one cycle.",
		"0 means the processors that the server may use minus one.",
	&dmu_max_workers, 0, DMU_MAX_WORKERS, PGC_USERSET, 0},
	{PREFIX "catchup_threshold",
		"Sets the backlog from which on a cycle takes catchup_max_users datamart users.",
		"It applies where the caller gives no number of datamart users; 0 turns it off.",
	&dmu_catchup_threshold, 0, INT_MAX, PGC_USERSET, 0},
	{PREFIX "catchup_max_users",
		"Sets the maximum number of datamart users of a cycle that catches up.",
		"0 turns catching up off.",
	&dmu_catchup_max_users, 0, DMU_MAX_USERS, PGC_USERSET, 0},
	{PREFIX "cycle_time_limit",
		"Sets the time after which a cycle claims no further datamart users.",
		"Those that are being refreshed are finished; 0 means no limit.",
	&dmu_cycle_time_limit, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS},
	{PREFIX "user_timeout",
		"Sets the maximum time that the refresh of one datamart user may take.",
		"A datamart user that takes longer fails alone; 0 means no limit.",
	&dmu_user_timeout, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS},
	{PREFIX "custom_plan_actions",
		"Sets the number of actions above which a worker plans for the datamart user alone.",
		"It has an effect where worker_settings says plan_cache_mode = force_generic_plan; 0 means never.",
	&dmu_custom_plan_actions, 0, INT_MAX, PGC_USERSET, 0},
	{PREFIX "retry_delay",
		"Sets the time that a datamart user is left out after its first failure.",
		"The time doubles with each further failure in a row.",
	&dmu_retry_delay, 0, INT_MAX, PGC_USERSET, GUC_UNIT_S},
	{PREFIX "retry_delay_max",
		"Sets the longest time that a datamart user is left out after a failure.",
		NULL,
	&dmu_retry_delay_max, 0, INT_MAX, PGC_USERSET, GUC_UNIT_S},
	{PREFIX "progress_interval",
		"Sets the time between two progress notices to the waiting caller.",
		"0 means no notices.",
	&dmu_progress_interval, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS},
	{PREFIX "log_every_users",
		"Sets after how many datamart users each worker logs its progress.",
		"0 means never.",
	&dmu_log_every_users, 0, INT_MAX, PGC_USERSET, 0},
	{PREFIX "history_retention",
		"Sets the age from which on finished cycles leave the history.",
		"0 keeps all of them.",
	&dmu_history_retention, 0, INT_MAX, PGC_SUSET, GUC_UNIT_S},
	{PREFIX "worker_idle_timeout",
		"Sets how long a worker of a service may have nothing to do before it gives back its process.",
		"One of them always stays; 0 means that all do.",
	&dmu_worker_idle_timeout, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS},
	{PREFIX "worker_memory_limit",
		"Sets the memory beyond which a service puts another process in the place of a worker.",
		"Between two datamart users, one worker at a time; 0 means no limit.",
	&dmu_worker_memory_limit, 0, MAX_KILOBYTES, PGC_USERSET, GUC_UNIT_KB},
};

static const char *const string_settings[] = {
	PREFIX "facts_table",
	PREFIX "users_table",
	PREFIX "procedure",
	PREFIX "facts_user_column",
	PREFIX "facts_time_column",
	PREFIX "users_key_column",
	PREFIX "users_flag_column",
	PREFIX "users_since_column",
	PREFIX "worker_settings",
	PREFIX "recency_days",
	PREFIX "activity_thresholds",
	PREFIX "freshness_objective",
};

#define ERROR_ON_FAILURE PREFIX "error_on_failure"
#define FAILURE_TEXTS PREFIX "failure_texts"

static const char *const bool_settings[] = {ERROR_ON_FAILURE, FAILURE_TEXTS};

#define NSETTINGS \
	((int) (lengthof(int_settings) + lengthof(string_settings) + lengthof(bool_settings)))

/* See dmu_settings_refuse_rejected(). */
typedef struct Placeholder
{
	const char *name;
	const char *value;
} Placeholder;

static Placeholder placeholders[NSETTINGS];
static int	nplaceholders = 0;

static bool
check_relation_name(char **newval, void **extra, GucSource source)
{
	char	   *schema;
	char	   *name;

	if (dmu_parse_name(*newval, &schema, &name))
		return true;

	GUC_check_errdetail("It must be the name of one table or view, with or without a schema.");
	GUC_check_errhint("Names with other characters than lower-case letters, digits and underscores need double quotes.");
	return false;
}

static bool
check_column_name(char **newval, void **extra, GucSource source)
{
	char	   *name;

	if (dmu_parse_column(*newval, &name))
		return true;

	GUC_check_errdetail("It must be the name of one column.");
	GUC_check_errhint("Names with other characters than lower-case letters, digits and underscores need double quotes.");
	return false;
}

/* A column that there need not be. */
static bool
check_optional_column_name(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0')
		return true;
	return check_column_name(newval, extra, source);
}

static bool
check_procedure(char **newval, void **extra, GucSource source)
{
	char	   *schema;
	char	   *name;
	List	   *argtypes;

	if (dmu_parse_procedure(*newval, &schema, &name, &argtypes))
		return true;

	GUC_check_errdetail("It must be the name of one procedure, with or without a schema.");
	GUC_check_errhint("The types of all its arguments can follow in parentheses, as in \"dwh.update_datamart_user(integer)\".");
	return false;
}

static bool
check_worker_settings(char **newval, void **extra, GucSource source)
{
	List	   *settings;

	if (dmu_parse_parameters(*newval, &settings))
		return true;

	GUC_check_errdetail("It must be a list of \"name = value\", separated by commas.");
	GUC_check_errhint("Values with commas, quotes or equals signs need single quotes.");
	return false;
}

static bool
keep_for_assign(const int *numbers, size_t size, void **extra)
{
	*extra = dmu_guc_malloc(size);
	if (*extra == NULL)
		return false;
	memcpy(*extra, numbers, size);
	return true;
}

static bool
check_recency_days(char **newval, void **extra, GucSource source)
{
	int			days[DMU_NRECENCY];

	if (!dmu_parse_numbers(*newval, DMU_NRECENCY, 1, MAX_RECENCY_DAYS, 1, days))
	{
		GUC_check_errdetail("It must be %d numbers of days, ascending, each from 1 to %d.",
							DMU_NRECENCY, MAX_RECENCY_DAYS);
		GUC_check_errhint("For example \"7, 30, 90\".");
		return false;
	}

	return keep_for_assign(days, sizeof(days), extra);
}

static void
assign_recency_days(const char *newval, void *extra)
{
	memcpy(dmu_recency_days, extra, sizeof(dmu_recency_days));
}

static bool
check_activity_thresholds(char **newval, void **extra, GucSource source)
{
	int			thresholds[DMU_NACTIVITY];

	if (!dmu_parse_numbers(*newval, DMU_NACTIVITY, 0, INT_MAX, -1, thresholds))
	{
		GUC_check_errdetail("It must be %d numbers of facts, descending, none negative.",
							DMU_NACTIVITY);
		GUC_check_errhint("For example \"100, 10\".");
		return false;
	}

	return keep_for_assign(thresholds, sizeof(thresholds), extra);
}

static void
assign_activity_thresholds(const char *newval, void *extra)
{
	memcpy(dmu_activity_thresholds, extra, sizeof(dmu_activity_thresholds));
}

static bool
check_freshness_objective(char **newval, void **extra, GucSource source)
{
	int			objective[DMU_NPRIORITIES];

	if (!dmu_objective_parse(*newval, objective))
	{
		GUC_check_errdetail("It must be a list of \"priority = time\", separated by commas, each priority once and each time at least a second.");
		GUC_check_errhint("For example \"critical = 5min, high = 1h\"; the priorities are critical, high, medium, historical, low and lowest.");
		return false;
	}

	return keep_for_assign(objective, sizeof(objective), extra);
}

static void
assign_freshness_objective(const char *newval, void *extra)
{
	memcpy(dmu_freshness_objective, extra, sizeof(dmu_freshness_objective));
}

static void
define_warehouse_settings(void)
{
	DefineCustomStringVariable(PREFIX "facts_table",
							   "Sets the table or view of the facts.",
							   "Its columns are set by facts_user_column and facts_time_column.",
							   &dmu_facts_table, "dwh.facts",
							   PGC_USERSET, 0,
							   check_relation_name, NULL, NULL);
	DefineCustomStringVariable(PREFIX "users_table",
							   "Sets the table or view of the datamart users.",
							   "Its columns are set by users_key_column and users_flag_column.",
							   &dmu_users_table, "dwh.dimension_users",
							   PGC_USERSET, 0,
							   check_relation_name, NULL, NULL);
	DefineCustomStringVariable(PREFIX "procedure",
							   "Sets the procedure that refreshes one datamart user.",
							   "Its first argument is the key of the datamart user.",
							   &dmu_procedure, "dwh.update_datamart_user",
							   PGC_USERSET, 0,
							   check_procedure, NULL, NULL);
	DefineCustomStringVariable(PREFIX "worker_settings",
							   "Sets the parameters that workers run with, over those of the caller.",
							   "It is a list of \"name = value\", separated by commas.",
							   &worker_settings_string,
							   "jit = off, plan_cache_mode = force_generic_plan, "
							   "max_parallel_workers_per_gather = 0, synchronous_commit = off",
							   PGC_USERSET, 0,
							   check_worker_settings, NULL, NULL);
}

static void
define_column_settings(void)
{
	DefineCustomStringVariable(PREFIX "facts_user_column",
							   "Sets the column of the facts that tells whose they are.",
							   NULL,
							   &dmu_facts_user_column, "action_dimension_id_user",
							   PGC_USERSET, 0,
							   check_column_name, NULL, NULL);
	DefineCustomStringVariable(PREFIX "facts_time_column",
							   "Sets the column of the facts that tells when they were.",
							   NULL,
							   &dmu_facts_time_column, "action_at",
							   PGC_USERSET, 0,
							   check_column_name, NULL, NULL);
	DefineCustomStringVariable(PREFIX "users_key_column",
							   "Sets the column that identifies a datamart user in the users table.",
							   NULL,
							   &dmu_users_key_column, "dimension_user_id",
							   PGC_USERSET, 0,
							   check_column_name, NULL, NULL);
	DefineCustomStringVariable(PREFIX "users_flag_column",
							   "Sets the column of the users table that flags whom to refresh.",
							   "The ETL sets it, and the refresh clears it.",
							   &dmu_users_flag_column, "modified",
							   PGC_USERSET, 0,
							   check_column_name, NULL, NULL);
	DefineCustomStringVariable(PREFIX "users_since_column",
							   "Sets the column of the users table that tells since when a datamart user is flagged.",
							   "The ETL sets it with the flag; empty means that cycles remember when they first saw the flag.",
							   &dmu_users_since_column, "",
							   PGC_USERSET, 0,
							   check_optional_column_name, NULL, NULL);
}

static void
define_order_settings(void)
{
	DefineCustomStringVariable(PREFIX "recency_days",
							   "Sets the ages in days that divide last actions into recency classes.",
							   "They are the upper ends of the priorities critical, high and medium.",
							   &recency_days_string, "7, 30, 90",
							   PGC_USERSET, GUC_LIST_INPUT,
							   check_recency_days, assign_recency_days, NULL);
	DefineCustomStringVariable(PREFIX "activity_thresholds",
							   "Sets the numbers of facts that divide datamart users into activity classes.",
							   "Those with more facts than the first number are the most active.",
							   &activity_thresholds_string, "100, 10",
							   PGC_USERSET, GUC_LIST_INPUT,
							   check_activity_thresholds,
							   assign_activity_thresholds, NULL);
	DefineCustomStringVariable(PREFIX "freshness_objective",
							   "Sets how long datamart users of a priority may wait.",
							   "It is a list of \"priority = time\"; it is only compared with.",
							   &freshness_objective_string, "",
							   PGC_USERSET, GUC_LIST_INPUT,
							   check_freshness_objective,
							   assign_freshness_objective, NULL);
}

static void
define_bool_settings(void)
{
	DefineCustomBoolVariable(ERROR_ON_FAILURE,
							 "Sets whether a cycle in which datamart users failed ends in an error.",
							 "It is raised after the cycle, so everything processed stays.",
							 &dmu_error_on_failure, false,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(FAILURE_TEXTS,
							 "Sets whether the extension's tables keep the texts of errors.",
							 "Such texts can quote rows of the warehouse, and pg_monitor reads them.",
							 &dmu_failure_texts, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
}

const char *
dmu_settings_name(int i)
{
	if (i < (int) lengthof(int_settings))
		return int_settings[i].name;
	i -= lengthof(int_settings);
	if (i < (int) lengthof(string_settings))
		return string_settings[i];
	i -= lengthof(string_settings);
	return i < (int) lengthof(bool_settings) ? bool_settings[i] : NULL;
}

/* A value that was there before the library. */
static void
save_placeholder(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	/* One that was taken out of postgresql.conf leaves an empty shell. */
	if (value == NULL || dmu_find_setting(name)->source == PGC_S_DEFAULT)
		return;
	Assert(nplaceholders < (int) lengthof(placeholders));
	placeholders[nplaceholders].name = name;
	placeholders[nplaceholders++].value = MemoryContextStrdup(TopMemoryContext,
															  value);
}

static bool
is_default(const Placeholder *placeholder)
{
	return dmu_find_setting(placeholder->name)->source == PGC_S_DEFAULT;
}

void
dmu_settings_refuse_rejected(void)
{
	dmu_misspelt_refuse();
	for (int i = 0; i < nplaceholders; i++)
	{
		if (is_default(&placeholders[i]))
			(void) set_config_option(placeholders[i].name,
									 placeholders[i].value,
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SET, false, ERROR, false);
	}
}

void
dmu_settings_init(void)
{
	int			nrejected = 0;

	for (int i = 0; i < NSETTINGS; i++)
		save_placeholder(dmu_settings_name(i));

	for (int i = 0; i < (int) lengthof(int_settings); i++)
	{
		const IntSetting *s = &int_settings[i];

		DefineCustomIntVariable(s->name, s->short_desc, s->long_desc,
								s->variable, *s->variable, s->min, s->max,
								s->context, s->flags, NULL, NULL, NULL);
	}
	define_warehouse_settings();
	define_column_settings();
	define_order_settings();
	define_bool_settings();
	dmu_misspelt_remember();
	MarkGUCPrefixReserved(DMU_EXTENSION_NAME);

	/* Those that were taken over are of no interest any more. */
	for (int i = 0; i < nplaceholders; i++)
	{
		if (is_default(&placeholders[i]))
			placeholders[nrejected++] = placeholders[i];
	}
	nplaceholders = nrejected;
}

List	   *
dmu_settings_worker_settings(void)
{
	List	   *settings;

	(void) dmu_parse_parameters(worker_settings_string, &settings);
	return settings;
}

/* The affinity mask, because a container or taskset may leave us a part only. */
static int
usable_processors(void)
{
	long		online;

#ifdef CPU_ALLOC
	/* The kernel refuses sets that are smaller than its own. */
	for (int size = CPU_SETSIZE; size <= CPU_SETSIZE * 1024; size *= 2)
	{
		cpu_set_t  *set = CPU_ALLOC(size);
		bool		ok;
		int			usable;

		if (set == NULL)
			break;
		ok = sched_getaffinity(0, CPU_ALLOC_SIZE(size), set) == 0;
		usable = ok ? CPU_COUNT_S(CPU_ALLOC_SIZE(size), set) : 0;
		CPU_FREE(set);
		if (usable > 0)
			return usable;
	}
#endif

	online = sysconf(_SC_NPROCESSORS_ONLN);
	return online > 0 ? (int) online : 1;
}

int
dmu_settings_worker_target(int requested)
{
	int			target = requested > 0 ? requested : dmu_max_workers;

	if (target <= 0)
		target = usable_processors() - 1;
	return Max(1, Min(target, DMU_MAX_WORKERS));
}

int
dmu_settings_max_users(int requested, int64 backlog)
{
	if (requested != DMU_USERS_BY_SETTINGS)
		return requested;
	if (dmu_catchup_threshold > 0 && dmu_catchup_max_users > 0 &&
		backlog >= dmu_catchup_threshold)
		return dmu_catchup_max_users;
	return dmu_max_users_per_cycle;
}
