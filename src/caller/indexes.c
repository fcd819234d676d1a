/*-------------------------------------------------------------------------
 *
 * indexes.c
 *		The indexes of a relation and its partitions, and statements that add
 *		those that are wanted.
 *
 *		This file knows nothing of datamart users and of findings.
 *
 *-------------------------------------------------------------------------
 */
#include "indexes.h"

#include "catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

/* A name with its suffix that is longer could be cut, and be that of another. */
#define MAX_INDEX_NAME 60

/* A relation with its partitions, and the indexes of each that find rows by $2. */
static const char parts_sql[] =
"SELECT r.relid, format('%I.%I', n.nspname, c.relname), r.parentrelid,"
"       c.relkind::text, c.relnamespace,"
"       i.index, i.name, i.parent, i.valid, i.exact, i.uniq"
"  FROM (SELECT t.relid::oid AS relid, t.level,"
"               CASE WHEN t.level > 0 THEN t.parentrelid::oid END AS parentrelid"
"          FROM pg_partition_tree($1) AS t"
"         UNION ALL"
"        SELECT $1::oid, 0, NULL"
"         WHERE NOT EXISTS (SELECT FROM pg_partition_tree($1))) AS r"
"  JOIN pg_class AS c ON c.oid = r.relid"
"  JOIN pg_namespace AS n ON n.oid = c.relnamespace"
"  LEFT JOIN LATERAL ("
"        SELECT x.indexrelid AS index,"
"               format('%I.%I', xn.nspname, xc.relname) AS name,"
"               (SELECT h.inhparent FROM pg_inherits AS h WHERE h.inhrelid = x.indexrelid) AS parent,"
"               x.indisvalid AS valid, x.indisunique AS uniq,"
"               x.indpred IS NULL"
"                 AND x.indnkeyatts = x.indnatts"
"                 AND x.indoption::smallint[] <@ ARRAY[0::smallint]"
"                 AND k.columns = array_remove(ARRAY[$2, $3], NULL) AS exact"
"          FROM pg_index AS x"
"          JOIN pg_class AS xc ON xc.oid = x.indexrelid"
"          JOIN pg_namespace AS xn ON xn.oid = xc.relnamespace"
"          JOIN pg_am AS m ON m.oid = xc.relam AND m.amname = 'btree'"
"         CROSS JOIN LATERAL ("
"               SELECT array_agg(a.attname::text ORDER BY p.position) AS columns"
"                 FROM unnest(x.indkey::smallint[]) WITH ORDINALITY AS p (attnum, position)"
"                 LEFT JOIN pg_attribute AS a"
"                        ON a.attrelid = x.indrelid AND a.attnum = p.attnum) AS k"
"         WHERE x.indrelid = r.relid"
"           AND k.columns[1] = $2"
"           AND ($3 IS NULL OR $3 = ANY (k.columns))"
"           AND (x.indpred IS NULL"
"                OR pg_get_expr(x.indpred, x.indrelid) = format('(%I IS NOT NULL)', $2))"
"       ) AS i ON true"
" ORDER BY r.level, c.relname, r.relid, i.valid DESC, i.exact DESC, i.index";

/*
 * The relation and its partitions, parents first, each with its indexes that
 * begin with "key" and have "other" too unless that is NULL.
 */
List	   *
dmu_indexes_find(MemoryContext context, Oid relation, const char *key,
				 const char *other)
{
	Oid			types[3] = {REGCLASSOID, TEXTOID, TEXTOID};
	Datum		values[3];
	char		nulls[3] = {' ', ' ', ' '};
	DmuCatalogQuery query;
	List	   *parts = NIL;
	DmuPart    *part = NULL;

	if (other == NULL)
		nulls[2] = 'n';
	values[0] = ObjectIdGetDatum(relation);
	values[1] = CStringGetTextDatum(key);
	values[2] = other == NULL ? (Datum) 0 : CStringGetTextDatum(other);

	dmu_catalog_begin(&query, context, parts_sql, lengthof(types), types, values, nulls);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Oid			oid = DatumGetObjectId(dmu_catalog_datum(row, 1));

		if (part == NULL || part->oid != oid)
		{
			part = palloc0(sizeof(DmuPart));
			part->oid = oid;
			part->name = dmu_catalog_text(row, 2);
			part->parent = DatumGetObjectId(dmu_catalog_datum(row, 3));
			part->kind = dmu_catalog_text(row, 4)[0];
			part->schema = DatumGetObjectId(dmu_catalog_datum(row, 5));
			parts = lappend(parts, part);
		}
		if (OidIsValid(DatumGetObjectId(dmu_catalog_datum(row, 6))))
		{
			DmuIndex   *index = palloc(sizeof(DmuIndex));

			index->oid = DatumGetObjectId(dmu_catalog_datum(row, 6));
			index->name = dmu_catalog_text(row, 7);
			index->parent = DatumGetObjectId(dmu_catalog_datum(row, 8));
			index->valid = DatumGetBool(dmu_catalog_datum(row, 9));
			index->exact = DatumGetBool(dmu_catalog_datum(row, 10));
			index->unique = DatumGetBool(dmu_catalog_datum(row, 11));
			part->indexes = lappend(part->indexes, index);
		}
	}
	dmu_catalog_end(&query);
	return parts;
}

