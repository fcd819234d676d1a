/*-------------------------------------------------------------------------
 *
 * relforms.h
 *		Relations as two snapshots see them: that of the transaction, and the
 *		latest one.
 *
 *		Both as if our own transaction had changed nothing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_RELFORMS_H
#define DMU_RELFORMS_H

#include "postgres.h"

#include "access/genam.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* A relation as a snapshot sees it. */
typedef struct DmuRelform
{
	bool		exists;
	char		kind;			/* of pg_class, like all that follows */
	Oid			relfilenode;
	Oid			schema;
	NameData	name;
	List	   *parents;		/* of which it is a child or partition */
	TransactionId query;		/* that has written the query of a view */
} DmuRelform;

/* The catalogs, and the snapshots; owned by dmu_relforms_open(). */
typedef struct DmuRelforms
{
	Relation	classes;
	Relation	inheritance;
	Snapshot	ours;
	Snapshot	latest;
	List	   *renamed;		/* schemas; see dmu_relforms_find_renamed() */
} DmuRelforms;

/* Makes two snapshots active; dmu_relforms_close() ends that. */
extern void dmu_relforms_open(DmuRelforms *forms);
extern void dmu_relforms_close(DmuRelforms *forms);

/* Parents are palloc'd in the current context. */
extern DmuRelform dmu_relforms_get(const DmuRelforms *forms, Oid relid,
								   Snapshot snapshot);

/* A scan of pg_class for one relation; NULL is the snapshot of the catalog. */
extern SysScanDesc dmu_relforms_scan(Relation classes, Oid relid,
									 Snapshot snapshot);

/*
 * Looks for schemas that have got another name, and their relations with it.  Returns false if there are none.
 */
extern bool dmu_relforms_find_renamed(DmuRelforms *forms);

/* A table or a view, of whatever kind. */
extern bool dmu_relforms_has_rows(char kind);

/*
 * The relation, which is there after, is another one than before: other rows,
 * another query of a view, or it has taken a name or a place among partitions that was another one's.
 * One that was not there before was created since.
 */
extern bool dmu_relforms_differ(const DmuRelforms *forms,
								const DmuRelform *before,
								const DmuRelform *after);

#endif							/* DMU_RELFORMS_H */
