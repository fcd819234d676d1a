/*-------------------------------------------------------------------------
 *
 * catalog.h
 *		Queries on the system catalogs, as the caller.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_CATALOG_H
#define DMU_CATALOG_H

#include "postgres.h"

#include "nodes/pg_list.h"

/* What to go back to when the result has been read. */
typedef struct DmuCatalogQuery
{
	MemoryContext spi_context;
	int			guc_level;
} DmuCatalogQuery;

/*
 * Runs a query with nothing but pg_catalog in the search_path, and goes on in
 * "context", where what is read from the result is palloc'd; and back.  There
 * are SPI_processed rows.  An error in between needs no clean-up of its own
 * but the end of the transaction or subtransaction.  "nulls" as SPI has it.
 */
extern void dmu_catalog_begin(DmuCatalogQuery *query, MemoryContext context,
							  const char *sql, int nparams, Oid *types,
							  Datum *values, const char *nulls);
extern void dmu_catalog_end(DmuCatalogQuery *query);

/* A column of the result as text, NULL if it is null. */
extern char *dmu_catalog_text(uint64 row, int column);

/* A column of a type that is passed by value, 0 if it is null. */
extern Datum dmu_catalog_datum(uint64 row, int column);

/*
 * The first three of some names in one line; of the others, how many they are
 * or that there are some.
 */
extern char *dmu_catalog_list(List *names, bool count_others);

/*
 * A comment that names the oldest relation with these two columns and its
 * owner, NULL if there is none; "kinds" are relkinds.
 */
extern char *dmu_catalog_candidate(const char *kinds, const char *column1,
								   const char *column2);

#endif							/* DMU_CATALOG_H */
