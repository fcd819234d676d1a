/*-------------------------------------------------------------------------
 *
 * below.h
 *		Which column of which table a column of a view is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_BELOW_H
#define DMU_BELOW_H

#include "postgres.h"

#include "nodes/pg_list.h"

/* A column of a relation that is no view. */
typedef struct DmuColumnBelow
{
	Oid			relid;
	char	   *relation;		/* qualified and quoted */
	char	   *name;			/* of the column, as it is in the catalog */
} DmuColumnBelow;

/*
 * Those that a column of a view shows unchanged, through other views, joins,
 * subqueries and both sides of a UNION, each once; NIL if it computes it.  Of
 * any other relation the column itself.  Palloc'd.  Locks the views on the way
 * for as long as it looks at them.
 */
extern List *dmu_below_column(Oid relid, const char *column);

#endif							/* DMU_BELOW_H */
