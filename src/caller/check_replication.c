/*-------------------------------------------------------------------------
 *
 * check_replication.c
 *		The doctor on publications that keep rows from being updated.
 *
 *		A table in a publication that publishes updates needs a replica
 *		identity, and must not leave it out by a column list or a row filter;
 *		else every UPDATE fails, ours of the flag and those of the procedure.
 *		Whether it has one is for the server to say, as it would say it to the
 *		UPDATE: for all tables that the users table comes to, partitions and
 *		what is below a view.
 *
 *		Which tables the procedure writes nobody can know.  Those that it names
 *		where it writes, and those beside it that have a column of the key, are
 *		looked at, and come to no more than a warning.
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"

/* Tables of the procedure that are looked at. */
#define MAX_TABLES "100"

/* A table with rows of its own, below something that was asked about. */
typedef struct Written
{
	Oid			relid;
	char	   *name;			/* qualified and quoted */
	bool		of_users;		/* our update writes it, no matter the
								 * procedure */
}			Written;

/*
 * $1 is the users table, $2 the procedure, $3 the facts table, $4 the name of
 * the key.  What is written by rules and below views comes by pg_depend.
 */
static const char written_sql[] =
"WITH RECURSIVE source (text, body) AS ("
"   SELECT p.prosrc, p.oid FROM pg_proc AS p WHERE p.oid = $2),"
" named (name) AS ("
"   SELECT lower(m.parts[1]) FROM source,"
"          regexp_matches(source.text,"
"            '\\m(?:insert\\s+into|update|delete\\s+from|merge\\s+into|truncate)\\s+(?:table\\s+)?(?:only\\s+)?(?:[\\w$\"]+\\s*\\.\\s*)?\"?([\\w$]+)', 'gi') AS m (parts)),"
" edges (upper, lower) AS ("
"   SELECT r.ev_class, d.refobjid"
"     FROM pg_rewrite AS r"
"     JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
"                        AND d.refclassid = 'pg_class'::regclass"
"    UNION"
"   SELECT i.inhparent, i.inhrelid FROM pg_inherits AS i),"
" roots (relid, of_users) AS ("
"   SELECT $1::oid, true WHERE $1 <> 0"
"    UNION"
"   SELECT c.oid, false"
"     FROM pg_class AS c"
"    WHERE c.relkind IN ('r', 'p', 'v') AND c.oid NOT IN ($1, $3)"
"      AND c.relnamespace <> 'pg_catalog'::regnamespace"
"      AND NOT c.relispartition"
"      AND (lower(c.relname) IN (SELECT n.name FROM named AS n)"
"           OR (c.relkind <> 'v'"
"               AND (c.relnamespace = (SELECT u.relnamespace FROM pg_class AS u WHERE u.oid = $1)"
"                    OR c.relnamespace = (SELECT p.pronamespace FROM pg_proc AS p WHERE p.oid = $2))"
"               AND EXISTS (SELECT FROM pg_attribute AS a"
"                            WHERE a.attrelid = c.oid AND a.attname = $4 AND NOT a.attisdropped)))"
"    UNION"
"   SELECT d.refobjid, false FROM pg_depend AS d"
"    WHERE d.classid = 'pg_proc'::regclass AND d.objid = $2"
"      AND d.refclassid = 'pg_class'::regclass AND d.refobjid NOT IN ($1, $3)),"
" below (relid, of_users) AS ("
"   SELECT r.relid, r.of_users FROM roots AS r"
"    UNION"
"   SELECT e.lower, b.of_users FROM below AS b JOIN edges AS e ON e.upper = b.relid)"
"SELECT c.oid, format('%I.%I', n.nspname, c.relname), bool_or(b.of_users)"
"  FROM below AS b"
"  JOIN pg_class AS c ON c.oid = b.relid"
"  JOIN pg_namespace AS n ON n.oid = c.relnamespace"
" WHERE c.relkind = 'r' AND c.relpersistence = 'p'"
"   AND EXISTS (SELECT FROM pg_publication)"
" GROUP BY c.oid, n.nspname, c.relname"
" ORDER BY bool_or(b.of_users) DESC, c.oid"
" LIMIT CASE WHEN $1 = 0 THEN " MAX_TABLES " ELSE 10 * " MAX_TABLES " END";

