/*-------------------------------------------------------------------------
 *
 * check_history.c
 *		The doctor on what cycles have left behind: those of the datamart that
 *		the settings name, or of all where they name none.
 *
 *		Whoever may call the doctor need not be able to read the tables, so
 *		they are read as their owner.  What may show something of rows of the
 *		warehouse, the message of a cycle, is for those who may read it there
 *		themselves or had it as an error.
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include "adopt.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "ownersql.h"
#include "parked.h"
#include "privilege.h"
#include "text.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

/* More than that, and the history deserves a look. */
#define MANY_CYCLES 100000
#define MANY_BYTES (INT64CONST(1024) * 1024 * 1024)

/* More failures than that, or one that failed so often. */
#define MANY_FAILURES 100
#define MANY_ATTEMPTS "5"

static const char *
own_schema(const DmuDoctor *doctor)
{
	return quote_identifier(get_namespace_name(doctor->schema));
}

/* Parameters $1 and $2 of DMU_OF_DATAMART(): all, where no datamart is known. */
#define DATAMART(doctor) \
	DMU_PARAMS(dmu_param_oid((doctor)->warehouse.users), \
			   dmu_param_text((doctor)->warehouse.users_name))

/* The same for a statement to paste. */
static const char *
of_datamart(const DmuDoctor *doctor)
{
	if (!OidIsValid(doctor->warehouse.users))
		return "";
	return psprintf(" WHERE users_table = %s",
					quote_literal_cstr(doctor->warehouse.users_name));
}

/* A column of the first row, as text; NULL if it is null or there is no row. */
static char *
first_text(const DmuDoctor *doctor, int column)
{
	char	   *text;

	if (SPI_processed == 0)
		return NULL;
	text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
	return text == NULL ? NULL : MemoryContextStrdup(doctor->context, text);
}

/* A bigint of the first row, 0 if it is null or there is no row. */
static int64
first_number(int column)
{
	bool		isnull = true;
	Datum		value = 0;

	if (SPI_processed > 0)
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
							  column, &isnull);
	return isnull ? 0 : DatumGetInt64(value);
}

/*
 * The latest cycle that says running, though nothing runs.  One that has just
 * ended looks the same as one that died; so a second look, with another
 * snapshot, at the same one.
 */
static char *
find_dead_cycle(const DmuDoctor *doctor, const DmuOwnerScope *scope)
{
	DmuParam	params[] = {
		dmu_param_oid(doctor->warehouse.users),
		dmu_param_text(doctor->warehouse.users_name),
		dmu_param_null(INT8ARRAYOID)
	};
	DmuParam   *earlier = &params[2];
	char	   *dead = NULL;

	for (int look = 0; look < 2; look++)
	{
		bool		isnull;

		if (look > 0)
			(void) DirectFunctionCall1(pg_sleep, Float8GetDatum(0.1));
		dmu_owner_read_latest(scope,
							  "SELECT max(c.cycle_id)::text, array_agg(c.cycle_id)"
							  "  FROM %s.datamart_users_cycles c"
							  " WHERE c.status = 'running'"
							  "   AND NOT EXISTS (SELECT FROM %s.datamart_users_progress p"
							  "                    WHERE p.cycle_id = c.cycle_id)"
							  "   AND " DMU_OF_DATAMART("c", "$1", "$2")
							  "   AND (c.cycle_id = ANY ($3) OR $3 IS NULL)",
							  lengthof(params), params);
		dead = first_text(doctor, 1);
		if (dead == NULL)
			break;
		earlier->value = SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 2, &isnull);
		earlier->isnull = isnull;
	}
	return dead;
}

/* "failed", with the reason where the caller may know it. */
static char *
describe_status(const DmuDoctor *doctor, const char *status,
				const char *role_name, const char *message)
{
	if (message == NULL)
		return pstrdup(status);
	if (!dmu_privilege_may_read(doctor->schema, "datamart_users_cycles") &&
		!dmu_privilege_has_role(role_name))
		return psprintf("%s (the message is for those who may read datamart_users_cycles)",
						status);
	return psprintf("%s: %s", status, message);
}

