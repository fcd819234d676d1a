/*-------------------------------------------------------------------------
 *
 * procedure.c
 *		Which procedure refreshes a datamart user, found by the name in the setting.
 *
 *		Names of procedures can be overloaded.  What a worker's CALL runs is
 *		for the parser to say, so it is asked, and all that is done here is to
 *		judge its answer, and to explain it if there is none.  Knows no tables
 *		and no cycles.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "datamart_users.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parse.h"
#include "parser/parse_func.h"
#include "privilege.h"
#include "procedure.h"
#include "settings.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define PROCEDURE_SETTING DMU_EXTENSION_NAME ".procedure"

/* Can that be called with a key of this type and nothing else? */
static bool
is_refresh_procedure(Oid procedure, Oid argtype)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(procedure));
	Form_pg_proc form;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;

	/* No argument modes: no OUT, INOUT and VARIADIC arguments. */
	form = (Form_pg_proc) GETSTRUCT(tuple);
	result = form->prokind == PROKIND_PROCEDURE &&
		form->pronargs >= 1 &&
		form->proargtypes.values[0] == argtype &&
		form->pronargdefaults >= form->pronargs - 1 &&
		heap_attisnull(tuple, Anum_pg_proc_proargmodes, NULL);
	ReleaseSysCache(tuple);
	return result;
}

/*
 * What CALL would run for one argument of that type, by the parser's own
 * rules, so that no worker can run another one.
 */
static Oid
called_routine(List *names, Oid argtype, bool *ambiguous)
{
	Oid			routine;
	Oid			rettype;
	bool		retset;
	int			nvargs;
	Oid			vatype;
	Oid		   *true_types;
	FuncDetailCode code;

	code = dmu_func_get_detail(names, 1, &argtype, true, true, true,
							   &routine, &rettype, &retset, &nvargs, &vatype,
							   &true_types);
	if (code == FUNCDETAIL_MULTIPLE)
		*ambiguous = true;
	return code == FUNCDETAIL_PROCEDURE ? routine : InvalidOid;
}

/* A syntax error is in the setting, not in the statement that runs. */
static void
type_error_callback(void *arg)
{
	errposition(0);
	errhint("Change the setting " PROCEDURE_SETTING ".");
}

/* InvalidOid if there is no such type. */
static Oid
lookup_type(const char *string)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		oid;
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = type_error_callback,
	};

	error_context_stack = &callback;
	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(string);
	fcinfo->args[0].isnull = false;
	oid = to_regtype(fcinfo);
	error_context_stack = callback.previous;

	return fcinfo->isnull ? InvalidOid : DatumGetObjectId(oid);
}

/* The procedure whose arguments are exactly those, if CALL would run it. */
static Oid
match_procedure(List *names, List *type_names, Oid *argtype, bool *ambiguous)
{
	ObjectWithArgs *wanted = makeNode(ObjectWithArgs);
	Oid			procedure;
	ListCell   *lc;

	wanted->objname = names;
	*argtype = InvalidOid;
	foreach(lc, type_names)
	{
		Oid			type_oid = lookup_type(lfirst(lc));

		if (!OidIsValid(type_oid))
			return InvalidOid;
		if (!OidIsValid(*argtype))
			*argtype = type_oid;
		wanted->objargs = lappend(wanted->objargs,
								  makeTypeNameFromOid(type_oid, -1));
	}

	procedure = LookupFuncWithArgs(OBJECT_ROUTINE, wanted, true);
	if ((*argtype != INT4OID && *argtype != INT8OID) ||
		!is_refresh_procedure(procedure, *argtype))
		return InvalidOid;

	if (called_routine(names, *argtype, ambiguous) == procedure)
		return procedure;
	*ambiguous = true;
	return InvalidOid;
}

/* Of two that would do, the one that takes the key's own type. */
static Oid
choose_procedure(List *names, Oid key_type, Oid *argtype, bool *ambiguous)
{
	Oid			types[2] = {INT4OID, INT8OID};

	if (key_type == INT8OID)
	{
		types[0] = INT8OID;
		types[1] = INT4OID;
	}

	for (int i = 0; i < (int) lengthof(types); i++)
	{
		Oid			procedure = called_routine(names, types[i], ambiguous);

		*argtype = types[i];
		if (is_refresh_procedure(procedure, types[i]))
			return procedure;
	}
	return InvalidOid;
}

/*
 * Is there a procedure, or else a function, of that name?  Without a schema
 * in the search_path, without an argument type of any type.
 */
