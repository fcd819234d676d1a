/*-------------------------------------------------------------------------
 *
 * check.c
 *		The SQL-callable doctor: the order of its examinations, that of the
 *		privileges, and what becomes of errors.
 *
 *		What a cycle would refuse, the doctor must call an error, and nothing
 *		else: so it asks the very functions that a cycle asks, and shows what
 *		they raise.  It runs as its caller; only the history is read as the
 *		owner (check_history.c).
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "extension.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "privilege.h"
#include "settings.h"
#include "storage/proc.h"
#include "text.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(datamart_users_check);

/*
 * How long an examination waits for a lock, in milliseconds: the doctor is
 * asked when something stands still, and must not stand still beside it.
 */
#define LOCK_WAIT 2000

static void
check_server(DmuDoctor *doctor, DmuFinding *finding)
{
	bool		newer;
	const char *hint = dmu_extension_version_hint(&newer);

	finding->detail = psprintf("PostgreSQL %s",
							   GetConfigOption("server_version", false, false));
	if (RecoveryInProgress())
	{
		finding->status = "error";
		finding->detail = "this is a standby: cycles run on the primary server";
	}
	else if (newer)
	{
		finding->status = "warning";
		finding->detail = psprintf("%s, but the library of this session is older than the extension",
								   finding->detail);
		finding->hint = psprintf("-- %s", hint);
	}
}

/* Both functions that start a cycle; one of them is enough. */
static void
ask_functions(const DmuDoctor *doctor, DmuLacking *lacking)
{
	static const char *const names[] = {
		"datamart_users_run_cycle", "datamart_users_start_cycle"
	};
	static const Oid types[] = {INT4OID, INT4OID, INTERVALOID};
	oidvector  *arguments = buildoidvector(types, lengthof(types));
	const char *schema = quote_identifier(get_namespace_name(doctor->schema));

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		Oid			function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
											   CStringGetDatum(names[i]),
											   PointerGetDatum(arguments),
											   ObjectIdGetDatum(doctor->schema));

		if (OidIsValid(function) &&
			dmu_procedure_aclcheck(function, doctor->role,
								   ACL_EXECUTE) == ACLCHECK_OK)
			return;
	}
	lacking->grants = lappend(lacking->grants,
							  psprintf("EXECUTE ON FUNCTION %s.%s(integer, integer, interval), %s.%s(integer, integer, interval)",
									   schema, names[0], schema, names[1]));
}

/* Which objects are not known, so that nobody can say who may use them. */
static char *
unknown_objects(const DmuWarehouse *warehouse)
{
	StringInfoData text;

	initStringInfo(&text);
	if (!OidIsValid(warehouse->facts))
		appendStringInfoString(&text, ", facts table");
	if (!OidIsValid(warehouse->users))
		appendStringInfoString(&text, ", users table");
	if (!OidIsValid(warehouse->procedure))
		appendStringInfoString(&text, ", procedure");
	return text.len == 0 ? NULL : text.data + strlen(", ");
}

/* It lacks nothing; but what the procedure does inside, nobody can see. */
static void
praise_role(const DmuDoctor *doctor, DmuFinding *finding)
{
	const char *role = quote_identifier(doctor->role_name);
	const char *procedure = doctor->warehouse.procedure_name;
	HeapTuple	tuple = SearchSysCache1(PROCOID,
										ObjectIdGetDatum(doctor->warehouse.procedure));
	bool		lends;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for procedure %u",
			 doctor->warehouse.procedure);
	lends = ((Form_pg_proc) GETSTRUCT(tuple))->prosecdef;
	ReleaseSysCache(tuple);

	if (superuser_arg(doctor->role))
		finding->detail = psprintf("role %s has all that a cycle needs", role);
	else if (lends)
		finding->detail = psprintf("role %s has all that a cycle needs; what %s does is up to the rights of its owner",
								   role, procedure);
	else
	{
		finding->detail = psprintf("role %s has all that a cycle needs; whether it may do what %s does inside, which runs with its rights, only a rehearsal shows",
								   role, procedure);
		finding->hint = psprintf("SELECT * FROM %s.datamart_users_try(); -- as role %s",
								 quote_identifier(get_namespace_name(doctor->schema)),
								 role);
	}
}

static void
check_privileges(DmuDoctor *doctor, DmuFinding *finding)
{
	const char *role = quote_identifier(doctor->role_name);
	const char *unknown = unknown_objects(&doctor->warehouse);
	Oid			schema = dmu_check_procedure_schema();
	DmuLacking	lacking = {.role = doctor->role};
	StringInfoData detail;
	StringInfoData hint;
	ListCell   *lc;

	if (!OidIsValid(doctor->role))
	{
		finding->status = "error";
		finding->detail = psprintf("role %s does not exist", role);
		return;
	}

	dmu_privilege_schema(doctor->schema, &lacking);
	ask_functions(doctor, &lacking);
	dmu_warehouse_lacking(&doctor->warehouse, &lacking);
	if (OidIsValid(schema))
		dmu_privilege_schema(schema, &lacking);

	if (lacking.grants == NIL && unknown == NULL)
	{
		praise_role(doctor, finding);
		return;
	}
	initStringInfo(&detail);
	initStringInfo(&hint);
	if (lacking.grants == NIL)
		appendStringInfo(&detail, "role %s lacks nothing that was looked at", role);
	else
		appendStringInfo(&detail, "role %s cannot run cycles, it lacks ", role);
	foreach(lc, lacking.grants)
	{
		const char *grant = lfirst(lc);

		appendStringInfo(&detail, "%s%s",
						 foreach_current_index(lc) > 0 ? "; " : "", grant);
		appendStringInfo(&hint, "%sGRANT %s TO %s;",
						 foreach_current_index(lc) > 0 ? "\n" : "", grant, role);
	}
	if (unknown != NULL)
		appendStringInfo(&detail, " (not looked at: %s)", unknown);
	finding->detail = detail.data;
	if (lacking.grants != NIL)
	{
		finding->status = "error";
		finding->hint = hint.data;
	}
}

