/*-------------------------------------------------------------------------
 *
 * privilege.c
 *		What the current role may not do, and the GRANT that would change that.
 *
 *		The server says "permission denied" where a worker trips over it; this
 *		says it in the caller's session, with the statement to run.  It knows
 *		nothing of settings and cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "compat.h"
#include "datamart_users.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "privilege.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc_tables.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"

/* These decide what a cycle runs. */
static const char *const code_settings[] = {
	DMU_EXTENSION_NAME ".facts_table",
	DMU_EXTENSION_NAME ".users_table",
	DMU_EXTENSION_NAME ".procedure",
	DMU_EXTENSION_NAME ".worker_settings",
};

/*
 * "what" is the object as GRANT names it, "kind" and "name" as a message does.
 */
static void
deny(const char *kind, const char *name, const char *privilege,
	 const char *what, DmuLacking *lacking)
{
	const char *role;

	if (lacking != NULL)
	{
		char	   *grant = psprintf("%s ON %s", privilege, what);
		ListCell   *lc;

		/* Several objects may be in one schema. */
		foreach(lc, lacking->grants)
		{
			if (strcmp(lfirst(lc), grant) == 0)
				return;
		}
		lacking->grants = lappend(lacking->grants, grant);
		return;
	}

	role = quote_identifier(GetUserNameFromId(GetUserId(), false));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for %s %s", kind, name),
			 errhint("Run GRANT %s ON %s TO %s;", privilege, what, role)));
}

static Oid
asked_role(const DmuLacking *lacking)
{
	return lacking != NULL ? lacking->role : GetUserId();
}

void
dmu_privilege_schema(Oid schema, DmuLacking *lacking)
{
	const char *name;

	if (dmu_schema_aclcheck(schema, asked_role(lacking), ACL_USAGE) == ACLCHECK_OK)
		return;

	name = quote_identifier(get_namespace_name(schema));
	deny("schema", name, "USAGE", psprintf("SCHEMA %s", name), lacking);
}

Oid
dmu_privilege_named_schema(const char *schema)
{
	Oid			oid = get_namespace_oid(schema, true);

	if (OidIsValid(oid))
		dmu_privilege_schema(oid, NULL);
	return oid;
}

void
dmu_privilege_relation(Oid relation, const char *name, AclMode mode,
					   const char *column1, const char *column2,
					   DmuLacking *lacking)
{
	Oid			role = asked_role(lacking);
	const char *columns[2] = {column1, column2};
	StringInfoData privilege;

	if (pg_class_aclcheck(relation, role, mode) == ACLCHECK_OK)
		return;

	initStringInfo(&privilege);
	appendStringInfo(&privilege, "%s (%s",
					 mode == ACL_SELECT ? "SELECT" : "UPDATE",
					 quote_identifier(column1));
	if (column2 != NULL)
		appendStringInfo(&privilege, ", %s", quote_identifier(column2));
	appendStringInfoChar(&privilege, ')');

	for (int i = 0; i < (int) lengthof(columns) && columns[i] != NULL; i++)
	{
		AttrNumber	attnum = get_attnum(relation, columns[i]);

		if (pg_attribute_aclcheck(relation, attnum, role, mode) != ACLCHECK_OK)
		{
			deny("relation", name, privilege.data, name, lacking);
			return;
		}
	}
}

void
dmu_privilege_procedure(Oid procedure, DmuLacking *lacking)
{
	char	   *signature;

	if (dmu_procedure_aclcheck(procedure, asked_role(lacking),
							   ACL_EXECUTE) == ACLCHECK_OK)
		return;

	signature = format_procedure_qualified(procedure);
	deny("procedure", signature, "EXECUTE",
		 psprintf("PROCEDURE %s", signature), lacking);
}

bool
dmu_privilege_may_read(Oid schema, const char *table)
{
	Oid			relation = get_relname_relid(table, schema);

	return OidIsValid(relation) &&
		pg_class_aclcheck(relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

bool
dmu_privilege_has_role(const char *role_name)
{
	Oid			role = get_role_oid(role_name, true);

	return OidIsValid(role) && has_privs_of_role(GetUserId(), role);
}

void
dmu_privilege_settings(void)
{
	for (int i = 0; i < (int) lengthof(code_settings); i++)
	{
		const struct config_generic *setting = dmu_find_setting(code_settings[i]);
		Oid			setter = setting->srole;

		/* Whoever sets it by ALTER ROLE, the server itself puts it in force. */
		if (setting->source == PGC_S_USER ||
			setting->source == PGC_S_DATABASE_USER)
			setter = GetAuthenticatedUserId();
		if (!is_member_of_role(setter, GetUserId()))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("setting %s comes from role \"%s\", which is not a member of role \"%s\"",
							setting->name, GetUserNameFromId(setter, true),
							GetUserNameFromId(GetUserId(), true)),
					 errdetail("It would decide what is run with the rights of role \"%s\".",
							   GetUserNameFromId(GetUserId(), true)),
					 errhint("Set it in the function that lends its rights, with ALTER FUNCTION ... SET %s.",
							 setting->name)));
	}
}