static bool
routine_exists(Oid schema, const char *name, bool procedure, Oid argtype)
{
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP,
										   CStringGetDatum(name));
	bool		found = false;

	for (int i = 0; i < list->n_members && !found; i++)
	{
		Form_pg_proc form = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		if ((form->prokind == PROKIND_PROCEDURE) != procedure)
			continue;
		if (OidIsValid(argtype) &&
			(form->pronargs < 1 || form->proargtypes.values[0] != argtype))
			continue;
		found = OidIsValid(schema) ? form->pronamespace == schema :
			FunctionIsVisible(form->oid);
	}
	ReleaseSysCacheList(list);
	return found;
}

static void
no_procedure(const char *schema, Oid schema_oid, const char *name,
			 const char *key, bool ambiguous)
{
	bool		searchable = schema == NULL || OidIsValid(schema_oid);

	if (ambiguous)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
				 errmsg("procedure \"%s\" is not unique", dmu_procedure),
				 errdetail("A call with only the %s could run more than one procedure of this name.", key),
				 errhint("Set " PROCEDURE_SETTING " to a procedure that shares its name with no other.")));

	if (searchable && routine_exists(schema_oid, name, true, InvalidOid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("no procedure \"%s\" can be called with a %s",
						dmu_procedure, key),
				 errdetail("Its first argument must be of type integer or bigint, all others must have defaults, and none may be OUT, INOUT or VARIADIC."),
				 errhint("There is a procedure of this name with other arguments. Change it, or the setting " PROCEDURE_SETTING ".")));

	if (searchable && routine_exists(schema_oid, name, false, InvalidOid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a procedure", dmu_procedure),
				 errhint("Use CREATE PROCEDURE, or change the setting " PROCEDURE_SETTING ".")));

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("procedure \"%s\" does not exist", dmu_procedure),
			 errhint("Create it, for example as dwh.update_datamart_user(%s integer), or change the setting " PROCEDURE_SETTING ".", key)));
}

Oid
dmu_procedure_resolve(Oid key_type, const char *key, Oid *argtype)
{
	char	   *schema;
	char	   *name;
	List	   *type_names;
	List	   *names;
	Oid			schema_oid = InvalidOid;
	Oid			procedure = InvalidOid;
	bool		ambiguous = false;

	if (!dmu_parse_procedure(dmu_procedure, &schema, &name, &type_names))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name in setting %s", PROCEDURE_SETTING)));

	names = list_make1(makeString(name));
	if (schema != NULL)
	{
		schema_oid = dmu_privilege_named_schema(schema);
		names = lcons(makeString(schema), names);
	}

	if (schema == NULL || OidIsValid(schema_oid))
		procedure = type_names == NIL ?
			choose_procedure(names, key_type, argtype, &ambiguous) :
			match_procedure(names, type_names, argtype, &ambiguous);

	/* "pg_temp" is no schema by itself, so nothing was looked up in it. */
	if ((schema != NULL && strcmp(schema, "pg_temp") == 0) ||
		(OidIsValid(procedure) &&
		 isAnyTempNamespace(get_func_namespace(procedure))))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("procedure \"%s\" is temporary", dmu_procedure),
				 errdetail("Other processes, such as the workers of a cycle, cannot see it."),
				 errhint("Change the setting " PROCEDURE_SETTING ".")));
	if (!OidIsValid(procedure))
		no_procedure(schema, schema_oid, name, key, ambiguous);
	return procedure;
}

int
dmu_procedure_statement_timeout(Oid procedure)
{
	static const char prefix[] = "statement_timeout=";
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(procedure));
	int			timeout = -1;
	bool		isnull;
	Datum		settings;
	Datum	   *items;
	int			nitems;

	if (!HeapTupleIsValid(tuple))
		return -1;
	settings = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);
	if (!isnull)
	{
		deconstruct_array(DatumGetArrayTypeP(settings), TEXTOID, -1, false,
						  TYPALIGN_INT, &items, NULL, &nitems);
		for (int i = 0; i < nitems; i++)
		{
			const char *item = TextDatumGetCString(items[i]);

			if (strncmp(item, prefix, strlen(prefix)) == 0)
				(void) parse_int(item + strlen(prefix), &timeout,
								 GUC_UNIT_MS, NULL);
		}
	}
	ReleaseSysCache(tuple);
	return timeout;
}

char	   *
dmu_procedure_language(Oid procedure)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(procedure));
	Oid			language;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for procedure %u", procedure);
	language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
	ReleaseSysCache(tuple);
	return get_language_name(language, false);
}