/*
 * All of them in their order.  Where an examination raises an error, "advise"
 * may add to the hint.
 */
static const struct
{
	const char *item;
	DmuExamination examine;
	DmuExamination advise;
}			examinations[] =

{
	{"server", check_server, NULL},
	{"facts table", dmu_check_facts_table, dmu_advise_facts_table},
	{"users table", dmu_check_users_table, dmu_advise_users_table},
	{"procedure", dmu_check_procedure, NULL},
	{"privileges", check_privileges, NULL},
	{"facts index", dmu_check_facts_index, NULL},
	{"facts partitions", dmu_check_facts_partitions, NULL},
	{"users index", dmu_check_users_index, NULL},
	{"flag index", dmu_check_flag_index, NULL},
	{"triggers", dmu_check_triggers, NULL},
	{"statistics", dmu_check_statistics, NULL},
	{"publications", dmu_check_publications, NULL},
	{"worker slots", dmu_check_worker_slots, NULL},
	{"connections", dmu_check_connections, NULL},
	{"worker settings", dmu_check_worker_settings, NULL},
	{"timeouts", dmu_check_timeouts, NULL},
	{"service", dmu_check_service, NULL},
	{"settings", dmu_check_settings, NULL},
	{"last cycle", dmu_check_last_cycle, NULL},
	{"locks", dmu_check_locks, NULL},
	{"failures", dmu_check_failures, NULL},
	{"contention", dmu_check_contention, NULL},
	{"history", dmu_check_history, NULL}
};

/* Makes a finding of the error that is current, or raises it again. */
static void
catch_error(DmuDoctor *doctor, DmuFinding *finding)
{
	ErrorData  *error;

	MemoryContextSwitchTo(doctor->context);
	error = CopyErrorData();

	/* What ends the statement ends the doctor: he is asked to stop. */
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES)
		PG_RE_THROW();
	FlushErrorState();

	/* Who holds a lock for some seconds does not keep cycles from running. */
	finding->status = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ?
		"warning" : "error";
	finding->detail = error->message;
	if (error->detail != NULL)
		finding->detail = psprintf("%s. %s", error->message, error->detail);
	finding->hint = error->hint == NULL ? NULL :
		psprintf("-- %s", dmu_text_line(error->hint, 0));
	finding->sqlerrcode = error->sqlerrcode;
}

/*
 * Runs something in a subtransaction, so that an error costs no more than its
 * own finding.
 */
static void
attempt(DmuDoctor *doctor, DmuExamination examine, DmuFinding *finding)
{
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(doctor->context);
	PG_TRY();
	{
		examine(doctor, finding);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		catch_error(doctor, finding);
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(doctor->context);
	CurrentResourceOwner = owner;
}

static void
put_finding(ReturnSetInfo *rsinfo, const char *item, const DmuFinding *finding)
{
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = CStringGetTextDatum(item);
	values[1] = CStringGetTextDatum(finding->status);
	values[2] = CStringGetTextDatum(dmu_text_line(finding->detail, 0));
	nulls[3] = finding->hint == NULL;
	if (finding->hint != NULL)
		values[3] = CStringGetTextDatum(dmu_text_sendable(finding->hint));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
datamart_users_check(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	DmuDoctor	doctor = {.context = CurrentMemoryContext};
	int			guc_level;

	InitMaterializedSRF(fcinfo, 0);
	doctor.schema = get_func_namespace(fcinfo->flinfo->fn_oid);
	if (PG_ARGISNULL(0))
	{
		doctor.role = GetUserId();
		doctor.role_name = GetUserNameFromId(doctor.role, false);
	}
	else
	{
		doctor.role_name = pstrdup(NameStr(*PG_GETARG_NAME(0)));
		doctor.role = get_role_oid(doctor.role_name, true);
	}

	doctor.lock_timeout = LockTimeout;
	guc_level = NewGUCNestLevel();
	if (LockTimeout == 0 || LockTimeout > LOCK_WAIT)
		(void) set_config_option("lock_timeout", CppAsString2(LOCK_WAIT),
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	for (int i = 0; i < (int) lengthof(examinations); i++)
	{
		DmuFinding	finding = {.status = "ok"};

		attempt(&doctor, examinations[i].examine, &finding);
		if (finding.sqlerrcode != 0 && examinations[i].advise != NULL)
		{
			DmuFinding	advised = finding;

			attempt(&doctor, examinations[i].advise, &advised);
			if (advised.detail == finding.detail)
				finding = advised;
		}
		put_finding(rsinfo, examinations[i].item, &finding);
	}
	AtEOXact_GUC(false, guc_level);
	return (Datum) 0;
}
