/*-------------------------------------------------------------------------
 *
 * indexes.h
 *		The indexes of a relation and its partitions, and statements that add
 *		those that are wanted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_INDEXES_H
#define DMU_INDEXES_H

#include "postgres.h"

#include "nodes/pg_list.h"

/* An index that finds rows by the wanted columns. */
typedef struct DmuIndex
{
	Oid			oid;
	char	   *name;			/* qualified */
	Oid			parent;			/* InvalidOid if it is part of none */
	bool		valid;
	bool		exact;			/* those columns, in that order, nothing else */
	bool		unique;
} DmuIndex;

/* A relation, or one in its partition tree. */
typedef struct DmuPart
{
	Oid			oid;
	char	   *name;			/* qualified */
	Oid			parent;			/* InvalidOid for the root */
	char		kind;
	Oid			schema;
	List	   *indexes;		/* of DmuIndex, the best first */

	/* For the statements: the index that it has or will have. */
	Oid			index;			/* InvalidOid: will have */
	char	   *index_name;
} DmuPart;

/* True for a kind of relation (relkind) that can have indexes. */
extern bool dmu_indexes_possible(char kind);

/*
 * The relation and its partitions, parents first, each with its indexes that
 * begin with the column "key" and have "other" too unless that is NULL; of
 * DmuPart, palloc'd in "context".  Runs a query as the caller.
 */
extern List *dmu_indexes_find(MemoryContext context, Oid relation,
							  const char *key, const char *other);

/* Valid ones come first. */
extern bool dmu_indexes_has_valid(const DmuPart *part);

/*
 * Statements that index a relation and all of its partitions without keeping
 * writers waiting, by the columns of the list, which is SQL.  Palloc'd.
 */
extern char *dmu_indexes_statements(List *parts, const char *columns,
									const char *purpose, bool unique);

#endif							/* DMU_INDEXES_H */
