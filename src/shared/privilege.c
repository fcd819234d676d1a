/*-------------------------------------------------------------------------
 *
 * privilege.c
 *		What the current role may not do, and the GRANT that would change that.
 *
 *		The server says "permission denied" where a worker trips over it; this
 *		says it in the caller's session, with the statement to run.  Which
 *		privileges a cycle needs, and what a setting means, is known elsewhere.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_parameter_acl.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "datamart_users.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "privilege.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc_tables.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

/* A setting that decides over more than how fast a cycle is. */
typedef struct DecisiveSetting
{
	const char *name;
	bool		runs;			/* it decides what SQL is run */
	bool		is_path;		/* it does so in every plain session, too */
} DecisiveSetting;

/*
 * Those that do not run anything decide which datamart users fail, and for how
 * long they are left out.
 */
static const DecisiveSetting decisive_settings[] = {
	{DMU_EXTENSION_NAME ".facts_table", true, false},
	{DMU_EXTENSION_NAME ".users_table", true, false},
	{DMU_EXTENSION_NAME ".procedure", true, false},
	{DMU_EXTENSION_NAME ".facts_user_column", true, false},
	{DMU_EXTENSION_NAME ".facts_time_column", true, false},
	{DMU_EXTENSION_NAME ".users_key_column", true, false},
	{DMU_EXTENSION_NAME ".users_flag_column", true, false},
	{DMU_EXTENSION_NAME ".users_since_column", true, false},
	{DMU_EXTENSION_NAME ".worker_settings", true, false},
	{"search_path", true, true},
	{DMU_EXTENSION_NAME ".user_timeout", false, false},
	{DMU_EXTENSION_NAME ".retry_delay", false, false},
	{DMU_EXTENSION_NAME ".retry_delay_max", false, false},
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

/*
 * True if a role that cannot become the current one may have written the
 * setting into postgresql.auto.conf, since it was granted ALTER SYSTEM on it.
 * For PUBLIC, "stranger" gets InvalidOid.
 */
static bool
granted_to_stranger(const char *name, Oid *stranger)
{
	char	   *folded = convert_GUC_name_for_parameter_acl(name);
	HeapTuple	tuple = SearchSysCache1(PARAMETERACLNAME,
										CStringGetTextDatum(folded));
	bool		found = false;
	bool		isnull;
	Datum		acl;
	Datum	   *items;
	int			nitems;
	int16		length;
	bool		byval;
	char		align;

	if (!HeapTupleIsValid(tuple))
		return false;
	acl = SysCacheGetAttr(PARAMETERACLNAME, tuple,
						  Anum_pg_parameter_acl_paracl, &isnull);
	if (!isnull)
	{
		get_typlenbyvalalign(ACLITEMOID, &length, &byval, &align);
		deconstruct_array((ArrayType *) DatumGetAclPCopy(acl), ACLITEMOID,
						  length, byval, align, &items, NULL, &nitems);
		for (int i = 0; i < nitems && !found; i++)
		{
			const AclItem *item = DatumGetAclItemP(items[i]);

			*stranger = item->ai_grantee;
			found = (ACLITEM_GET_PRIVS(*item) & ACL_ALTER_SYSTEM) != 0 &&
				(item->ai_grantee == ACL_ID_PUBLIC ||
				 !dmu_can_become(item->ai_grantee, GetUserId()));
		}
	}
	ReleaseSysCache(tuple);
	return found;
}

static Oid
database_owner(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID,
										ObjectIdGetDatum(MyDatabaseId));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	owner = ((Form_pg_database) GETSTRUCT(tuple))->datdba;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * True if somebody may have given the setting its value who could not become
 * the current role; "setter" is that role, InvalidOid if it cannot be named.
 *
 * The server remembers the role for what a session did.  For the values that
 * a session begins with it does not: those count as whoever may put one there.
 */
static bool
set_by_stranger(const struct config_generic *setting, Oid *setter)
{
	*setter = InvalidOid;
	switch (setting->source)
	{
		case PGC_S_DEFAULT:
		case PGC_S_DYNAMIC_DEFAULT:
		case PGC_S_ENV_VAR:
		case PGC_S_ARGV:
		case PGC_S_GLOBAL:
			/* The server's own administrators. */
			return false;
		case PGC_S_FILE:
			return granted_to_stranger(setting->name, setter);
		case PGC_S_DATABASE:
			*setter = database_owner();
			break;
		case PGC_S_USER:
		case PGC_S_DATABASE_USER:
			/* Whoever else may change it may become that role, too. */
			*setter = GetAuthenticatedUserId();
			break;
		case PGC_S_CLIENT:
		case PGC_S_SESSION:
			*setter = setting->srole;
			break;
		case PGC_S_OVERRIDE:
		case PGC_S_INTERACTIVE:
		case PGC_S_TEST:
			/* Some library's doing, for whomever. */
			return true;
	}
	return !OidIsValid(*setter) || !dmu_can_become(*setter, GetUserId());
}

static void
refuse_setting(const struct config_generic *setting, Oid setter)
{
	const char *current = GetUserNameFromId(GetUserId(), false);
	const char *name = OidIsValid(setter) ? GetUserNameFromId(setter, true) : NULL;

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 name != NULL ?
			 errmsg("setting %s comes from role \"%s\", which cannot become role \"%s\"",
					setting->name, name, current) :
			 errmsg("setting %s may come from somebody who cannot become role \"%s\"",
					setting->name, current),
			 setting->source == PGC_S_DATABASE ?
			 errdetail("It would decide what is done with the rights of role \"%s\", and what ALTER DATABASE sets counts as set by the owner of the database.",
					   current) :
			 errdetail("It would decide what is done with the rights of role \"%s\".",
					   current),
			 InLocalUserIdChange() ?
			 errhint("Set it in the function that lends its rights, with ALTER FUNCTION ... SET %s.",
					 setting->name) :
			 errhint("Set it for the role, with ALTER ROLE %s SET %s, or in the session.",
					 quote_identifier(current), setting->name)));
}

void
dmu_privilege_settings(void)
{
	for (int i = 0; i < (int) lengthof(decisive_settings); i++)
	{
		const DecisiveSetting *decisive = &decisive_settings[i];
		const struct config_generic *setting = dmu_find_setting(decisive->name);
		Oid			setter;

		/*
		 * How long others have to wait, and in which schemas names are found,
		 * is for the administration of a database to say; but not for whoever
		 * borrows a role's rights.
		 */
		if (!decisive->runs && setting->source < PGC_S_USER)
			continue;
		if (decisive->is_path && !InLocalUserIdChange())
			continue;
		if (set_by_stranger(setting, &setter))
			refuse_setting(setting, setter);
	}
}
