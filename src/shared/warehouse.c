/*-------------------------------------------------------------------------
 *
 * warehouse.c
 *		The caller's tables and procedure: found by name, and judged.
 *
 *		A cycle runs in other processes, so whatever is wrong with a name, a
 *		column or a privilege is better said in the caller's session before
 *		the first worker starts, and with the way out.  This is a matter of
 *		catalog look-ups as the caller's role: the file knows no SPI, no
 *		shared memory and nothing of cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "datamart_users.h"
#include "nodes/makefuncs.h"
#include "parse.h"
#include "privilege.h"
#include "procedure.h"
#include "rewrite/rewriteHandler.h"
#include "settings.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "warehouse.h"

/* What a relation setting may name. */
typedef struct RelationSetting
{
	const char *name;
	char	  **value;
	const char *kinds;			/* relkinds */
	const char *kinds_text;
} RelationSetting;

static const char facts_kinds[] = {
	RELKIND_RELATION, RELKIND_PARTITIONED_TABLE, RELKIND_VIEW,
	RELKIND_MATVIEW, RELKIND_FOREIGN_TABLE, '\0'
};

static const char users_kinds[] = {
	RELKIND_RELATION, RELKIND_PARTITIONED_TABLE, RELKIND_VIEW,
	RELKIND_FOREIGN_TABLE, '\0'
};

static const RelationSetting facts_setting = {
	DMU_EXTENSION_NAME ".facts_table", &dmu_facts_table, facts_kinds,
	"a table, a view, a materialized view or a foreign table"
};

static const RelationSetting users_setting = {
	DMU_EXTENSION_NAME ".users_table", &dmu_users_table, users_kinds,
	"a table, a view or a foreign table"
};

static char *
qualified_relation(Oid relation)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)),
									  get_rel_name(relation));
}

static char *
qualified_procedure(Oid procedure)
{
	return quote_qualified_identifier(get_namespace_name(get_func_namespace(procedure)),
									  get_func_name(procedure));
}

/* As messages of the server have it: not quoted inside. */
static const char *
display_name(const char *schema, const char *name)
{
	return schema == NULL ? name : psprintf("%s.%s", schema, name);
}

/* As the parser would find it, but for the right to look into its schema. */
static Oid
find_relation(const char *schema, const char *name, bool need_usage)
{
	Oid			schema_oid = InvalidOid;

	if (schema != NULL)
		schema_oid = need_usage ? dmu_privilege_named_schema(schema) :
			get_namespace_oid(schema, true);
	if (OidIsValid(schema_oid) && !need_usage)
		return get_relname_relid(name, schema_oid);
	return RangeVarGetRelid(makeRangeVar(unconstify(char *, schema),
										 unconstify(char *, name), -1),
							NoLock, true);
}

static Oid
resolve_relation(const RelationSetting *setting, bool need_usage)
{
	char	   *schema;
	char	   *name;
	Oid			relation;
	char		kind;

	if (!dmu_parse_name(*setting->value, &schema, &name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name in setting %s", setting->name)));

	relation = find_relation(schema, name, need_usage);
	kind = OidIsValid(relation) ? get_rel_relkind(relation) : '\0';
	if (kind == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" does not exist", display_name(schema, name)),
				 errhint("Set %s to %s of the warehouse.",
						 setting->name, setting->kinds_text)));

	if (strchr(setting->kinds, kind) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation \"%s\" cannot be the %s of a cycle",
						display_name(schema, name), setting == &facts_setting ?
						"facts table" : "users table"),
				 errdetail("It must be %s.", setting->kinds_text),
				 errhint("Change the setting %s.", setting->name)));

	if (get_rel_persistence(relation) == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relation \"%s\" is temporary",
						display_name(schema, name)),
				 errdetail("Other processes, such as the workers of a cycle, cannot see it."),
				 errhint("Change the setting %s.", setting->name)));

	return relation;
}

static Oid
require_column(Oid relation, const RelationSetting *setting, DmuColumnUse use,
			   const DmuColumn *column)
{
	return dmu_column_require(use, column, relation, setting->name,
							  *setting->value);
}

/* Tables can be updated, so for them no lock need be waited for. */
static void
require_updatable(Oid users, const DmuColumn *flag)
{
	char		kind = get_rel_relkind(users);
	int			column = get_attnum(users, flag->name);
	Bitmapset  *columns;
	int			events;

	if (kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE)
		return;

	columns = bms_make_singleton(column - FirstLowInvalidHeapAttributeNumber);
	events = relation_is_updatable(users, NIL, true, columns);
	if ((events & (1 << CMD_UPDATE)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of relation \"%s\" cannot be updated",
						flag->name, *users_setting.value),
				 errhint("Set %s to a relation that can be updated, or give the view an INSTEAD OF UPDATE trigger.",
						 users_setting.name)));
}

void
dmu_warehouse_examine_facts(DmuWarehouse *warehouse, bool need_usage)
{
	Oid			facts;

	dmu_column_read(DMU_FACTS_USER, &warehouse->facts_user);
	dmu_column_read(DMU_FACTS_TIME, &warehouse->facts_time);
	facts = resolve_relation(&facts_setting, need_usage);
	(void) require_column(facts, &facts_setting, DMU_FACTS_USER,
						  &warehouse->facts_user);
	warehouse->facts_time_type =
		require_column(facts, &facts_setting, DMU_FACTS_TIME,
					   &warehouse->facts_time);
	warehouse->facts_name = qualified_relation(facts);
	warehouse->facts = facts;
}

