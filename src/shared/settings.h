/*-------------------------------------------------------------------------
 *
 * settings.h
 *		The datamart_users.* settings.  Those that decide what the caller's own
 *		cycle does, with the caller's own rights, are USERSET.  What decides
 *		over rows of others, or over what others may read, is SUSET.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_SETTINGS_H
#define DMU_SETTINGS_H

#include "nodes/pg_list.h"
#include "parse.h"

#define DMU_NRECENCY 3
#define DMU_NACTIVITY 2

/* Raw values, written by the GUC machinery of each process. */
extern int	dmu_max_users_per_cycle;	/* datamart users */
extern int	dmu_max_workers;	/* 0 = processors minus one */
extern int	dmu_catchup_threshold;	/* datamart users, 0 = off */
extern int	dmu_catchup_max_users;	/* datamart users */
extern int	dmu_cycle_time_limit;	/* milliseconds, 0 = none */
extern int	dmu_user_timeout;	/* milliseconds, 0 = none */
extern int	dmu_custom_plan_actions;	/* facts, 0 = never */
extern char *dmu_facts_table;
extern char *dmu_users_table;
extern char *dmu_procedure;
extern char *dmu_facts_user_column;
extern char *dmu_facts_time_column;
extern char *dmu_users_key_column;
extern char *dmu_users_flag_column;
extern char *dmu_users_since_column;	/* empty = none */
extern int	dmu_retry_delay;	/* seconds */
extern int	dmu_retry_delay_max;	/* seconds */
extern int	dmu_progress_interval;	/* milliseconds, 0 = no NOTICE */
extern int	dmu_log_every_users;	/* datamart users per worker, 0 = none */
extern int	dmu_worker_idle_timeout;	/* milliseconds, 0 = none */
extern int	dmu_worker_memory_limit;	/* kilobytes, 0 = none */
extern int	dmu_history_retention;	/* seconds, 0 = keep all */
extern bool dmu_error_on_failure;	/* an error after a cycle with failures */
extern bool dmu_failure_texts;	/* false: no error texts in our tables */

/* recency_days and activity_thresholds, parsed by their hooks. */
extern int	dmu_recency_days[DMU_NRECENCY]; /* days, ascending */
extern int	dmu_activity_thresholds[DMU_NACTIVITY]; /* facts, descending */

/* Defines the settings and reserves their prefix; for _PG_init only. */
extern void dmu_settings_init(void);

/* Their names with the prefix, constants; NULL after the last one. */
extern const char *dmu_settings_name(int i);

/*
 * The server answers a value that was set before the library was loaded, and
 * turns out to be bad, with a WARNING and the default.  Raises the error that
 * SET would have raised, until the setting is given another value; for a name
 * that there is not, once.
 */
extern void dmu_settings_refuse_rejected(void);

/*
 * worker_settings as a list of DmuWorkerSetting, palloc'd in the current
 * context.  The syntax was checked when the setting was set.
 */
extern List *dmu_settings_worker_settings(void);

/*
 * Raises an error (with the setting's own SQLSTATE, and a hint that names
 * worker_settings) if a name or value in worker_settings is not one that the
 * current role could SET.  For the caller's backend, before any worker.
 */
extern void dmu_settings_check_worker_settings(void);

/*
 * Applies worker_settings over the restored settings of the caller, for the
 * life of this process.  Must run in a transaction.
 */
extern void dmu_settings_apply_worker_settings(void);

/*
 * True if worker_settings has plans that are made once and kept, so that
 * custom_plan_actions means something.
 */
extern bool dmu_settings_keep_plans(void);

/*
 * How many workers a cycle asks for: "requested" if it is positive, else the
 * setting, else the processors this server may run on minus one; at least 1,
 * at most DMU_MAX_WORKERS.
 */
extern int	dmu_settings_worker_target(int requested);

/*
 * How many datamart users a cycle takes at the most: "requested",
 * or for DMU_USERS_BY_SETTINGS catchup_max_users where a backlog of that size has reached
 * catchup_threshold, else max_users_per_cycle.
 */
extern int	dmu_settings_max_users(int requested, int64 backlog);

#endif							/* DMU_SETTINGS_H */