void
dmu_check_last_cycle(DmuDoctor *doctor, DmuFinding *finding)
{
	DmuOwnerScope scope;
	char	   *id;
	char	   *status;
	char	   *role_name;
	char	   *message;
	char	   *dead;

	dmu_owner_enter(&scope);
	dmu_owner_read_latest(&scope,
						  "SELECT c.cycle_id::text, c.status, c.role_name::text, c.message,"
						  "       (c.processed = 0 AND c.failed > 0 AND c.failed = c.found)::integer::bigint"
						  "  FROM %s.datamart_users_cycles c"
						  " WHERE " DMU_OF_DATAMART("c", "$1", "$2")
						  " ORDER BY c.cycle_id DESC LIMIT 1", DATAMART(doctor));
	id = first_text(doctor, 1);
	status = first_text(doctor, 2);
	role_name = first_text(doctor, 3);
	message = first_text(doctor, 4);
	doctor->only_failures = first_number(5) != 0;
	dead = find_dead_cycle(doctor, &scope);
	dmu_owner_leave(&scope);

	if (dead != NULL)
	{
		finding->status = "warning";
		finding->detail = psprintf("cycle %s says running, but nothing runs: it died with its server or coordinator, or this is a copy of the database; the next cycle will mark it as aborted", dead);
		finding->hint = psprintf("SELECT * FROM %s.datamart_users_run_cycle();",
								 own_schema(doctor));
	}
	else if (id == NULL)
	{
		finding->detail = "there was none yet; a rehearsal shows what one would do, and rolls back";
		finding->hint = psprintf("SELECT * FROM %s.datamart_users_try();",
								 own_schema(doctor));
	}
	else if (strcmp(status, "failed") == 0 || strcmp(status, "aborted") == 0)
	{
		finding->status = strcmp(status, "failed") == 0 ? "error" : "warning";
		finding->detail = psprintf("cycle %s %s", id,
								   describe_status(doctor, status, role_name, message));
		finding->hint = psprintf("SELECT %s.datamart_users_report(%s);",
								 own_schema(doctor), id);
	}
	else
		finding->detail = psprintf("cycle %s: %s", id, status);
}

/* Everybody may ask for whom a process waits, unlike for what it does. */
void
dmu_check_locks(DmuDoctor *doctor, DmuFinding *finding)
{
	DmuOwnerScope scope;
	int64		workers;
	int64		waiting;
	char	   *blockers;

	dmu_owner_enter(&scope);
	dmu_owner_read_latest(&scope,
						  "SELECT count(DISTINCT w.pid), count(DISTINCT w.pid) FILTER (WHERE b.pid IS NOT NULL),"
						  "       string_agg(DISTINCT b.pid::text, ', ')"
						  "  FROM %s.datamart_users_workers w"
						  "  LEFT JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b (pid) ON true",
						  0, NULL);
	workers = first_number(1);
	waiting = first_number(2);
	blockers = first_text(doctor, 3);
	dmu_owner_leave(&scope);

	if (waiting == 0)
	{
		finding->detail = workers == 0 ? "no cycle is running" :
			"no worker waits for one";
		return;
	}
	finding->status = "warning";
	finding->detail = psprintf(ngettext("%s worker waits for locks of process %s",
										"%s workers wait for locks of process %s",
										(unsigned long) waiting),
							   dmu_text_number(waiting), blockers);
	finding->hint = psprintf("SELECT pid, usename, state, xact_start, query FROM pg_stat_activity WHERE pid IN (%s);", blockers);
}

/* A few that fail are daily life, a renamed account for example. */
void
dmu_check_failures(DmuDoctor *doctor, DmuFinding *finding)
{
	DmuOwnerScope scope;
	int64		number;
	int64		stubborn;
	int64		held;
	int64		parked;
	char	   *sqlstate;
	const char *aside;

	dmu_owner_enter(&scope);
	dmu_owner_read_latest(&scope,
						  "SELECT count(*), count(*) FILTER (WHERE f.attempts >= " MANY_ATTEMPTS "),"
						  "       count(*) FILTER (WHERE f.next_attempt_at > clock_timestamp()),"
						  "       mode() WITHIN GROUP (ORDER BY f.sqlstate),"
						  "       (SELECT count(*) FROM %s.datamart_users_parked p"
						  "         WHERE " DMU_OF_DATAMART("p", "$1", "$2") ")"
						  "  FROM %s.datamart_users_failures f"
						  " WHERE " DMU_OF_DATAMART("f", "$1", "$2")
						  "   AND " DMU_NOT_PARKED("f"),
						  DATAMART(doctor));
	number = first_number(1);
	stubborn = first_number(2);
	held = first_number(3);
	sqlstate = first_text(doctor, 4);
	parked = first_number(5);
	dmu_owner_leave(&scope);

	aside = parked == 0 ? "" :
		psprintf("; parked: " INT64_FORMAT ", see datamart_users_parked",
				 parked);
	if (number == 0)
	{
		finding->detail = psprintf("none%s", aside);
		return;
	}
	finding->detail = psprintf("failing datamart users: " INT64_FORMAT ", " MANY_ATTEMPTS " times or more: " INT64_FORMAT ", held by back-off: " INT64_FORMAT "; most frequent SQLSTATE: %s%s",
							   number, stubborn, held, sqlstate, aside);
	if (doctor->only_failures)
		finding->status = "error";
	else if (number > MANY_FAILURES || stubborn > 0)
		finding->status = "warning";
	else
		return;
	finding->hint = psprintf("SELECT sqlstate, count(*), max(attempts) AS attempts, min(dimension_user_id) AS for_example, min(message) AS message FROM %s.datamart_users_failures%s GROUP BY sqlstate ORDER BY count(*) DESC;",
							 own_schema(doctor), of_datamart(doctor));
}

