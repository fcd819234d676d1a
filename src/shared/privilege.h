/*-------------------------------------------------------------------------
 *
 * privilege.h
 *		What the current role may not do.
 *
 *		Those that take a DmuLacking ask for the role in it, and add what that
 *		role lacks to its list.  Where it is NULL, and all others: they ask for
 *		the current role and return, or raise 42501 insufficient_privilege with
 *		the GRANT to run as hint.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_PRIVILEGE_H
#define DMU_PRIVILEGE_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/acl.h"

/* A role, and what it lacks: "SELECT (a, b) ON c", palloc'd, none twice. */
typedef struct DmuLacking
{
	Oid			role;
	List	   *grants;
} DmuLacking;

/* USAGE on a schema. */
extern void dmu_privilege_schema(Oid schema, DmuLacking *lacking);

/*
 * The same for the schema of a qualified name, before anything is looked up
 * in it: there the server would refuse without a hint.  InvalidOid if there
 * is no such schema.
 */
extern Oid	dmu_privilege_named_schema(const char *schema);

/*
 * SELECT or UPDATE on the relation, or else on each of the columns; the
 * second may be NULL.  "name" is qualified and quoted.
 */
extern void dmu_privilege_relation(Oid relation, const char *name,
								   AclMode mode, const char *column1,
								   const char *column2, DmuLacking *lacking);

/* EXECUTE on a procedure. */
extern void dmu_privilege_procedure(Oid procedure, DmuLacking *lacking);

/*
 * May the current role read a table or view of the extension's "schema" by
 * itself?
 */
extern bool dmu_privilege_may_read(Oid schema, const char *table);

/* Has it the rights of a role that was written down by name? */
extern bool dmu_privilege_has_role(const char *role_name);

/*
 * Whoever set one of the settings that decide what a cycle runs, or for how
 * long it leaves out whoever fails, must be able to become the current role
 * anyway.  Else a SECURITY DEFINER function would lend the rights of its owner
 * to the SQL of whoever may call it, and the owner of a database those of
 * whoever works in it.
 */
extern void dmu_privilege_settings(void);

#endif							/* DMU_PRIVILEGE_H */
