/*-------------------------------------------------------------------------
 *
 * install.c
 *		What the extension's script cannot do in plain SQL.
 *
 *		CREATE EXTENSION runs with a superuser's rights in a schema where others
 *		may have been before.  So its script refuses objects that bear our
 *		prefix already, and takes away whatever default privileges have given
 *		to others.  In C, because no procedural language need be installed.
 *		The script drops these functions again.
 *
 *		This file knows nothing of cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "datamart_users.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(datamart_users_refuse_existing);
PG_FUNCTION_INFO_V1(datamart_users_revoke_all);
PG_FUNCTION_INFO_V1(datamart_users_settle_server);

static void
require_script(void)
{
	if (!creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this function is for the script of extension \"%s\"",
						DMU_EXTENSION_NAME)));
}

static void
run(const char *sql, int expected)
{
	Oid			type = OIDOID;
	Datum		extension = ObjectIdGetDatum(CurrentExtensionObject);
	int			result = SPI_execute_with_args(sql, 1, &type, &extension,
											   NULL, false, 0);

	if (result != expected)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(result), sql);
}

static char *
text_value(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

/*
 * A function with our prefix and other argument types would be called by
 * whoever calls one of ours with inexact ones; and a table would not be empty.
 */
Datum
datamart_users_refuse_existing(PG_FUNCTION_ARGS)
{
	require_script();
	SPI_connect();
	run("WITH objects AS ("
		"  SELECT 'pg_class'::regclass AS catalog, oid, relnamespace AS schema,"
		"         relname AS name FROM pg_class"
		"  UNION ALL"
		"  SELECT 'pg_proc'::regclass, oid, pronamespace, proname FROM pg_proc"
		"  UNION ALL"
		"  SELECT 'pg_type'::regclass, oid, typnamespace, typname FROM pg_type)"
		" SELECT pg_describe_object(o.catalog, o.oid, 0)"
		"  FROM objects o"
		"  JOIN pg_extension e ON e.extnamespace = o.schema"
		" WHERE e.oid = $1 AND starts_with(o.name::text, '" DMU_EXTENSION_NAME "_')"
		" ORDER BY o.catalog, o.name LIMIT 1",
		SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("%s already exists", text_value(0, 1)),
				 errdetail("Names that begin with \"%s_\" are for the extension.",
						   DMU_EXTENSION_NAME),
				 errhint("Find out who made it and why, then drop it, or choose another schema.")));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * All that others hold on the members of the extension, before the script
 * grants what they are to have.
 */
Datum
datamart_users_revoke_all(PG_FUNCTION_ARGS)
{
	require_script();
	SPI_connect();
	run("WITH members AS ("
		"  SELECT 'ROUTINE ' || p.oid::regprocedure AS object, p.proowner AS owner,"
		"         coalesce(p.proacl, acldefault('f', p.proowner)) AS acl"
		"    FROM pg_proc p JOIN pg_depend d"
		"      ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid"
		"   WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = $1"
		"  UNION ALL"
		"  SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass,"
		"         c.relowner, c.relacl"
		"    FROM pg_class c JOIN pg_depend d"
		"      ON d.classid = 'pg_class'::regclass AND d.objid = c.oid"
		"   WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = $1)"
		" SELECT DISTINCT format('REVOKE ALL ON %s FROM %s CASCADE', m.object,"
		"         CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)"
		"  FROM members m, aclexplode(m.acl) a WHERE a.grantee <> m.owner",
		SPI_OK_SELECT);
	for (uint64 i = 0, n = SPI_processed; i < n; i++)
	{
		SPITupleTable *statements = SPI_tuptable;
		char	   *sql = text_value(i, 1);

		if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not run \"%s\"", sql);
		SPI_tuptable = statements;
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * A foreign data wrapper cannot be given to a plain role, so REASSIGN OWNED
 * would stop at one that belongs to whoever has created the extension.  Nobody
 * can drop the role that the cluster began with.
 */
Datum
datamart_users_settle_server(PG_FUNCTION_ARGS)
{
	static const char *const objects[] = {"FOREIGN DATA WRAPPER", "SERVER"};
	const char *owner = quote_identifier(GetUserNameFromId(BOOTSTRAP_SUPERUSERID,
														   false));

	require_script();
	SPI_connect();
	for (int i = 0; i < (int) lengthof(objects); i++)
	{
		char	   *sql = psprintf("ALTER %s " DMU_EXTENSION_NAME " OWNER TO %s",
								   objects[i], owner);

		if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not run \"%s\"", sql);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
