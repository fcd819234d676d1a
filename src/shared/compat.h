/*-------------------------------------------------------------------------
 *
 * compat.h
 *		Every difference between the server versions that we build for
 *		(15 and later).  No other file looks at PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_COMPAT_H
#define DMU_COMPAT_H

#include "postgres.h"

#include "fmgr.h"
#include "optimizer/pathnode.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/guc_tables.h"
#include "utils/relcache.h"

#if PG_VERSION_NUM < 150000
#error "datamart_users needs PostgreSQL 15 or later"
#endif

/* 18 shows name and version of loaded modules in pg_get_loaded_modules(). */
#if PG_VERSION_NUM >= 180000
#define DMU_MODULE_MAGIC(name_, version_) \
	PG_MODULE_MAGIC_EXT(.name = (name_), .version = (version_))
#else
#define DMU_MODULE_MAGIC(name_, version_) PG_MODULE_MAGIC
#endif

/*
 * 17 brought transaction_timeout, which is FATAL where it strikes: user_timeout
 * is what bounds a refresh, and it costs one datamart user only.
 */
#if PG_VERSION_NUM >= 170000
#define DMU_TRANSACTION_TIMEOUT "transaction_timeout"
#else
#define DMU_TRANSACTION_TIMEOUT NULL
#endif

/*
 * 17 can connect a background worker as a role that has lost its LOGIN since
 * the caller logged in.
 */
#ifdef BGWORKER_BYPASS_ROLELOGINCHECK
#define DMU_CONNECTION_FLAGS BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define DMU_CONNECTION_FLAGS 0
#endif

/* A scan of a whole foreign table; 17 and 18 added arguments. */
static inline ForeignPath *
dmu_create_foreignscan_path(PlannerInfo *root, RelOptInfo *rel,
							Cost startup_cost, Cost total_cost)
{
#if PG_VERSION_NUM >= 180000
	return create_foreignscan_path(root, rel, NULL, rel->rows, 0,
								   startup_cost, total_cost, NIL,
								   rel->lateral_relids, NULL, NIL, NIL);
#elif PG_VERSION_NUM >= 170000
	return create_foreignscan_path(root, rel, NULL, rel->rows,
								   startup_cost, total_cost, NIL,
								   rel->lateral_relids, NULL, NIL, NIL);
#else
	return create_foreignscan_path(root, rel, NULL, rel->rows,
								   startup_cost, total_cost, NIL,
								   rel->lateral_relids, NULL, NIL);
#endif
}

/* A scan of a whole table; 19 added flags. */
#if PG_VERSION_NUM >= 190000
#define dmu_table_beginscan(relation, snapshot) \
	table_beginscan((relation), (snapshot), 0, NULL, 0)
#else
#define dmu_table_beginscan(relation, snapshot) \
	table_beginscan((relation), (snapshot), 0, NULL)
#endif

/* The index of a primary key that is not deferrable; 18 added an argument. */
#if PG_VERSION_NUM >= 180000
#define dmu_primary_key_index(relation) \
	RelationGetPrimaryKeyIndex((relation), false)
#else
#define dmu_primary_key_index(relation) RelationGetPrimaryKeyIndex(relation)
#endif

/* The "extra" of a setting is malloc'd before 16, and guc_malloc'd since. */
#if PG_VERSION_NUM >= 160000
#define dmu_guc_malloc(size) guc_malloc(LOG, (size))
#else
#define dmu_guc_malloc(size) malloc(size)
#endif

/* 17 merged this function with the one that takes a stronger lock, too. */
#if PG_VERSION_NUM >= 170000
#define dmu_lock_held_by_me(tag, mode) LockHeldByMe((tag), (mode), false)
#else
#define dmu_lock_held_by_me(tag, mode) LockHeldByMe((tag), (mode))
#endif

/* 19 also tells why it found none. */
#if PG_VERSION_NUM >= 190000
#define dmu_func_get_detail(names, nargs, argtypes, variadic, defaults, out, \
							oid, rettype, retset, nvargs, vatype, true_types) \
	func_get_detail((names), NIL, NIL, (nargs), (argtypes), (variadic), \
					(defaults), (out), &(int) {0}, (oid), (rettype), \
					(retset), (nvargs), (vatype), (true_types), NULL)
