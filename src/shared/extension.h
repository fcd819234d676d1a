/*-------------------------------------------------------------------------
 *
 * extension.h
 *		The extension as this database has it.
 *
 *		What reads the catalog needs a transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_EXTENSION_H
#define DMU_EXTENSION_H

#include "postgres.h"

/*
 * The extension's schema, InvalidOid if the extension is not there; and the
 * version of its script, palloc'd, where "version" is not NULL.
 */
extern Oid	dmu_extension_schema(char **version);

/* Below 0 where the script is older than this library, above 0 where newer. */
extern int	dmu_extension_compare(const char *version);

/* Raises 55000 for a script of that version, if it is older. */
extern void dmu_extension_refuse_older(const char *version);

/*
 * ErrorContextCallback, for SQL on the tables of a script whose version, "arg",
 * is newer.  What they do not take, or have no more, is told by an error that
 * says nothing of versions.
 */
extern void dmu_extension_explain_newer(void *arg);

/*
 * What to do about a script of another version than this library, palloc'd;
 * NULL if both are of the same, or there is no extension.  "newer" tells which
 * one is, and may be NULL.
 */
extern char *dmu_extension_version_hint(bool *newer);

#endif							/* DMU_EXTENSION_H */
