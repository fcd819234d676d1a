/*-------------------------------------------------------------------------
 *
 * rewrites.h
 *		Relations emptied, rewritten or replaced under the snapshot of a
 *		refresh.
 *
 *		The calls for one attempt, in their order: dmu_rewrites_begin();
 *		dmu_rewrites_check() as the last thing before the commit; after an
 *		error instead dmu_rewrites_catch() before the abort, and
 *		dmu_rewrites_explain() after it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_REWRITES_H
#define DMU_REWRITES_H

#include "postgres.h"

/*
 * Has the server tell this process of relations that change their form.  Once
 * in the life of a process that is to end with it; a second call does nothing.
 */
extern void dmu_rewrites_init(void);

/* Forgets what the attempts for the datamart user before this one met. */
extern void dmu_rewrites_reset(void);

/*
 * Begins an attempt: locks the relations that were rewritten under the ones
 * before it, so that these stay as they are until its end.  May wait, and
 * raise what waiting for a lock raises.
 */
extern void dmu_rewrites_begin(void);

/* Takes the snapshot of the transaction, and begins to listen. */
extern void dmu_rewrites_listen(void);

/*
 * Ends to listen, in a transaction that has read all that it will read.
 * Raises 40001 if a relation that it may have read is not the one that its
 * snapshot knows.  Touches no catalog if nothing was heard.
 */
extern void dmu_rewrites_check(void);

/* True if that raised its error in this attempt. */
extern bool dmu_rewrites_raised(void);

/*
 * For PG_CATCH, before the transaction is aborted.  False if the error had
 * certainly nothing to do with a relation that was rewritten.  Raises nothing.
 */
extern bool dmu_rewrites_catch(void);

/*
 * If that was true, in a transaction after it: may the error be due to one?
 */
extern bool dmu_rewrites_explain(void);

#endif							/* DMU_REWRITES_H */
