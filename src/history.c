/*-------------------------------------------------------------------------
 *
 * history.c
 *		The extension's own tables: cycles, priorities, failures, back-off.
 *
 *		A caller may run cycles without any right on these tables, and must not
 *		be able to write them by himself: all SQL here runs as their owner, with
 *		a search_path that holds nothing but pg_catalog.
 *
 *		This file knows nothing of warehouses, shared memory or workers.
 *
 *-------------------------------------------------------------------------
 */
#include "history.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "names.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* What to go back to when our SQL has run. */
typedef struct OwnerScope
{
	Oid			role;
	int			security_context;
	int			guc_level;
	bool		pushed_snapshot;
	char	   *schema;			/* of the extension, quoted */
} OwnerScope;

/* One parameter of a statement. */
typedef struct SqlParam
{
	Oid			type;
	Datum		value;
	bool		isnull;
} SqlParam;

#define MAX_PARAMS 16

/* The extension's schema, InvalidOid if the extension is not there. */
static Oid
extension_schema(void)
{
	Relation	extensions = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			schema = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(DMU_EXTENSION_NAME));
	scan = systable_beginscan(extensions, ExtensionNameIndexId, true,
							  NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(extensions, AccessShareLock);
	return schema;
}

Oid
dmu_history_owner(void)
{
	Oid			schema = extension_schema();
	Oid			table = InvalidOid;
	HeapTuple	tuple;
	Oid			owner;

	if (OidIsValid(schema))
		table = get_relname_relid("datamart_users_cycles", schema);
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" is not installed in database \"%s\"",
						DMU_EXTENSION_NAME, get_database_name(MyDatabaseId)),
				 errhint("Run CREATE EXTENSION %s.", DMU_EXTENSION_NAME)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * An error in between needs no clean-up of its own: the end of the
 * transaction or subtransaction gives back role and settings.
 */
static void
enter(OwnerScope *scope)
{
	Oid			owner = dmu_history_owner();

	scope->schema = pstrdup(quote_identifier(get_namespace_name(extension_schema())));
	GetUserIdAndSecContext(&scope->role, &scope->security_context);
	SetUserIdAndSecContext(owner,
						   scope->security_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	scope->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	scope->pushed_snapshot = !ActiveSnapshotSet();
	if (scope->pushed_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
}

static void
leave(OwnerScope *scope)
{
	if (scope->pushed_snapshot)
		PopActiveSnapshot();
	SPI_finish();
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->role, scope->security_context);
	pfree(scope->schema);
}

/*
 * Runs one statement; every %s in it stands for the extension's schema.
 * A statement that can only read sees the snapshot that its caller sees, the
 * others see everything committed until now.
 */
static void
run(const OwnerScope *scope, const char *format, int expected,
	int nparams, const SqlParam *params)
{
	StringInfoData sql;
	Oid			types[MAX_PARAMS];
	Datum		values[MAX_PARAMS];
	char		nulls[MAX_PARAMS];
	const char *rest = format;
	const char *mark;
	int			result;

	Assert(nparams <= MAX_PARAMS);
	initStringInfo(&sql);
	while ((mark = strstr(rest, "%s")) != NULL)
	{
		appendBinaryStringInfo(&sql, rest, mark - rest);
		appendStringInfoString(&sql, scope->schema);
		rest = mark + 2;
	}
	appendStringInfoString(&sql, rest);

	for (int i = 0; i < nparams; i++)
	{
		types[i] = params[i].type;
		values[i] = params[i].value;
		nulls[i] = params[i].isnull ? 'n' : ' ';
	}

	result = SPI_execute_with_args(sql.data, nparams, types, values, nulls,
								   false, 0);
	if (result != expected)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(result), sql.data);
	pfree(sql.data);
}

static SqlParam
param(Oid type, Datum value)
{
	return (SqlParam) {type, value, false};
}

static SqlParam
param_or_null(Oid type, Datum value, bool isnull)
{
	return (SqlParam) {type, value, isnull};
}

static SqlParam
param_text(const char *text)
{
	bool		isnull = (text == NULL || text[0] == '\0');

	return param_or_null(TEXTOID,
						 isnull ? (Datum) 0 : CStringGetTextDatum(text), isnull);
}

static SqlParam
param_interval(int64 usec, bool isnull)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = usec;
	return param_or_null(INTERVALOID, IntervalPGetDatum(interval), isnull);
}

static Datum
first_row_value(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
						 column, isnull);
}