#else
#define dmu_func_get_detail(names, nargs, argtypes, variadic, defaults, out, \
							oid, rettype, retset, nvargs, vatype, true_types) \
	func_get_detail((names), NIL, NIL, (nargs), (argtypes), (variadic), \
					(defaults), (out), (oid), (rettype), \
					(retset), (nvargs), (vatype), (true_types), NULL)
#endif

/* 16 gave this function its name; the index begins with 1. */
#if PG_VERSION_NUM >= 160000
#define dmu_local_beentry(index) pgstat_get_local_beentry_by_index(index)
#else
#define dmu_local_beentry(index) pgstat_fetch_stat_local_beentry(index)
#endif

/* 16 put one function in the place of one per catalog. */
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#define dmu_database_aclcheck(database, role, mode) \
	object_aclcheck(DatabaseRelationId, (database), (role), (mode))
#define dmu_schema_aclcheck(schema, role, mode) \
	object_aclcheck(NamespaceRelationId, (schema), (role), (mode))
#define dmu_procedure_aclcheck(procedure, role, mode) \
	object_aclcheck(ProcedureRelationId, (procedure), (role), (mode))
#else
#define dmu_database_aclcheck(database, role, mode) \
	pg_database_aclcheck((database), (role), (mode))
#define dmu_schema_aclcheck(schema, role, mode) \
	pg_namespace_aclcheck((schema), (role), (mode))
#define dmu_procedure_aclcheck(procedure, role, mode) \
	pg_proc_aclcheck((procedure), (role), (mode))
#endif

/* 16 renamed the function that takes a position, from 1, in the local copy. */
#if PG_VERSION_NUM >= 160000
#define dmu_backend_status(position) \
	(&pgstat_get_local_beentry_by_index(position)->backendStatus)
#else
#define dmu_backend_status(position) \
	(&pgstat_fetch_stat_local_beentry(position)->backendStatus)
#endif

/* Since 16 a membership can come without the right to SET ROLE. */
#if PG_VERSION_NUM >= 160000
#define dmu_can_become(member, role) member_can_set_role((member), (role))
#else
#define dmu_can_become(member, role) is_member_of_role((member), (role))
#endif

/* Since 16 the server's settings are no array any more. */
static inline struct config_generic **
dmu_all_settings(int *nsettings)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(nsettings);
#else
	*nsettings = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

/* 16 exported the look-up; before, the array is the only way. */
static inline struct config_generic *
dmu_find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, false, ERROR);
#else
	int			nsettings;
	struct config_generic **settings = dmu_all_settings(&nsettings);

	/* The caller may have written it in capitals. */
	for (int i = 0; i < nsettings; i++)
	{
		if (pg_strcasecmp(settings[i]->name, name) == 0)
			return settings[i];
	}
	elog(ERROR, "unrecognized setting \"%s\"", name);
	return NULL;
#endif
}

/* Since 18 a grouped query refers to what it groups by in an entry of its own. */
#if PG_VERSION_NUM >= 180000
#define dmu_group_expression(entry, column) \
	((entry)->rtekind == RTE_GROUP ? \
	 (Node *) list_nth((entry)->groupexprs, (column) - 1) : NULL)
#else
#define dmu_group_expression(entry, column) NULL
#endif

/* 19 hands the state of EXPLAIN to the planner. */
#if PG_VERSION_NUM >= 190000
#define dmu_pg_plan_query(query, sql, options, params) \
	pg_plan_query((query), (sql), (options), (params), NULL)
#else
#define dmu_pg_plan_query(query, sql, options, params) \
	pg_plan_query((query), (sql), (options), (params))
#endif

/* 18 took away the argument that told a single execution. */
#if PG_VERSION_NUM >= 180000
#define dmu_executor_run(desc) ExecutorRun((desc), ForwardScanDirection, 0)
#else
#define dmu_executor_run(desc) ExecutorRun((desc), ForwardScanDirection, 0, true)
#endif

/* 18 turned the flag round, and 19 put the type in its place. */
#if PG_VERSION_NUM >= 190000
#define dmu_is_background_worker(proc) ((proc)->backendType == B_BG_WORKER)
#elif PG_VERSION_NUM >= 180000
#define dmu_is_background_worker(proc) (!(proc)->isRegularBackend)
#else
#define dmu_is_background_worker(proc) ((proc)->isBackgroundWorker)
#endif

/*
 * From libpq/libpq.h, which includes the headers of the GSSAPI library; those
 * do not come with the server's development package.
 */
extern bool pq_check_connection(void);

#endif							/* DMU_COMPAT_H */
