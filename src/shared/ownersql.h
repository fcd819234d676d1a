/*-------------------------------------------------------------------------
 *
 * ownersql.h
 *		SQL on the extension's own tables, in the name of their owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_OWNERSQL_H
#define DMU_OWNERSQL_H

#include "postgres.h"

#include "executor/spi.h"
#include "param.h"
#include "utils/relcache.h"

/* What to go back to when our SQL has run. */
typedef struct DmuOwnerScope
{
	Oid			role;
	int			security_context;
	int			guc_level;
	bool		pushed_snapshot;
	Oid			schema_oid;		/* of the extension */
	char	   *schema;			/* the same, quoted */
	char	   *newer;			/* version of its script, if newer than the
								 * library; else NULL */
} DmuOwnerScope;

/*
 * The role that owns the extension's tables; 55000 if there is none, or if
 * they are of a script older than this library, 42501 if it may not look into
 * their schema.
 */
extern Oid	dmu_owner_role(void);

/*
 * Keeps the extension from being dropped until the process ends.  An aborted
 * transaction undoes that, so to be called again after one; raises 55000 if
 * the extension has gone meanwhile, or if somebody is about to drop it: it
 * never waits for that.  Needs a transaction.
 */
extern void dmu_owner_protect(void);

/* The same, but false in the latter case. */
extern bool dmu_owner_try_protect(void);

/* Gives it up, for good if somebody waits for that.  No transaction is open. */
extern void dmu_owner_unprotect(void);

/* True if somebody waits for the lock on the extension; needs no transaction. */
extern bool dmu_owner_is_wanted(void);

/* False if dmu_owner_protect() has to be called; cheap, and needs no transaction. */
extern bool dmu_owner_is_protected(void);

/*
 * Becomes the owner, with nothing but pg_catalog in the search_path, connects
 * to SPI and makes sure of a snapshot; and back.  Needs a transaction.  Waits
 * ten seconds at the most for any lock (55P03).  An
 * error in between needs no clean-up of its own: the end of the transaction
 * or subtransaction gives back role and settings.
 */
extern void dmu_owner_enter(DmuOwnerScope *scope);
extern void dmu_owner_leave(DmuOwnerScope *scope);

/*
 * Runs one statement; every %s in it stands for the extension's schema.  It
 * sees everything committed until now, unless the transaction has a fixed
 * snapshot.  Raises an error if its SPI result is not the expected one, and
 * 55000 if a table behind a %s has a trigger, a rule or a policy that would
 * run as the owner.
 */
extern void dmu_owner_run(const DmuOwnerScope *scope, const char *format,
						  int expected, int nparams, const DmuParam *params);

/*
 * The same for a query that is to see what is committed now, whatever
 * snapshot the transaction has.
 */
extern void dmu_owner_read_latest(const DmuOwnerScope *scope,
								  const char *format,
								  int nparams, const DmuParam *params);

/*
 * As dmu_owner_run(), for a query with many rows: they go to "dest" one by
 * one, in the executor's memory context.
 */
extern void dmu_owner_read(const DmuOwnerScope *scope, const char *format,
						   int nparams, const DmuParam *params,
						   DestReceiver *dest);

/*
 * Opens a table for reading without SQL, with the lock that a statement would
 * take until the end of the transaction, and with the errors of
 * dmu_owner_run().
 */
extern Relation dmu_owner_open(const DmuOwnerScope *scope, const char *name);

/* A column of a statement's result; a value that is never null. */
extern Datum dmu_owner_value(SPITupleTable *table, uint64 row, int column);

#endif							/* DMU_OWNERSQL_H */