int64
dmu_history_begin(const DmuCycleStart *start, int *aborted)
{
	OwnerScope	scope;
	SqlParam		params[4];
	bool		isnull;
	int64		cycle_id;

	enter(&scope);

	/*
	 * We hold the cycle lock of this database, so nobody is behind such a
	 * row.
	 */
	run(&scope,
		"UPDATE %s.datamart_users_cycles"
		"   SET status = 'aborted', finished_at = coalesce(finished_at, now()),"
		"       message = 'The coordinator of the cycle or the server went down.'"
		" WHERE status = 'running'",
		SPI_OK_UPDATE, 0, NULL);
	*aborted = (int) SPI_processed;

	params[0] = param(TEXTOID, CStringGetTextDatum(start->role_name));
	params[1] = param(TIMESTAMPTZOID, TimestampTzGetDatum(start->started_at));
	params[2] = param_interval(start->time_limit * 1000, start->time_limit == 0);
	params[3] = param(INT4OID, Int32GetDatum(start->workers_requested));
	run(&scope,
		"INSERT INTO %s.datamart_users_cycles"
		"  (status, role_name, started_at, time_limit, workers_requested)"
		" VALUES ('running', $1, $2, $3, $4)"
		" RETURNING cycle_id",
		SPI_OK_INSERT_RETURNING, lengthof(params), params);
	cycle_id = DatumGetInt64(first_row_value(1, &isnull));

	leave(&scope);
	return cycle_id;
}

/* The final state of the row in datamart_users_cycles. */
static void
end_cycle(const OwnerScope *scope, const DmuCycleEnd *end)
{
	const DmuCycleResult *result = end->result;
	const DmuTally *total = &result->total;
	bool		queued = (end->prioritisation_usec >= 0);
	SqlParam		params[13];

	params[0] = param(INT8OID, Int64GetDatum(result->cycle_id));
	params[1] = param_text(dmu_status_name(result->status));
	params[2] = param(TIMESTAMPTZOID, TimestampTzGetDatum(result->finished_at));
	params[3] = param_or_null(INT4OID, Int32GetDatum(end->max_users), !queued);
	params[4] = param_or_null(INT8OID, Int64GetDatum(result->backlog), !queued);
	params[5] = param_or_null(INT4OID, Int32GetDatum(result->found), !queued);
	for (int o = 0; o < DMU_NOUTCOMES; o++)
		params[6 + o] = param(INT4OID, Int32GetDatum((int32) total->outcomes[o]));
	params[10] = param(INT4OID, Int32GetDatum(result->workers));
	params[11] = param_interval(end->prioritisation_usec, !queued);
	params[12] = param_text(end->message);

	StaticAssertStmt(DMU_PROCESSED == 0 && DMU_FAILED == 1 &&
					 DMU_SKIPPED == 2 && DMU_DEFERRED == 3,
					 "order of the outcome columns");
	run(scope,
		"UPDATE %s.datamart_users_cycles"
		"   SET status = $2, finished_at = $3, max_users = $4, backlog = $5,"
		"       found = $6, processed = $7, failed = $8, skipped = $9,"
		"       deferred = $10, workers = $11, prioritisation_time = $12,"
		"       message = $13"
		" WHERE cycle_id = $1",
		SPI_OK_UPDATE, lengthof(params), params);
}

void
dmu_history_end(const DmuCycleEnd *end, int retention)
{
	OwnerScope	scope;

	enter(&scope);
	end_cycle(&scope, end);

	for (int p = 0; p < DMU_NPRIORITIES; p++)
	{
		const DmuTally *tally = &end->by_priority[p];
		SqlParam		params[9];

		if (end->found_by_priority[p] == 0)
			continue;

		params[0] = param(INT8OID, Int64GetDatum(end->result->cycle_id));
		params[1] = param_text(dmu_priority_name((DmuPriority) p));
		params[2] = param(INT4OID, Int32GetDatum(end->found_by_priority[p]));
		for (int o = 0; o < DMU_NOUTCOMES; o++)
			params[3 + o] = param(INT4OID,
								  Int32GetDatum((int32) tally->outcomes[o]));
		params[7] = param_interval(tally->total_usec, false);
		params[8] = param_interval(tally->max_usec, false);
		run(&scope,
			"INSERT INTO %s.datamart_users_cycle_priorities"
			"  (cycle_id, priority, found, processed, failed, skipped, deferred,"
			"   total_time, max_time)"
			" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
			SPI_OK_INSERT, lengthof(params), params);
	}

	if (retention > 0)
	{
		SqlParam		age = param_interval((int64) retention * USECS_PER_SEC, false);

		run(&scope,
			"DELETE FROM %s.datamart_users_cycles"
			" WHERE started_at < now() - $1 AND status <> 'running'",
			SPI_OK_DELETE, 1, &age);
	}
	leave(&scope);
}

