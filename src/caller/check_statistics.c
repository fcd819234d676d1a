/*-------------------------------------------------------------------------
 *
 * check_statistics.c
 *		The doctor on the planner's statistics of both tables.
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include <math.h>

#include "catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* A relation as its statistics stand. */
typedef struct Gathered
{
	char	   *name;
	bool		is_facts;		/* the facts table itself */
	bool		of_facts;		/* that, or a partition of it */
	bool		never;
	bool		stale;
} Gathered;

/* What has been gathered for both relations and their partitions. */
static const char gathered_sql[] =
"WITH roots (relid, key) AS (VALUES ($1::oid, $3::text), ($2::oid, $4::text)),"
" relations AS ("
"   SELECT r.relid, r.key, r.relid = $1 AS of_facts FROM roots AS r WHERE r.relid <> 0"
"    UNION"
"   SELECT t.relid::oid, r.key, r.relid = $1"
"     FROM roots AS r"
"     JOIN pg_class AS c ON c.oid = r.relid AND c.relkind = 'p'"
"    CROSS JOIN LATERAL pg_partition_tree(r.relid) AS t)"
"SELECT c.oid, c.relkind::text, format('%I.%I', n.nspname, c.relname), r.key,"
"       r.of_facts, c.reltuples::float8,"
"       CASE WHEN c.relkind = 'p'"
"            THEN (SELECT sum(greatest(l.reltuples, 0))::float8"
"                    FROM pg_partition_tree(c.oid) AS t"
"                    JOIN pg_class AS l ON l.oid = t.relid AND l.relkind = 'r') END,"
"       CASE WHEN c.relkind = 'p'"
"            THEN (SELECT sum(pg_relation_size(t.relid))::bigint"
"                    FROM pg_partition_tree(c.oid) AS t WHERE t.isleaf)"
"            ELSE pg_relation_size(c.oid) END,"
/* Autovacuum is given ten minutes to see to it. */
"       CASE WHEN greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid))"
"                 > clock_timestamp() - interval '10 minutes' THEN 0"
"            ELSE pg_stat_get_mod_since_analyze(c.oid) END"
"  FROM relations AS r"
"  JOIN pg_class AS c ON c.oid = r.relid"
"  JOIN pg_namespace AS n ON n.oid = c.relnamespace"
" WHERE c.relkind IN ('r', 'm', 'p')"
" ORDER BY c.oid";

static List *
read_statistics(const DmuDoctor *doctor)
{
	Oid			types[4] = {OIDOID, OIDOID, TEXTOID, TEXTOID};
	Datum		values[4];
	DmuCatalogQuery query;
	List	   *all = NIL;

	values[0] = ObjectIdGetDatum(doctor->warehouse.facts);
	values[1] = ObjectIdGetDatum(doctor->warehouse.users);
	values[2] = CStringGetTextDatum(doctor->warehouse.facts_user.name);
	values[3] = CStringGetTextDatum(doctor->warehouse.users_key.name);
	dmu_catalog_begin(&query, doctor->context, gathered_sql, lengthof(types), types, values, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Gathered   *gathered = palloc(sizeof(Gathered));
		Oid			oid = DatumGetObjectId(dmu_catalog_datum(row, 1));
		bool		parted = dmu_catalog_text(row, 2)[0] == RELKIND_PARTITIONED_TABLE;
		double		tuples = DatumGetFloat8(dmu_catalog_datum(row, 6));
		double		changes = parted ?
		fabs(DatumGetFloat8(dmu_catalog_datum(row, 7)) - tuples) :
		(double) DatumGetInt64(dmu_catalog_datum(row, 9));

		/* The catalog itself is for superusers only, the cache for us all. */
		gathered->never = DatumGetInt64(dmu_catalog_datum(row, 8)) > 0 &&
			!SearchSysCacheExists3(STATRELATTINH, ObjectIdGetDatum(oid),
								   Int16GetDatum(get_attnum(oid, dmu_catalog_text(row, 4))),
								   BoolGetDatum(parted));
		gathered->stale = !gathered->never &&
			changes > 1000 + 0.2 * Max(tuples, 0);
		gathered->name = dmu_catalog_text(row, 3);
		gathered->of_facts = DatumGetBool(dmu_catalog_datum(row, 5));
		gathered->is_facts = oid == doctor->warehouse.facts;
		all = lappend(all, gathered);
	}
	dmu_catalog_end(&query);
	return all;
}

/*
 * Statistics of both tables.  Autovacuum looks after tables, and so after each
 * partition, but never after the partitioned table itself.
 */
void
dmu_check_statistics(DmuDoctor *doctor, DmuFinding *finding)
{
	List	   *all = read_statistics(doctor);
	List	   *never = NIL;
	List	   *stale = NIL;
	List	   *targets = NIL;
	bool		facts = false;
	StringInfoData detail;
	StringInfoData hint;
	ListCell   *lc;

	foreach(lc, all)
	{
		Gathered   *gathered = lfirst(lc);

		if (gathered->never)
			never = lappend(never, gathered->name);
		if (gathered->stale)
			stale = lappend(stale, gathered->name);
		if (gathered->is_facts && (gathered->never || gathered->stale))
			facts = true;
	}
	if (never == NIL && stale == NIL)
	{
		finding->detail = all == NIL ? "not looked at, for want of tables" :
			psprintf(ngettext("up to date for %d table",
							  "up to date for %d tables and partitions",
							  list_length(all)),
					 list_length(all));
		return;
	}

	initStringInfo(&detail);
	if (never != NIL)
		appendStringInfo(&detail, "never gathered for %s",
						 dmu_catalog_list(never, true));
	if (stale != NIL)
		appendStringInfo(&detail, "%sstale for %s", detail.len > 0 ? "; " : "",
						 dmu_catalog_list(stale, true));
	if (facts && get_rel_relkind(doctor->warehouse.facts) == RELKIND_PARTITIONED_TABLE)
		appendStringInfoString(&detail, "; autovacuum never analyzes a partitioned table itself");

	/* The partitioned table brings all of its partitions with it. */
	foreach(lc, all)
	{
		Gathered   *gathered = lfirst(lc);

		if ((gathered->never || gathered->stale) &&
			(gathered->is_facts || !facts || !gathered->of_facts))
			targets = lappend(targets, gathered->name);
	}
	initStringInfo(&hint);
	foreach(lc, targets)
		appendStringInfo(&hint, "%s%s", hint.len > 0 ? ", " : "ANALYZE ",
						 (char *) lfirst(lc));
	appendStringInfoChar(&hint, ';');
	finding->status = "warning";
	finding->detail = detail.data;
	finding->hint = hint.data;
}
