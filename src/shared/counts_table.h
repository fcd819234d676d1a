/*-------------------------------------------------------------------------
 *
 * counts_table.h
 *		The table of counts, row by row; a part of counts.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_COUNTS_TABLE_H
#define DMU_COUNTS_TABLE_H

#include "counts.h"

#include "access/tableam.h"
#include "utils/rel.h"

/* Its columns. */
enum
{
	DMU_COUNTS_USERS,
	DMU_COUNTS_FACTS,
	DMU_COUNTS_RUN,
	DMU_COUNTS_AS_OF,
	DMU_COUNTS_FINGERPRINT,
	DMU_COUNTS_ENTRIES,
	DMU_COUNTS_NCOLUMNS
};

/* One row of the table. */
typedef struct DmuCountChunk
{
	ItemPointerData tid;
	bool		ours;			/* of these users and facts, or of nobody */
	bool		valid;			/* and can be compared with */
	int64		run;
	int64		n;				/* entries */
	bytea	   *entries;		/* where "valid" */
} DmuCountChunk;

/*
 * Opens the table; NULL if that needs waiting, or if it is not as we have made
 * it.
 */
extern Relation dmu_counts_open(LOCKMODE lockmode);

/* The next row of a scan; false if there are no more. */
extern bool dmu_counts_next(const DmuCounts *counts, Relation relation,
							TableScanDesc scan, DmuCountChunk *chunk);

#endif							/* DMU_COUNTS_TABLE_H */
