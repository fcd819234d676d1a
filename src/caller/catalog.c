/*-------------------------------------------------------------------------
 *
 * catalog.c
 *		Queries on the system catalogs, as the caller.
 *
 *		They run with nothing but pg_catalog in the search_path, so no name in
 *		them can lead to what somebody else has created: the caller may be a
 *		superuser.  The file does not know what the answers are for.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "text.h"
#include "utils/builtins.h"
#include "utils/guc.h"

/* Names that are listed in one line. */
#define MAX_LISTED 3

void
dmu_catalog_begin(DmuCatalogQuery *query, MemoryContext context,
				  const char *sql, int nparams, Oid *types, Datum *values,
				  const char *nulls)
{
	int			result;

	query->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	SPI_connect();
	result = SPI_execute_with_args(sql, nparams, types, values, nulls, true, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(result), sql);
	query->spi_context = MemoryContextSwitchTo(context);
}

void
dmu_catalog_end(DmuCatalogQuery *query)
{
	MemoryContextSwitchTo(query->spi_context);
	SPI_finish();
	AtEOXact_GUC(false, query->guc_level);
}

char	   *
dmu_catalog_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

Datum
dmu_catalog_datum(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row],
									  SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? (Datum) 0 : value;
}

char	   *
dmu_catalog_list(List *names, bool count_others)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, names)
	{
		int			i = foreach_current_index(lc);

		if (i == MAX_LISTED && count_others)
			appendStringInfo(&text, " and %d more", list_length(names) - i);
		else if (i == MAX_LISTED)
			appendStringInfoString(&text, ", ...");
		if (i == MAX_LISTED)
			break;
		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "", (char *) lfirst(lc));
	}
	return text.data;
}

/* Whoever made it may want it to be taken: so it is named, and no more. */
char	   *
dmu_catalog_candidate(const char *kinds, const char *column1,
					  const char *column2)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[3] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3];
	DmuCatalogQuery query;
	char	   *candidate = NULL;

	values[0] = CStringGetTextDatum(kinds);
	values[1] = CStringGetTextDatum(column1);
	values[2] = CStringGetTextDatum(column2);
	dmu_catalog_begin(&query, context,
					  "SELECT format('%I.%I', n.nspname, c.relname),"
					  "       quote_ident(pg_get_userbyid(c.relowner))"
					  "  FROM pg_class AS c"
					  "  JOIN pg_namespace AS n ON n.oid = c.relnamespace"
					  " WHERE strpos($1, c.relkind::text) > 0"
					  "   AND c.relpersistence <> 't'"
					  "   AND NOT c.relispartition"
					  "   AND (SELECT count(*) FROM pg_attribute AS a"
					  "         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
					  "           AND a.attname::text IN ($2, $3)) = 2"
					  " ORDER BY c.oid LIMIT 1",
					  lengthof(types), types, values, NULL);
	if (SPI_processed > 0)
		candidate = psprintf("-- %s has the columns %s and %s, and belongs to role %s",
							 dmu_text_line(dmu_catalog_text(0, 1), 0),
							 dmu_text_line(quote_identifier(column1), 0),
							 dmu_text_line(quote_identifier(column2), 0),
							 dmu_text_line(dmu_catalog_text(0, 2), 0));
	dmu_catalog_end(&query);
	return candidate;
}
