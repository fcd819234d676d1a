/*-------------------------------------------------------------------------
 *
 * check_indexes.c
 *		The doctor on the indexes that prioritisation and flag update want.
 *
 *		A cycle works without them, and does not ask for them; so what they
 *		are is known here only.
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include <ctype.h>

#include "below.h"
#include "catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "indexes.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* What was found of the tables below a view. */
typedef struct Below
{
	int			ntables;		/* that could have an index */
	List	   *missing;		/* what has none: text */
	StringInfoData statements;
} Below;

/* True if the relation, or each of its partitions that is a table, has one. */
static bool
all_have_index(const List *parts)
{
	const ListCell *lc;
	bool		some = false;

	if (dmu_indexes_has_valid(linitial(parts)))
		return true;
	foreach(lc, parts)
	{
		const DmuPart *part = lfirst(lc);

		if (part->kind != RELKIND_RELATION && part->kind != RELKIND_MATVIEW)
			continue;
		if (!dmu_indexes_has_valid(part))
			return false;
		some = true;
	}
	return some;
}

/* "other" may be NULL. */
static void
look_below(DmuDoctor *doctor, const DmuColumnBelow *key, const char *other,
		   Below *below)
{
	List	   *parts;
	char	   *columns;

	if (!dmu_indexes_possible(get_rel_relkind(key->relid)))
		return;
	below->ntables++;
	parts = dmu_indexes_find(doctor->context, key->relid, key->name, other);
	if (parts == NIL || all_have_index(parts))
		return;
	columns = pstrdup(quote_identifier(key->name));
	if (other !=NULL)
		columns = psprintf("%s, %s", columns, quote_identifier(other));
	below->missing = lappend(below->missing,
							 psprintf("%s (%s)", key->relation, columns));
	appendStringInfo(&below->statements, "%s%s",
					 below->statements.len > 0 ? "\n" : "",
					 dmu_indexes_statements(parts, columns,
											other !=NULL ? "user_action_at" : "key", false));
}

/* The column of that table, NULL if it has none. */
static const char *
column_of(const List *columns, Oid relid)
{
	const ListCell *lc;

	foreach(lc, columns)
	{
		const DmuColumnBelow *column = lfirst(lc);

		if (column->relid == relid)
			return column->name;
	}
	return NULL;
}

/*
 * A view has no index, but what it reads may.  "at" is NULL where only the
 * key is looked up; "cost" is what the lack of an index means.
 */
static void
check_below(DmuDoctor *doctor, Oid view, const DmuColumn *key,
			const DmuColumn *at, const char *cost, Below *below,
			DmuFinding *finding)
{
	const char *name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(view)),
												  get_rel_name(view));
	List	   *keys = dmu_below_column(view, key->name);
	List	   *times = at == NULL ? NIL : dmu_below_column(view, at->name);
	ListCell   *lc;

	memset(below, 0, sizeof(Below));
	initStringInfo(&below->statements);
	foreach(lc, keys)
	{
		const DmuColumnBelow *column = lfirst(lc);

		look_below(doctor, column, column_of(times, column->relid), below);
	}
	if (below->missing != NIL)
	{
		finding->status = "warning";
		finding->detail = psprintf("below %s there is no index on %s: %s", name,
								   dmu_catalog_list(below->missing, true), cost);
		finding->hint = below->statements.data;
	}
	else if (below->ntables > 0)
		finding->detail = psprintf("on all tables below %s", name);
	else if (keys != NIL)
		finding->detail = psprintf("not looked at: below %s there are tables of other servers", name);
	else
		finding->detail = psprintf("not looked at: %s computes %s, so no plain index helps; one on the expression may",
								   name, key->quoted);
}

/* What the facts want to be indexed by, as CREATE INDEX has it. */
static char *
facts_columns(const DmuDoctor *doctor)
{
	return psprintf("%s, %s", doctor->warehouse.facts_user.quoted,
					doctor->warehouse.facts_time.quoted);
}

static void
check_facts_below(DmuDoctor *doctor, DmuFinding *finding)
{
	Below		below;

	check_below(doctor, doctor->warehouse.facts,
				&doctor->warehouse.facts_user, &doctor->warehouse.facts_time,
				"the prioritisation has to read the facts themselves", &below,
				finding);
	doctor->has_facts_index = below.ntables > 0 && below.missing == NIL;
	if (below.missing != NIL)
		doctor->facts_index_statements = below.statements.data;
}