/* Valid ones come first. */
bool
dmu_indexes_has_valid(const DmuPart *part)
{
	return part->indexes != NIL &&
		((DmuIndex *) linitial(part->indexes))->valid;
}

/* What a statement to paste calls an index that is yet to be made. */
static char *
new_index_name(const DmuPart *part, const char *purpose)
{
	const char *relation = get_rel_name(part->oid);

	if (relation == NULL)
		elog(ERROR, "cache lookup failed for relation %u", part->oid);

	/* Of long names the server would keep the beginning, which may be shared. */
	if (strlen(relation) + strlen(purpose) + strlen("__idx") > MAX_INDEX_NAME)
	{
		int			length = (int) strlen(relation);
		int			keep = pg_mbcliplen(relation,
										pg_mbcharcliplen(relation, length, 20), 32);
		char	   *hash = TextDatumGetCString(DirectFunctionCall1(md5_text,
																   CStringGetTextDatum(relation)));

		relation = psprintf("%s_%.8s", pnstrdup(relation, keep), hash);
	}
	return ChooseRelationName(relation, NULL, psprintf("%s_idx", purpose),
							  part->schema, false);
}

/* An exact one that is free, or a part of the parent's already. */
static DmuIndex *
find_usable_index(const DmuPart *part, const DmuPart *parent)
{
	DmuIndex   *usable = NULL;
	ListCell   *lc;

	foreach(lc, part->indexes)
	{
		DmuIndex   *index = lfirst(lc);

		if (!index->exact || index->unique ||
			!(index->valid || part->kind == RELKIND_PARTITIONED_TABLE))
			continue;
		if (!OidIsValid(index->parent))
		{
			if (usable == NULL)
				usable = index;
		}
		else if (parent != NULL && index->parent == parent->index)
			return index;
	}
	return usable;
}

static DmuPart *
find_part(List *parts, Oid oid)
{
	ListCell   *lc;

	foreach(lc, parts)
	{
		DmuPart    *part = lfirst(lc);

		if (part->oid == oid)
			return part;
	}
	return NULL;
}

/* What an interrupted CREATE INDEX CONCURRENTLY has left is of no use. */
static void
add_drops(StringInfo statements, List *parts)
{
	ListCell   *lc;
	ListCell   *li;

	foreach(lc, parts)
	{
		const DmuPart *part = lfirst(lc);

		if (part->kind == RELKIND_PARTITIONED_TABLE)
			continue;
		foreach(li, part->indexes)
		{
			const DmuIndex *index = lfirst(li);

			if (index->exact && !index->valid && !OidIsValid(index->parent))
				appendStringInfo(statements, "DROP INDEX CONCURRENTLY %s;\n",
								 index->name);
		}
	}
}

/*
 * Statements that index a relation and all of its partitions without keeping
 * writers waiting.  CONCURRENTLY is for plain tables only: so the partitions
 * get their indexes one by one, which then become parts of the parent's.
 */
char	   *
dmu_indexes_statements(List *parts, const char *columns, const char *purpose,
					   bool unique)
{
	DmuPart    *root = linitial(parts);
	StringInfoData statements;
	StringInfoData attaches;
	ListCell   *lc;

	initStringInfo(&statements);
	initStringInfo(&attaches);
	add_drops(&statements, parts);
	if (root->kind != RELKIND_PARTITIONED_TABLE)
	{
		appendStringInfo(&statements, "CREATE %sINDEX CONCURRENTLY %s ON %s (%s);",
						 unique ? "UNIQUE " : "",
						 quote_identifier(new_index_name(root, purpose)),
						 root->name, columns);
		return statements.data;
	}

	foreach(lc, parts)
	{
		DmuPart    *part = lfirst(lc);
		bool		parted = part->kind == RELKIND_PARTITIONED_TABLE;
		DmuPart    *parent = find_part(parts, part->parent);
		DmuIndex   *usable;

		if (part->kind != RELKIND_RELATION && !parted)
			continue;
		usable = find_usable_index(part, parent);
		if (usable != NULL)
		{
			part->index = usable->oid;
			part->index_name = usable->name;
		}
		else
		{
			char	   *name = new_index_name(part, purpose);

			appendStringInfo(&statements, "CREATE INDEX %s%s ON %s%s (%s);\n",
							 parted ? "" : "CONCURRENTLY ", quote_identifier(name),
							 parted ? "ONLY " : "", part->name, columns);
			part->index_name = quote_qualified_identifier(get_namespace_name(part->schema),
														  name);
		}
		if (parent != NULL && (usable == NULL || !OidIsValid(usable->parent)))
			appendStringInfo(&attaches, "ALTER INDEX %s ATTACH PARTITION %s;\n",
							 parent->index_name, part->index_name);
	}

	appendStringInfoString(&statements, attaches.data);
	while (statements.len > 0 && statements.data[statements.len - 1] == '\n')
		statements.data[--statements.len] = '\0';
	return statements.data;
}

bool
dmu_indexes_possible(char kind)
{
	return kind == RELKIND_RELATION || kind == RELKIND_MATVIEW ||
		kind == RELKIND_PARTITIONED_TABLE;
}
