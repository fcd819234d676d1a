/*-------------------------------------------------------------------------
 *
 * check_indexes.c
 *		The doctor on the indexes that prioritisation and flag update want.
 *
 *		A cycle works without them, and does not ask for them; so what they
 *		are and how to make them is known here only.
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include <ctype.h>

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

/* An index that finds rows by the wanted columns. */
typedef struct FoundIndex
{
	Oid			oid;
	char	   *name;			/* qualified */
	Oid			parent;			/* InvalidOid if it is part of none */
	bool		valid;
	bool		exact;			/* those columns, in that order, nothing else */
	bool		unique;
} FoundIndex;

/* A relation, or one in its partition tree. */
typedef struct Part
{
	Oid			oid;
	char	   *name;			/* qualified */
	Oid			parent;			/* InvalidOid for the root */
	char		kind;
	Oid			schema;
	List	   *indexes;		/* of FoundIndex, the best first */

	/* For the statements: the index that it has or will have. */
	Oid			index;			/* InvalidOid: will have */
	char	   *index_name;
} Part;

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
static List *
find_parts(MemoryContext context, Oid relation, const char *key,
		   const char *other)
{
	Oid			types[3] = {REGCLASSOID, TEXTOID, TEXTOID};
	Datum		values[3];
	char		nulls[3] = {' ', ' ', ' '};
	DmuCatalogQuery query;
	List	   *parts = NIL;
	Part	   *part = NULL;

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
			part = palloc0(sizeof(Part));
			part->oid = oid;
			part->name = dmu_catalog_text(row, 2);
			part->parent = DatumGetObjectId(dmu_catalog_datum(row, 3));
			part->kind = dmu_catalog_text(row, 4)[0];
			part->schema = DatumGetObjectId(dmu_catalog_datum(row, 5));
			parts = lappend(parts, part);
		}
		if (OidIsValid(DatumGetObjectId(dmu_catalog_datum(row, 6))))
		{
			FoundIndex *index = palloc(sizeof(FoundIndex));

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
static bool
has_valid_index(const Part *part)
{
	return part->indexes != NIL &&
		((FoundIndex *) linitial(part->indexes))->valid;
}

/* What a statement to paste calls an index that is yet to be made. */
static char *
new_index_name(const Part *part, const char *purpose)
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
static FoundIndex *
find_usable_index(const Part *part, const Part *parent)
{
	FoundIndex *usable = NULL;
	ListCell   *lc;

	foreach(lc, part->indexes)
	{
		FoundIndex *index = lfirst(lc);

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

static Part *
find_part(List *parts, Oid oid)
{
	ListCell   *lc;

	foreach(lc, parts)
	{
		Part	   *part = lfirst(lc);

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
		const Part *part = lfirst(lc);

		if (part->kind == RELKIND_PARTITIONED_TABLE)
			continue;
		foreach(li, part->indexes)
		{
			const FoundIndex *index = lfirst(li);

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
static char *
index_statements(List *parts, const char *columns, const char *purpose,
				 bool unique)
{
	Part	   *root = linitial(parts);
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
		Part	   *part = lfirst(lc);
		bool		parted = part->kind == RELKIND_PARTITIONED_TABLE;
		Part	   *parent = find_part(parts, part->parent);
		FoundIndex *usable;

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

static bool
has_storage(char kind)
{
	return kind == RELKIND_RELATION || kind == RELKIND_MATVIEW ||
		kind == RELKIND_PARTITIONED_TABLE;
}

/* What the facts want to be indexed by, as CREATE INDEX has it. */
static char *
facts_columns(const DmuDoctor *doctor)
{
	return psprintf("%s, %s", doctor->warehouse.facts_user.quoted,
					doctor->warehouse.facts_time.quoted);
}

void
dmu_check_facts_index(DmuDoctor *doctor, DmuFinding *finding)
{
	Oid			facts = doctor->warehouse.facts;
	const char *name = doctor->warehouse.facts_name;
	char	   *columns;
	List	   *parts;
	Part	   *root;
	ListCell   *lc;

	if (!OidIsValid(facts))
	{
		finding->detail = "not looked at, for want of a facts table";
		return;
	}
	columns = facts_columns(doctor);
	if (!has_storage(get_rel_relkind(facts)))
	{
		finding->detail = psprintf("not looked at: the tables behind %s need an index on (%s)",
								   name, columns);
		return;
	}

	parts = find_parts(doctor->context, facts, doctor->warehouse.facts_user.name,
					   doctor->warehouse.facts_time.name);
	if (parts == NIL)
		elog(ERROR, "cache lookup failed for relation %u", facts);
	root = linitial(parts);
	doctor->facts_partitioned = root->kind == RELKIND_PARTITIONED_TABLE;
	doctor->facts_index_attached = has_valid_index(root);
	foreach(lc, parts)
	{
		const Part *part = lfirst(lc);

		if (part->kind == RELKIND_FOREIGN_TABLE)
			doctor->has_foreign_partition = true;
		if (!doctor->facts_partitioned || part->kind != RELKIND_RELATION)
			continue;
		doctor->npartitions++;
		if (!has_valid_index(part))
			doctor->partitions_without = lappend(doctor->partitions_without,
												 part->name);
	}
	doctor->has_facts_index = doctor->facts_index_attached ||
		doctor->npartitions > list_length(doctor->partitions_without);
	if (!doctor->facts_index_attached)
		doctor->facts_index_statements =
			index_statements(parts, columns, "user_action_at", false);

	if (doctor->facts_partitioned && doctor->npartitions == 0)
		finding->detail = psprintf("none needed, %s has no partitions", name);
	else if (doctor->has_facts_index)
		finding->detail = root->indexes == NIL ? "on partitions" :
			((FoundIndex *) linitial(root->indexes))->name;
	else
	{
		finding->status = "warning";
		finding->detail = psprintf("no index on %s (%s): the prioritisation has to read the facts themselves",
								   name, columns);
		finding->hint = doctor->facts_index_statements;
	}
}

void
dmu_check_facts_partitions(DmuDoctor *doctor, DmuFinding *finding)
{
	const char *name = doctor->warehouse.facts_name;
	int			nwithout = list_length(doctor->partitions_without);

	if (!OidIsValid(doctor->warehouse.facts))
		finding->detail = "not looked at, for want of a facts table";
	else if (!doctor->facts_partitioned)
		finding->detail = psprintf("%s is not partitioned", name);
	else if (!doctor->has_facts_index)
		finding->detail = psprintf("%d partitions, see facts index",
								   doctor->npartitions);
	else if (nwithout > 0)
	{
		finding->status = "warning";
		finding->detail = psprintf("%d of %d partitions lack the index on (%s): %s",
								   nwithout, doctor->npartitions,
								   facts_columns(doctor),
								   dmu_catalog_list(doctor->partitions_without, false));
		finding->hint = doctor->facts_index_statements;
	}
	else if (!doctor->facts_index_attached && !doctor->has_foreign_partition)
	{
		finding->status = "warning";
		finding->detail = psprintf("all %d partitions have the index, but %s has not: new partitions will come without it",
								   doctor->npartitions, name);
		finding->hint = doctor->facts_index_statements;
	}
	else
		finding->detail = psprintf("all %d partitions have the index",
								   doctor->npartitions);
}

void
dmu_check_users_index(DmuDoctor *doctor, DmuFinding *finding)
{
	Oid			users = doctor->warehouse.users;
	const char *name = doctor->warehouse.users_name;
	const DmuColumn *key = &doctor->warehouse.users_key;
	List	   *parts;
	Part	   *root;

	if (!OidIsValid(users))
	{
		finding->detail = "not looked at, for want of a users table";
		return;
	}
	if (!has_storage(get_rel_relkind(users)))
	{
		finding->detail = psprintf("not looked at: the table behind %s needs an index on %s",
								   name, key->quoted);
		return;
	}

	parts = find_parts(doctor->context, users, key->name, NULL);
	if (parts == NIL)
		elog(ERROR, "cache lookup failed for relation %u", users);
	root = linitial(parts);
	if (has_valid_index(root))
	{
		finding->detail = ((FoundIndex *) linitial(root->indexes))->name;
		return;
	}
	finding->status = "warning";
	finding->detail = psprintf("no index on %s (%s): each refresh reads the whole table to clear one flag",
							   name, key->quoted);
	finding->hint = index_statements(parts, key->quoted, "key", true);
}

/* A regular expression that finds the column, as a word, in an expression. */
static char *
column_pattern(const DmuColumn *column)
{
	StringInfoData pattern;

	initStringInfo(&pattern);
	appendStringInfoString(&pattern, "(?<![\\w$\"])");
	for (const char *p = column->quoted; *p != '\0'; p++)
	{
		if (!IS_HIGHBIT_SET(*p) && !isalnum((unsigned char) *p) && *p != '_')
			appendStringInfoChar(&pattern, '\\');
		appendStringInfoChar(&pattern, *p);
	}
	appendStringInfoString(&pattern, "(?![\\w$\"])");
	return pattern.data;
}

/*
 * Makes the planner expect far fewer datamart users than there are, so it
 * takes a nested loop over facts that have no index to be looked up with.
 */
void
dmu_check_flag_index(DmuDoctor *doctor, DmuFinding *finding)
{
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2];
	DmuCatalogQuery query;
	char	   *index;

	values[0] = ObjectIdGetDatum(doctor->warehouse.users);
	values[1] = CStringGetTextDatum(column_pattern(&doctor->warehouse.users_flag));
	dmu_catalog_begin(&query, doctor->context,
					  "SELECT format('%I.%I', n.nspname, c.relname)"
					  "  FROM pg_index AS i"
					  "  JOIN pg_class AS c ON c.oid = i.indexrelid"
					  "  JOIN pg_namespace AS n ON n.oid = c.relnamespace"
					  " WHERE i.indrelid = $1 AND pg_get_expr(i.indpred, i.indrelid) ~ $2"
					  " ORDER BY i.indexrelid LIMIT 1",
					  lengthof(types), types, values, NULL);
	index = SPI_processed == 0 ? NULL : dmu_catalog_text(0, 1);
	dmu_catalog_end(&query);

	if (index == NULL)
		finding->detail = "none, and none needed";
	else if (doctor->has_facts_index || doctor->facts_index_statements == NULL)
		finding->detail = index;
	else
	{
		finding->status = "warning";
		finding->detail = psprintf("%s alone makes the prioritisation slower: it needs the facts index beside it", index);
		finding->hint = psprintf("DROP INDEX CONCURRENTLY %s; -- and for a faster prioritisation than either:\n%s",
								 index, doctor->facts_index_statements);
	}
}