bool
dmu_history_get(int64 cycle_id, DmuCycleResult *result)
{
	OwnerScope	scope;
	SqlParam		id = param(INT8OID, Int64GetDatum(cycle_id));
	bool		found;

	memset(result, 0, sizeof(*result));
	enter(&scope);
	run(&scope,
		"SELECT status, coalesce(backlog, 0), coalesce(found, 0),"
		"       coalesce(workers, 0), started_at, coalesce(finished_at, now()),"
		"       coalesce(processed, 0), coalesce(failed, 0),"
		"       coalesce(skipped, 0), coalesce(deferred, 0)"
		"  FROM %s.datamart_users_cycles WHERE cycle_id = $1",
		SPI_OK_SELECT, 1, &id);
	found = (SPI_processed == 1);
	if (found)
	{
		bool		isnull;

		result->cycle_id = cycle_id;
		result->status = dmu_status_of_name(TextDatumGetCString(first_row_value(1, &isnull)));
		result->backlog = DatumGetInt64(first_row_value(2, &isnull));
		result->found = DatumGetInt32(first_row_value(3, &isnull));
		result->workers = DatumGetInt32(first_row_value(4, &isnull));
		result->started_at = DatumGetTimestampTz(first_row_value(5, &isnull));
		result->finished_at = DatumGetTimestampTz(first_row_value(6, &isnull));
		for (int o = 0; o < DMU_NOUTCOMES; o++)
			result->total.outcomes[o] = DatumGetInt32(first_row_value(7 + o, &isnull));
	}
	leave(&scope);
	return found;
}

int
dmu_history_failures(DmuFailure **failures)
{
	MemoryContext context = CurrentMemoryContext;
	OwnerScope	scope;
	int			nfailures;

	enter(&scope);
	run(&scope,
		"SELECT dimension_user_id, next_attempt_at > clock_timestamp()"
		"  FROM %s.datamart_users_failures ORDER BY dimension_user_id",
		SPI_OK_SELECT, 0, NULL);
	nfailures = (int) SPI_processed;
	*failures = MemoryContextAllocHuge(context,
									   Max(nfailures, 1) * sizeof(DmuFailure));
	for (int i = 0; i < nfailures; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		isnull;

		(*failures)[i].dimension_user_id =
			DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull));
		(*failures)[i].held =
			DatumGetBool(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull));
	}
	leave(&scope);
	return nfailures;
}

int64 *
dmu_history_held(const DmuFailure *failures, int nfailures, int *nheld)
{
	int64	   *held = palloc_extended(Max(nfailures, 1) * sizeof(int64),
									   MCXT_ALLOC_HUGE);

	*nheld = 0;
	for (int i = 0; i < nfailures; i++)
	{
		if (failures[i].held)
			held[(*nheld)++] = failures[i].dimension_user_id;
	}
	return held;
}

void
dmu_history_record_failure(int64 dimension_user_id, int64 cycle_id,
						   const DmuError *error, int delay, int delay_max)
{
	OwnerScope	scope;
	SqlParam		params[7];

	enter(&scope);
	params[0] = param(INT8OID, Int64GetDatum(dimension_user_id));
	params[1] = param(INT8OID, Int64GetDatum(cycle_id));
	params[2] = param_text(unpack_sql_state(error->sqlerrcode));
	params[3] = param(TEXTOID, CStringGetTextDatum(error->message));
	params[4] = param_text(error->context);
	params[5] = param_interval((int64) delay * USECS_PER_SEC, false);
	params[6] = param_interval((int64) Max(delay, delay_max) * USECS_PER_SEC, false);

	/* 2^30 times the smallest delay is 34 years; more would overflow. */
	run(&scope,
		"INSERT INTO %s.datamart_users_failures AS f"
		"  (dimension_user_id, attempts, first_failed_at, last_failed_at,"
		"   next_attempt_at, sqlstate, message, context, cycle_id)"
		" VALUES ($1, 1, clock_timestamp(), clock_timestamp(),"
		"         clock_timestamp() + $6, $3, $4, $5, $2)"
		" ON CONFLICT (dimension_user_id) DO UPDATE"
		"   SET attempts = f.attempts + 1,"
		"       last_failed_at = excluded.last_failed_at,"
		"       next_attempt_at = excluded.last_failed_at"
		"         + least($6 * power(2, least(f.attempts, 30)), $7),"
		"       sqlstate = excluded.sqlstate, message = excluded.message,"
		"       context = excluded.context, cycle_id = excluded.cycle_id",
		SPI_OK_INSERT, lengthof(params), params);
	leave(&scope);
}

void
dmu_history_clear_failure(int64 dimension_user_id)
{
	OwnerScope	scope;
	SqlParam		id = param(INT8OID, Int64GetDatum(dimension_user_id));

	enter(&scope);
	run(&scope,
		"DELETE FROM %s.datamart_users_failures WHERE dimension_user_id = $1",
		SPI_OK_DELETE, 1, &id);
	leave(&scope);
}