void
dmu_check_facts_index(DmuDoctor *doctor, DmuFinding *finding)
{
	Oid			facts = doctor->warehouse.facts;
	const char *name = doctor->warehouse.facts_name;
	char	   *columns;
	List	   *parts;
	DmuPart    *root;
	ListCell   *lc;

	if (!OidIsValid(facts))
	{
		finding->detail = "not looked at, for want of a facts table";
		return;
	}
	columns = facts_columns(doctor);
	if (get_rel_relkind(facts) == RELKIND_VIEW)
	{
		check_facts_below(doctor, finding);
		return;
	}
	if (!dmu_indexes_possible(get_rel_relkind(facts)))
	{
		finding->detail = psprintf("not looked at: the tables behind %s need an index on (%s)",
								   name, columns);
		return;
	}

	parts = dmu_indexes_find(doctor->context, facts,
							 doctor->warehouse.facts_user.name,
							 doctor->warehouse.facts_time.name);
	if (parts == NIL)
		elog(ERROR, "cache lookup failed for relation %u", facts);
	root = linitial(parts);
	doctor->facts_partitioned = root->kind == RELKIND_PARTITIONED_TABLE;
	doctor->facts_index_attached = dmu_indexes_has_valid(root);
	foreach(lc, parts)
	{
		const DmuPart *part = lfirst(lc);

		if (part->kind == RELKIND_FOREIGN_TABLE)
			doctor->has_foreign_partition = true;
		if (!doctor->facts_partitioned || part->kind != RELKIND_RELATION)
			continue;
		doctor->npartitions++;
		if (!dmu_indexes_has_valid(part))
			doctor->partitions_without = lappend(doctor->partitions_without,
												 part->name);
	}
	doctor->has_facts_index = doctor->facts_index_attached ||
		doctor->npartitions > list_length(doctor->partitions_without);
	if (!doctor->facts_index_attached)
		doctor->facts_index_statements =
			dmu_indexes_statements(parts, columns, "user_action_at", false);

	if (doctor->facts_partitioned && doctor->npartitions == 0)
		finding->detail = psprintf("none needed, %s has no partitions", name);
	else if (doctor->has_facts_index)
		finding->detail = root->indexes == NIL ? "on partitions" :
			((DmuIndex *) linitial(root->indexes))->name;
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
	char	   *all_have = doctor->npartitions == 1 ?
	pstrdup("the only partition has the index") :
	psprintf("all %d partitions have the index", doctor->npartitions);

	if (!OidIsValid(doctor->warehouse.facts))
		finding->detail = "not looked at, for want of a facts table";
	else if (!doctor->facts_partitioned)
		finding->detail = psprintf("%s is not partitioned", name);
	else if (!doctor->has_facts_index)
		finding->detail = psprintf(ngettext("%d partition, see facts index",
											"%d partitions, see facts index",
											doctor->npartitions),
								   doctor->npartitions);
	else if (nwithout > 0)
	{
		finding->status = "warning";
		finding->detail = psprintf(ngettext("%d of %d partitions lacks the index on (%s): %s",
											"%d of %d partitions lack the index on (%s): %s",
											nwithout),
								   nwithout, doctor->npartitions,
								   facts_columns(doctor),
								   dmu_catalog_list(doctor->partitions_without, false));
		finding->hint = doctor->facts_index_statements;
	}
	else if (!doctor->facts_index_attached && !doctor->has_foreign_partition)
	{
		finding->status = "warning";
		finding->detail = psprintf("%s, but %s has not: new partitions will come without it",
								   all_have, name);
		finding->hint = doctor->facts_index_statements;
	}
	else
		finding->detail = all_have;
}

void
dmu_check_users_index(DmuDoctor *doctor, DmuFinding *finding)
{
	Oid			users = doctor->warehouse.users;
	const char *name = doctor->warehouse.users_name;
	const DmuColumn *key = &doctor->warehouse.users_key;
	List	   *parts;
	DmuPart    *root;

	if (!OidIsValid(users))
	{
		finding->detail = "not looked at, for want of a users table";
		return;
	}
	if (get_rel_relkind(users) == RELKIND_VIEW)
	{
		Below		below;

		check_below(doctor, users, key, NULL,
					"each refresh reads the whole table to clear one flag",
					&below, finding);
		return;
	}
	if (!dmu_indexes_possible(get_rel_relkind(users)))
	{
		finding->detail = psprintf("not looked at: the table behind %s needs an index on %s",
								   name, key->quoted);
		return;
	}

	parts = dmu_indexes_find(doctor->context, users, key->name, NULL);
	if (parts == NIL)
		elog(ERROR, "cache lookup failed for relation %u", users);
	root = linitial(parts);
	if (dmu_indexes_has_valid(root))
	{
		finding->detail = ((DmuIndex *) linitial(root->indexes))->name;
		return;
	}
	finding->status = "warning";
	finding->detail = psprintf("no index on %s (%s): each refresh reads the whole table to clear one flag",
							   name, key->quoted);
	finding->hint = dmu_indexes_statements(parts, key->quoted, "key", true);
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
