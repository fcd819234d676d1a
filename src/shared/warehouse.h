/*-------------------------------------------------------------------------
 *
 * warehouse.h
 *		The caller's tables and procedure, resolved from the settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DMU_WAREHOUSE_H
#define DMU_WAREHOUSE_H

#include "postgres.h"

#include "column.h"
#include "privilege.h"

typedef struct DmuWarehouse
{
	Oid			facts;
	Oid			users;
	Oid			procedure;
	Oid			users_key_type; /* a base type */
	Oid			facts_time_type;	/* DATEOID, TIMESTAMPOID or TIMESTAMPTZOID */
	Oid			procedure_argtype;	/* INT4OID or INT8OID */
	char	   *facts_name;		/* schema-qualified and quoted */
	char	   *users_name;		/* schema-qualified and quoted */
	char	   *procedure_name; /* schema-qualified and quoted, no arguments */
	DmuColumn	facts_user;
	DmuColumn	facts_time;
	DmuColumn	users_key;
	DmuColumn	users_flag;
	DmuColumn	users_since;	/* empty if there is none */
} DmuWarehouse;

/*
 * Makes sure of who set the settings (42501, see dmu_privilege_settings), and
 * looks up facts_table, users_table and procedure with the caller's
 * search_path, and the columns in these tables; the result is palloc'd in the current context.  Takes no lock
 * that outlives the call.  Raises, with a hint that names the setting:
 * 42602 invalid_name, 42P01 undefined_table, 42809 wrong_object_type,
 * 42703 undefined_column, 42804 datatype_mismatch, 42883 undefined_function,
 * 42725 ambiguous_function, 55000 for a flag that cannot be updated or a
 * temporary table (no worker can see it).
 */
extern DmuWarehouse *dmu_warehouse_resolve(void);

/*
 * The parts of it, for whoever wants to know all that is wrong: each fills in
 * its own fields, or raises and leaves its Oid as it was; what the settings
 * call the columns is filled in before anything is looked up.  The procedure
 * wants to be the last.  They do not ask whose the settings are.  "need_usage" false finds a qualified name also for
 * a role that may not look into the schema.
 */
extern void dmu_warehouse_examine_facts(DmuWarehouse *warehouse, bool need_usage);
extern void dmu_warehouse_examine_users(DmuWarehouse *warehouse, bool need_usage);
extern void dmu_warehouse_examine_procedure(DmuWarehouse *warehouse);

/*
 * The relation that users_table leads to, InvalidOid if there is none.  Looks
 * at nothing else, and at no privilege.
 */
extern Oid	dmu_warehouse_find_users(void);

/* The qualified and quoted name of a relation, NULL if it has gone. */
extern char *dmu_warehouse_name(Oid relation);

/*
 * The same as dmu_warehouse_resolve() in a process of a cycle, whose datamart
 * is settled: raises 55000 if users_table leads to another relation by now.
 */
extern DmuWarehouse *dmu_warehouse_resolve_again(Oid users);

/*
 * The users table alone, for what concerns the failures of its datamart: the
 * same errors, and those of a role that may not read or clear the flag.  The
 * other parts stay as unknown; palloc'd.
 */
extern DmuWarehouse *dmu_warehouse_resolve_users(void);

/*
 * Raises 42501 insufficient_privilege, with the GRANT to issue as hint, if
 * the current role lacks SELECT on the facts, SELECT and UPDATE on the users
 * table (SELECT on users_since_column, too), EXECUTE on the procedure or USAGE on one of their schemas.  A table
 * privilege on all the columns that are used will do.
 */
extern void dmu_warehouse_check_privileges(const DmuWarehouse *warehouse,
										   bool for_refresh);

/*
 * What the role in "lacking" would be refused for, as far as the parts of the
 * warehouse are known (their Oid is valid).
 */
extern void dmu_warehouse_lacking(const DmuWarehouse *warehouse,
								  DmuLacking *lacking);

/*
 * Locks both relations against changes of their form, until the end of the
 * transaction.  Not their partitions.
 */
extern void dmu_warehouse_lock(const DmuWarehouse *warehouse);

#endif							/* DMU_WAREHOUSE_H */
