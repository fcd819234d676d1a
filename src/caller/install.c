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
 *		A script of ALTER EXTENSION UPDATE does the same with what it adds:
 *		what was a member before keeps its owner, and what somebody has granted
 *		since.
 *
 *		This file knows nothing of cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
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
PG_FUNCTION_INFO_V1(datamart_users_settle_owners);

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
	run("WITH RECURSIVE members AS ("
		"  SELECT classid, objid FROM pg_depend"
		"   WHERE refclassid = 'pg_extension'::regclass AND refobjid = $1 AND deptype = 'e'"
		"  UNION"
		"  SELECT d.classid, d.objid FROM pg_depend d"
		"    JOIN members m ON d.refclassid = m.classid AND d.refobjid = m.objid"
		"   WHERE d.deptype IN ('i', 'a')),"
		" objects AS ("
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
		"   AND NOT EXISTS (SELECT FROM members m"
		"                    WHERE m.classid = o.catalog AND m.objid = o.oid)"
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
 * Runs the statement that each row of the result is, if the script has made the
 * member that it is for: pg_depend has that since this transaction.  The first
 * column is its xmin, the second one the statement.
 */
static void
run_for_new(void)
{
	SPITupleTable *rows = SPI_tuptable;

	for (uint64 i = 0, n = SPI_processed; i < n; i++)
	{
		bool		isnull;
		Datum		xmin = SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull);
		char	   *sql = SPI_getvalue(rows->vals[i], rows->tupdesc, 2);

		if (TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)) &&
			SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not run \"%s\"", sql);
	}
}

/* The members that can be granted, with their dependency "d". */
#define GRANTABLE_MEMBERS \
	"WITH members AS (" \
	"  SELECT d.xmin AS since, d.classid, d.objid, p.proowner AS owner," \
	"         'ROUTINE ' || p.oid::regprocedure AS object," \
	"         coalesce(p.proacl, acldefault('f', p.proowner)) AS acl" \
	"    FROM pg_proc p JOIN pg_depend d" \
	"      ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid" \
	"   WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = $1" \
	"  UNION ALL" \
	"  SELECT d.xmin, d.classid, d.objid, c.relowner," \
	"         CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass," \
	"         c.relacl" \
	"    FROM pg_class c JOIN pg_depend d" \
	"      ON d.classid = 'pg_class'::regclass AND d.objid = c.oid" \
	"   WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = $1)"

/*
 * All that others hold on new members, before the script grants what they are
 * to have.  Not what one script before this one has granted: to CREATE an
 * extension the server may run several, in one transaction.
 */
Datum
datamart_users_revoke_all(PG_FUNCTION_ARGS)
{
	require_script();
	SPI_connect();
	run(GRANTABLE_MEMBERS
		" SELECT m.since, format('REVOKE ALL ON %s FROM %s CASCADE', m.object,"
		"         CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)"
		"  FROM members m, aclexplode(m.acl) a WHERE a.grantee <> m.owner"
		"   AND NOT EXISTS (SELECT FROM pg_init_privs i"
		"                    WHERE i.classoid = m.classid AND i.objoid = m.objid)",
		SPI_OK_SELECT);
	run_for_new();
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * A foreign data wrapper cannot be given to a plain role, so REASSIGN OWNED
 * would stop at one that belongs to whoever has created the extension.  Nobody
 * can drop the role that the cluster began with.
 *
 * The other new members go to the owner of the tables, who need not be who
 * updates the extension: it is in his name that all of them are used.  The
 * sequence of a column follows its table.
 */
Datum
datamart_users_settle_owners(PG_FUNCTION_ARGS)
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
	run(GRANTABLE_MEMBERS
		" SELECT m.since, format('ALTER %s OWNER TO %s', m.object, c.relowner::regrole)"
		"  FROM members m"
		"  JOIN pg_extension e ON e.oid = $1"
		"  JOIN pg_class c ON c.relnamespace = e.extnamespace AND c.relname = 'datamart_users_cycles'"
		" WHERE m.owner <> c.relowner"
		"   AND NOT EXISTS (SELECT FROM pg_depend d"
		"                    WHERE d.classid = m.classid AND d.objid = m.objid"
		"                      AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('i', 'a'))",
		SPI_OK_SELECT);
	run_for_new();
	SPI_finish();
	PG_RETURN_VOID();
}
