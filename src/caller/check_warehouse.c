/*-------------------------------------------------------------------------
 *
 * check_warehouse.c
 *		The doctor on the tables and the procedure that the settings name.
 *
 *		Asks the functions that a cycle asks, one part after the other, and
 *		shows what they raise; here is only what is said of a part that will do.
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include "access/htup_details.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "compat.h"
#include "miscadmin.h"
#include "parse.h"
#include "procedure.h"
#include "settings.h"
#include "text.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

/* What kind of relation it is, and how large the server thinks it to be. */
static char *
describe_relation(Oid relation, const char *name)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Form_pg_class form;
	const char *kind = "a table";
	const char *rows = "";

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relation);
	form = (Form_pg_class) GETSTRUCT(tuple);
	if (form->relkind == RELKIND_PARTITIONED_TABLE)
		kind = "a partitioned table";
	else if (form->relkind == RELKIND_VIEW)
		kind = "a view";
	else if (form->relkind == RELKIND_MATVIEW)
		kind = "a materialized view";
	else if (form->relkind == RELKIND_FOREIGN_TABLE)
		kind = "a foreign table";
	if (form->relkind != RELKIND_VIEW)
		rows = form->reltuples < 0 ? ", never analyzed" :
			psprintf(ngettext(" with about %s row", " with about %s rows",
							  (unsigned long) form->reltuples),
					 dmu_text_number((int64) form->reltuples));
	ReleaseSysCache(tuple);
	return psprintf("%s, %s%s", name, kind, rows);
}

void
dmu_check_facts_table(DmuDoctor *doctor, DmuFinding *finding)
{
	DmuWarehouse *warehouse = &doctor->warehouse;

	dmu_warehouse_examine_facts(warehouse, false);
	finding->detail = describe_relation(warehouse->facts, warehouse->facts_name);
}

void
dmu_check_users_table(DmuDoctor *doctor, DmuFinding *finding)
{
	DmuWarehouse *warehouse = &doctor->warehouse;

	dmu_warehouse_examine_users(warehouse, false);
	finding->detail = describe_relation(warehouse->users, warehouse->users_name);
}

/* A name that leads nowhere may be that of another table that is there. */
static void
advise_table(DmuFinding *finding, const char *kinds, const char *column1,
			 const char *column2)
{
	char	   *candidate;

	if (finding->sqlerrcode != ERRCODE_UNDEFINED_TABLE || finding->hint == NULL)
		return;
	candidate = dmu_catalog_candidate(kinds, column1, column2);
	if (candidate != NULL)
		finding->hint = psprintf("%s\n%s", finding->hint, candidate);
}

void
dmu_advise_facts_table(DmuDoctor *doctor, DmuFinding *finding)
{
	advise_table(finding, "rpvmf", doctor->warehouse.facts_user.name,
				 doctor->warehouse.facts_time.name);
}

void
dmu_advise_users_table(DmuDoctor *doctor, DmuFinding *finding)
{
	advise_table(finding, "rpvf", doctor->warehouse.users_key.name,
				 doctor->warehouse.users_flag.name);
}

Oid
dmu_check_procedure_schema(void)
{
	char	   *schema;
	char	   *name;
	List	   *argtypes;

	if (!dmu_parse_procedure(dmu_procedure, &schema, &name, &argtypes) ||
		schema == NULL)
		return InvalidOid;
	return get_namespace_oid(schema, true);
}

void
dmu_check_procedure(DmuDoctor *doctor, DmuFinding *finding)
{
	Oid			schema = dmu_check_procedure_schema();
	const char *language;

	/* For the parser to find it, one must be able to look into the schema. */
	if (OidIsValid(schema) &&
		dmu_schema_aclcheck(schema, GetUserId(), ACL_USAGE) != ACLCHECK_OK)
	{
		finding->detail = psprintf("not looked at, for want of USAGE on schema %s",
								   quote_identifier(get_namespace_name(schema)));
		return;
	}

	dmu_warehouse_examine_procedure(&doctor->warehouse);
	finding->detail = format_procedure_qualified(doctor->warehouse.procedure);
	language = dmu_procedure_language(doctor->warehouse.procedure);
	if (strcmp(language, "plpgsql") == 0 || strcmp(language, "sql") == 0)
		return;
	finding->status = "warning";
	finding->detail = psprintf("%s is in language %s: a cancel or a time limit ends it only when it comes back to the server, by a query or a message; a signal may cut short what it waits for outside",
							   finding->detail, language);
	finding->hint = "-- let it wait for nothing outside the server for long";
}