void
dmu_warehouse_examine_users(DmuWarehouse *warehouse, bool need_usage)
{
	Oid			users;

	dmu_column_read(DMU_USERS_KEY, &warehouse->users_key);
	dmu_column_read(DMU_USERS_FLAG, &warehouse->users_flag);
	dmu_column_read(DMU_USERS_SINCE, &warehouse->users_since);
	users = resolve_relation(&users_setting, need_usage);
	warehouse->users_key_type = require_column(users, &users_setting,
											   DMU_USERS_KEY,
											   &warehouse->users_key);
	(void) require_column(users, &users_setting, DMU_USERS_FLAG,
						  &warehouse->users_flag);
	if (warehouse->users_since.name != NULL)
		(void) require_column(users, &users_setting, DMU_USERS_SINCE,
							  &warehouse->users_since);
	require_updatable(users, &warehouse->users_flag);
	warehouse->users_name = qualified_relation(users);
	warehouse->users = users;
}

void
dmu_warehouse_examine_procedure(DmuWarehouse *warehouse)
{
	Oid			procedure = dmu_procedure_resolve(warehouse->users_key_type,
												  warehouse->users_key.quoted,
												  &warehouse->procedure_argtype);

	warehouse->procedure_name = qualified_procedure(procedure);
	warehouse->procedure = procedure;
}

/* First of all: settings that do not count must not lead to any relation. */
static void
check_settings(void)
{
	dmu_privilege_settings();
	dmu_settings_refuse_rejected();
}

DmuWarehouse *
dmu_warehouse_resolve(void)
{
	DmuWarehouse *warehouse = palloc0(sizeof(DmuWarehouse));

	check_settings();
	dmu_warehouse_examine_facts(warehouse, true);
	dmu_warehouse_examine_users(warehouse, true);
	dmu_warehouse_examine_procedure(warehouse);
	return warehouse;
}

Oid
dmu_warehouse_find_users(void)
{
	char	   *schema;
	char	   *name;
	Oid			namespace;

	dmu_settings_refuse_rejected();
	if (!dmu_parse_name(*users_setting.value, &schema, &name))
		return InvalidOid;
	if (schema == NULL)
		return RelnameGetRelid(name);
	namespace = get_namespace_oid(schema, true);
	return OidIsValid(namespace) ? get_relname_relid(name, namespace) : InvalidOid;
}

char	   *
dmu_warehouse_name(Oid relation)
{
	return get_rel_name(relation) == NULL ? NULL : qualified_relation(relation);
}

DmuWarehouse *
dmu_warehouse_resolve_again(Oid users)
{
	DmuWarehouse *warehouse = dmu_warehouse_resolve();

	if (warehouse->users != users)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relation \"%s\" is not the users table that the cycle was started for",
						*users_setting.value),
				 errdetail("It was dropped, renamed or hidden by another one of its name meanwhile."),
				 errhint("Start another cycle.")));
	return warehouse;
}

/* What is not known is not asked for. */
static void
ask_privileges(const DmuWarehouse *warehouse, bool for_refresh,
			   DmuLacking *lacking)
{
	if (OidIsValid(warehouse->facts))
	{
		dmu_privilege_schema(get_rel_namespace(warehouse->facts), lacking);
		dmu_privilege_relation(warehouse->facts, warehouse->facts_name,
							   ACL_SELECT, warehouse->facts_user.name, warehouse->facts_time.name,
							   lacking);
	}
	if (OidIsValid(warehouse->users))
	{
		dmu_privilege_schema(get_rel_namespace(warehouse->users), lacking);
		dmu_privilege_relation(warehouse->users, warehouse->users_name,
							   ACL_SELECT, warehouse->users_key.name, warehouse->users_flag.name,
							   lacking);
		if (warehouse->users_since.name != NULL)
			dmu_privilege_relation(warehouse->users, warehouse->users_name,
								   ACL_SELECT, warehouse->users_since.name, NULL, lacking);
		if (for_refresh)
			dmu_privilege_relation(warehouse->users, warehouse->users_name,
								   ACL_UPDATE, warehouse->users_flag.name, NULL, lacking);
	}
	if (OidIsValid(warehouse->procedure) && for_refresh)
	{
		dmu_privilege_schema(get_func_namespace(warehouse->procedure), lacking);
		dmu_privilege_procedure(warehouse->procedure, lacking);
	}
}

DmuWarehouse *
dmu_warehouse_resolve_users(void)
{
	DmuWarehouse *warehouse = palloc0(sizeof(DmuWarehouse));

	check_settings();
	dmu_warehouse_examine_users(warehouse, true);
	ask_privileges(warehouse, true, NULL);
	return warehouse;
}

void
dmu_warehouse_check_privileges(const DmuWarehouse *warehouse, bool for_refresh)
{
	ask_privileges(warehouse, for_refresh, NULL);
}

void
dmu_warehouse_lacking(const DmuWarehouse *warehouse, DmuLacking *lacking)
{
	ask_privileges(warehouse, true, lacking);
}

void
dmu_warehouse_lock(const DmuWarehouse *warehouse)
{
	LockRelationOid(warehouse->facts, AccessShareLock);
	LockRelationOid(warehouse->users, AccessShareLock);
}
