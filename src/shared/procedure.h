/*-------------------------------------------------------------------------
 *
 * procedure.h
 *		Which procedure refreshes a datamart user; a part of warehouse.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PROCEDURE_H
#define DMU_PROCEDURE_H

#include "postgres.h"

/*
 * The procedure of the setting, looked up with the caller's search_path.
 * "key_type" is the type of the users table's key column, "key" its quoted
 * name for messages; "argtype" gets the type of the procedure's first argument.  Raises what dmu_warehouse_resolve() says.
 */
extern Oid	dmu_procedure_resolve(Oid key_type, const char *key,
								  Oid *argtype);

/*
 * What its own SET clause gives statement_timeout, milliseconds; -1 if there
 * is no such clause.
 */
extern int	dmu_procedure_statement_timeout(Oid procedure);

/* The name of its language, palloc'd. */
extern char *dmu_procedure_language(Oid procedure);

#endif							/* DMU_PROCEDURE_H */