/* Whoever is here has collided even when no other worker was at work. */
void
dmu_check_contention(DmuDoctor *doctor, DmuFinding *finding)
{
	DmuOwnerScope scope;
	int64		number;
	int64		deferrals;
	char	   *since;
	char	   *sqlstate;

	dmu_owner_enter(&scope);
	dmu_owner_read_latest(&scope,
						  "SELECT count(*), max(c.deferrals)::bigint,"
						  "       date_trunc('second', min(c.first_deferred_at))::text,"
						  "       mode() WITHIN GROUP (ORDER BY c.sqlstate)"
						  "  FROM %s.datamart_users_contention c"
						  " WHERE " DMU_OF_DATAMART("c", "$1", "$2")
						  "   AND " DMU_NOT_PARKED("c"),
						  DATAMART(doctor));
	number = first_number(1);
	deferrals = number == 0 ? 0 : first_number(2);
	since = first_text(doctor, 3);
	sqlstate = first_text(doctor, 4);
	dmu_owner_leave(&scope);

	if (number == 0)
	{
		finding->detail = "none";
		return;
	}
	finding->status = "warning";
	finding->detail = psprintf(ngettext("datamart users whose procedure kept colliding: " INT64_FORMAT ", in %s cycle, since %s; most frequent SQLSTATE: %s",
										"datamart users whose procedure kept colliding: " INT64_FORMAT ", in up to %s cycles in a row, since %s; most frequent SQLSTATE: %s",
										(unsigned long) deferrals),
							   number, dmu_text_number(deferrals), since,
							   sqlstate);
	finding->hint = psprintf("SELECT sqlstate, count(*), max(deferrals) AS deferrals, min(dimension_user_id) AS for_example, min(message) AS message FROM %s.datamart_users_contention%s GROUP BY sqlstate ORDER BY count(*) DESC;",
							 own_schema(doctor), of_datamart(doctor));
}

void
dmu_check_history(DmuDoctor *doctor, DmuFinding *finding)
{
	static const char *const tables[] = {
		"datamart_users_cycles", "datamart_users_cycle_priorities",
		"datamart_users_cycle_profiles", "datamart_users_slowest",
		"datamart_users_failures", "datamart_users_attempts"
	};
	const char *retention = GetConfigOptionByName(DMU_EXTENSION_NAME ".history_retention",
												  NULL, false);
	int64		bytes = 0;
	int64		cycles;
	DmuOwnerScope scope;

	for (int i = 0; i < (int) lengthof(tables); i++)
	{
		Oid			table = get_relname_relid(tables[i], doctor->schema);

		if (OidIsValid(table))
			bytes += DatumGetInt64(DirectFunctionCall1(pg_total_relation_size,
													   ObjectIdGetDatum(table)));
	}

	dmu_owner_enter(&scope);
	/* Each of the tables is named: then it is seen whether it can be used. */
	dmu_owner_read_latest(&scope,
						  "SELECT (SELECT count(*) FROM %s.datamart_users_cycles),"
						  "       EXISTS (SELECT FROM %s.datamart_users_cycle_priorities)"
						  "    OR EXISTS (SELECT FROM %s.datamart_users_cycle_profiles)"
						  "    OR EXISTS (SELECT FROM %s.datamart_users_slowest)"
						  "    OR EXISTS (SELECT FROM %s.datamart_users_failures)"
						  "    OR EXISTS (SELECT FROM %s.datamart_users_failures_undo)"
						  "    OR EXISTS (SELECT FROM %s.datamart_users_contention)"
						  "    OR EXISTS (SELECT FROM %s.datamart_users_attempts)"
						  "    OR EXISTS (SELECT FROM %s.datamart_users_parked)"
						  "    OR EXISTS (SELECT FROM %s.datamart_users_suspects)",
						  0, NULL);
	cycles = first_number(1);
	dmu_owner_leave(&scope);

	finding->detail = psprintf(ngettext("%s cycle in %s, kept for %s",
										"%s cycles in %s, kept for %s",
										(unsigned long) cycles),
							   dmu_text_number(cycles),
							   TextDatumGetCString(DirectFunctionCall1(pg_size_pretty,
																	   Int64GetDatum(bytes))),
							   strcmp(retention, "0") == 0 ? "ever" : retention);
	if (cycles > MANY_CYCLES || bytes > MANY_BYTES)
	{
		finding->status = "warning";
		finding->hint = psprintf("ALTER DATABASE %s SET " DMU_EXTENSION_NAME ".history_retention = '30d';",
								 quote_identifier(get_database_name(MyDatabaseId)));
	}
}