static List *
list_written(const DmuDoctor *doctor)
{
	Oid			types[4] = {OIDOID, OIDOID, OIDOID, TEXTOID};
	Datum		values[4];
	DmuCatalogQuery query;
	List	   *tables = NIL;

	values[0] = ObjectIdGetDatum(doctor->warehouse.users);
	values[1] = ObjectIdGetDatum(doctor->warehouse.procedure);
	values[2] = ObjectIdGetDatum(doctor->warehouse.facts);
	values[3] = CStringGetTextDatum(doctor->warehouse.users_key.name);
	dmu_catalog_begin(&query, doctor->context, written_sql, lengthof(types), types, values, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Written    *table = palloc(sizeof(Written));

		table->relid = DatumGetObjectId(dmu_catalog_datum(row, 1));
		table->name = dmu_catalog_text(row, 2);
		table->of_users = DatumGetBool(dmu_catalog_datum(row, 3));
		tables = lappend(tables, table);
	}
	dmu_catalog_end(&query);
	return tables;
}

/* Raises the error of the server that the statement would raise. */
static void
ask_server(Oid relid, CmdType command)
{
	Relation	relation = try_relation_open(relid, AccessShareLock);

	if (relation == NULL)
		return;
	CheckCmdReplicaIdentity(relation, command);
	relation_close(relation, AccessShareLock);
}

/* That error, NULL if there is none; anything else is raised. */
static ErrorData *
find_refusal(const DmuDoctor *doctor, Oid relid, CmdType command)
{
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile refusal = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(doctor->context);
	PG_TRY();
	{
		ask_server(relid, command);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(doctor->context);
		refusal = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(doctor->context);
	CurrentResourceOwner = owner;

	if (refusal != NULL &&
		refusal->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE &&
		refusal->sqlerrcode != ERRCODE_INVALID_COLUMN_REFERENCE)
		ReThrowError(refusal);
	return refusal;
}

static void
describe_refusal(DmuFinding *finding, const Written * table,
				 const ErrorData *refusal)
{
	finding->status = table->of_users ? "error" : "warning";
	finding->detail = psprintf("%s%s%s%s", refusal->message,
							   refusal->detail != NULL ? ". " : "",
							   refusal->detail != NULL ? refusal->detail : "",
							   table->of_users ?
							   ": no flag there can be cleared" :
							   "; if the procedure does that, the refresh fails");
	finding->hint = refusal->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE ?
		psprintf("ALTER TABLE %s REPLICA IDENTITY FULL; -- or a primary key, which costs less",
				 table->name) :
		psprintf("SELECT * FROM pg_publication_tables WHERE format('%%I.%%I', schemaname, tablename) = %s; -- and let column list and row filter keep to the replica identity",
				 quote_literal_cstr(table->name));
}

void
dmu_check_publications(DmuDoctor *doctor, DmuFinding *finding)
{
	List	   *tables = list_written(doctor);
	int			nrefused = 0;
	ListCell   *lc;

	if (!OidIsValid(doctor->warehouse.users))
	{
		finding->detail = "not looked at, for want of a users table";
		return;
	}
	foreach(lc, tables)
	{
		const		Written *table = lfirst(lc);
		ErrorData  *refusal = find_refusal(doctor, table->relid, CMD_UPDATE);

		if (refusal == NULL && !table->of_users)
			refusal = find_refusal(doctor, table->relid, CMD_DELETE);
		if (refusal != NULL && nrefused++ == 0)
			describe_refusal(finding, table, refusal);
	}
	if (tables == NIL)
		finding->detail = "none";
	else if (nrefused == 0)
		finding->detail = "none keeps rows of the users table or of the datamart from being updated";
	else if (nrefused > 1)
		finding->detail = psprintf("%s (so it is with %d more)", finding->detail,
								   nrefused - 1);
}
