/*-------------------------------------------------------------------------
 *
 * report.c
 *		The SQL-callable report: what the history and shared memory know of
 *		one cycle, handed to picture.c.
 *
 *		Whoever may call the report need not be able to read the tables, so
 *		they are read as their owner.  What may show something of rows of the
 *		warehouse, ids and messages, is left out for those who could not read
 *		it there themselves.
 *
 *-------------------------------------------------------------------------
 */
#include "datamart_users.h"

#include "adopt.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "ownersql.h"
#include "parked.h"
#include "picture.h"
#include "privilege.h"
#include "report_workers.h"
#include "text.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "warehouse.h"

PG_FUNCTION_INFO_V1(datamart_users_report);

/* Times as microseconds, in the queries below. */
#define USEC(interval) "(extract(epoch FROM " interval ") * 1000000)::bigint"

/* A query on one cycle, and its first row. */
typedef struct Reader
{
	DmuOwnerScope scope;
	MemoryContext context;		/* of the picture */
	DmuPicture *picture;
	SPITupleTable *table;
	uint64		row;
} Reader;

static bool
read_rows(Reader *reader, const char *query)
{
	dmu_owner_read_latest(&reader->scope, query,
						  DMU_PARAMS(dmu_param_int8(reader->picture->cycle_id)));
	reader->table = SPI_tuptable;
	reader->row = 0;
	return SPI_processed > 0;
}

/* A bigint of the current row. */
static int64
read_figure(const Reader *reader, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(reader->table->vals[reader->row],
									  reader->table->tupdesc, column, &isnull);

	return isnull ? DMU_UNKNOWN : DatumGetInt64(value);
}

/* A column of the current row, as text. */
static char *
read_text(const Reader *reader, int column)
{
	char	   *text = SPI_getvalue(reader->table->vals[reader->row],
									reader->table->tupdesc, column);

	return text == NULL ? NULL : MemoryContextStrdup(reader->context, text);
}

/* A bigint[] of the current row. */
static int
read_figures(const Reader *reader, int column, int64 **figures)
{
	bool		isnull;
	Datum		value = SPI_getbinval(reader->table->vals[reader->row],
									  reader->table->tupdesc, column, &isnull);
	Datum	   *elements;
	int			n;

	if (isnull)
		return 0;
	deconstruct_array(DatumGetArrayTypeP(value), INT8OID, sizeof(int64),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, NULL, &n);
	*figures = MemoryContextAlloc(reader->context, Max(n, 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
		(*figures)[i] = DatumGetInt64(elements[i]);
	return n;
}

/*
 * The cycle as its history has it, or as it stands if it is running.  One that
 * ends between the two looks like one that died; so then there is a second
 * look.  False if there is no such cycle.
 */
static bool
read_cycle(Reader *reader)
{
	DmuPicture *picture = reader->picture;

	for (int look = 0; look < 2; look++)
	{
		if (look > 0)
			(void) DirectFunctionCall1(pg_sleep, Float8GetDatum(0.1));
		if (!read_rows(reader,
					   "SELECT c.status, c.role_name::text, c.message,"
					   "       to_char(c.started_at, 'YYYY-MM-DD HH24:MI:SSOF'),"
					   "       " USEC("clock_timestamp() - c.started_at") ","
					   "       " USEC("c.finished_at - c.started_at") ","
					   "       c.max_users::bigint, " USEC("c.time_limit") ","
					   "       c.workers_requested::bigint, l.workers::bigint,"
					   "       " USEC("c.prioritisation_time") ","
					   "       l.backlog, l.found::bigint, l.processed::bigint,"
					   "       l.failed::bigint, l.skipped::bigint, l.deferred::bigint,"
					   "       CASE WHEN c.status <> 'aborted' THEN"
					   "         round(round(c.processed * 60 / nullif(extract(epoch FROM c.elapsed), 0), 1))::bigint END,"
					   "       trunc(100.0 * c.processed / nullif(c.processed + c.failed + c.deferred, 0), 2)::text,"
					   "       p.cycle_id, p.phase, p.done::bigint, " USEC("p.time_left") ","
					   "       c.users_table, c.session_role::text, c.application_name,"
					   "       " USEC("c.counted_at - c.started_at")
					   "  FROM %s.datamart_users_cycles c"
					   "  LEFT JOIN %s.datamart_users_progress p"
					   "    ON p.cycle_id = c.cycle_id AND c.status = 'running'"
					   " CROSS JOIN LATERAL"
					   "       (SELECT p.workers, p.backlog, p.found, p.processed,"
					   "               p.failed, p.skipped, p.deferred"
					   "         WHERE p.cycle_id IS NOT NULL"
					   "         UNION ALL"
					   "        SELECT c.workers, c.backlog, c.found, c.processed,"
					   "               c.failed, c.skipped, c.deferred"
					   "         WHERE p.cycle_id IS NULL) AS l"
					   " WHERE c.cycle_id = $1"))
			return false;
		picture->status = read_text(reader, 1);
		picture->lives = read_figure(reader, 20) != DMU_UNKNOWN;
		if (picture->lives || strcmp(picture->status, "running") != 0)
			break;
	}

	picture->role_name = read_text(reader, 2);
	picture->message = read_text(reader, 3);
	picture->started_at = read_text(reader, 4);
	picture->since = read_figure(reader, 5);
	picture->elapsed = read_figure(reader, 6);
	picture->max_users = read_figure(reader, 7);
	picture->time_limit = read_figure(reader, 8);
	picture->workers_requested = read_figure(reader, 9);
	picture->workers = read_figure(reader, 10);
	picture->prioritisation_time = read_figure(reader, 11);
	picture->backlog = read_figure(reader, 12);
	picture->found = read_figure(reader, 13);
	for (int o = 0; o < DMU_NOUTCOMES; o++)
		picture->outcomes[o] = read_figure(reader, 14 + o);
	picture->users_per_minute = read_figure(reader, 18);
	picture->success_rate = read_text(reader, 19);
	picture->phase = read_text(reader, 21);
	picture->done = read_figure(reader, 22);
	picture->time_left = read_figure(reader, 23);
	picture->users_table = read_text(reader, 24);
	picture->session_role = read_text(reader, 25);
	picture->application_name = read_text(reader, 26);
	picture->counted = read_figure(reader, 27);
	return true;
}

/* Beside the cycles before it. */
static void
read_comparison(Reader *reader)
{
	DmuPicture *picture = reader->picture;

	if (!read_rows(reader,
				   "SELECT m.measure, m.unit, round((m.value * f.factor)::numeric)::bigint,"
				   "       round((m.median * f.factor)::numeric)::bigint,"
				   "       m.cycles, m.unusual::integer::bigint"
				   "  FROM %s.datamart_users_cycle_comparison m"
				   " CROSS JOIN LATERAL"
				   "       (SELECT CASE m.unit WHEN 'seconds' THEN 1000000 ELSE 1 END AS factor) AS f"
				   " WHERE m.cycle_id = $1"))
		return;
	for (uint64 i = 0; i < reader->table->numvals; i++)
	{
		DmuPictureUnusual *unusual = &picture->unusual[picture->nunusual];

		reader->row = i;
		picture->compared = Max(picture->compared, read_figure(reader, 5));
		if (read_figure(reader, 6) != 1 ||
			picture->nunusual == DMU_PICTURE_UNUSUAL)
			continue;
		unusual->measure = read_text(reader, 1);
		unusual->is_time = strcmp(read_text(reader, 2), "seconds") == 0;
		unusual->value = read_figure(reader, 3);
		unusual->median = read_figure(reader, 4);
		picture->nunusual++;
	}
}

static void
read_priorities(Reader *reader)
{
	DmuPicture *picture = reader->picture;

	if (!read_rows(reader,
				   "SELECT p.priority, p.found::bigint, p.processed::bigint, p.failed::bigint,"
				   "       p.processed::bigint + p.failed + p.skipped + p.deferred,"
				   "       " USEC("p.total_time") ", " USEC("p.max_time") ","
				   "       " USEC("p.p50") ", " USEC("p.p95") ", " USEC("p.p99")
				   "  FROM %s.datamart_users_cycle_priorities p"
				   " WHERE p.cycle_id = $1"
				   " ORDER BY array_position('{critical,high,medium,historical,low,lowest}'::text[], p.priority)"))
		return;
	picture->npriorities = (int) Min(reader->table->numvals, DMU_NPRIORITIES);
	for (int i = 0; i < picture->npriorities; i++)
	{
		DmuPicturePriority *priority = &picture->priorities[i];

		reader->row = i;
		priority->name = read_text(reader, 1);
		priority->found = read_figure(reader, 2);
		priority->processed = read_figure(reader, 3);
		priority->failed = read_figure(reader, 4);
		priority->done = read_figure(reader, 5);
		priority->total_usec = read_figure(reader, 6);
		priority->max_usec = read_figure(reader, 7);
		priority->p50 = read_figure(reader, 8);
		priority->p95 = read_figure(reader, 9);
		priority->p99 = read_figure(reader, 10);
	}
}

/* Whom it was about is for those who may know who the slowest were. */
static void
read_end(Reader *reader, bool ids)
{
	DmuPicture *picture = reader->picture;

	picture->idle_time = DMU_UNKNOWN;
	if (!read_rows(reader,
				   "SELECT p.planned_alone, " USEC("p.idle_time") ", " USEC("p.work_time") ","
				   "       p.last_worker::bigint, p.last_user_id, p.last_priority,"
				   "       p.last_actions, " USEC("p.last_elapsed")
				   "  FROM %s.datamart_users_cycle_profiles p"
				   " WHERE p.cycle_id = $1"))
		return;
	picture->planned_alone = read_figure(reader, 1);
	picture->idle_time = read_figure(reader, 2);
	picture->work_time = read_figure(reader, 3);
	picture->last_worker = read_figure(reader, 4);
	picture->last.dimension_user_id = ids ? read_figure(reader, 5) : DMU_UNKNOWN;
	picture->last.priority = read_text(reader, 6);
	picture->last_actions = read_figure(reader, 7);
	picture->last.usec = read_figure(reader, 8);
}

static void
read_profile(Reader *reader)
{
	DmuPicture *picture = reader->picture;
	int			ncounts;

	if (!read_rows(reader,
				   "SELECT " USEC("p.p50") ", " USEC("p.p95") ", " USEC("p.p99") ","
				   "       ARRAY(SELECT " USEC("b.upto")
				   "               FROM unnest(p.bucket_upto) WITH ORDINALITY AS b (upto, position)"
				   "              ORDER BY b.position),"
				   "       p.bucket_count, " USEC("p.sample_width") ", p.samples::bigint[],"
				   "       (SELECT trim_scale(round(max(s.sample) / nullif(extract(epoch FROM p.sample_width), 0), 1))"
				   "          FROM unnest(p.samples) AS s (sample))"
				   "  FROM %s.datamart_users_cycle_profiles p"
				   " WHERE p.cycle_id = $1"))
		return;
	picture->p50 = read_figure(reader, 1);
	picture->p95 = read_figure(reader, 2);
	picture->p99 = read_figure(reader, 3);
	picture->nbuckets = read_figures(reader, 4, &picture->bucket_upto);
	ncounts = read_figures(reader, 5, &picture->bucket_count);
	picture->nbuckets = Min(picture->nbuckets, ncounts);
	picture->sample_width = read_figure(reader, 6);
	picture->nsamples = read_figures(reader, 7, &picture->samples);
	picture->highest = read_text(reader, 8);
}

static void
read_failures(Reader *reader, bool messages)
{
	DmuPicture *picture = reader->picture;

	(void) read_rows(reader,
					 "SELECT count(*)"
					 "  FROM %s.datamart_users_cycles c"
					 "  JOIN %s.datamart_users_failures f USING (users_oid)"
					 " WHERE c.cycle_id = $1 AND f.next_attempt_at > clock_timestamp()"
					 "   AND " DMU_NOT_PARKED("f"));
	picture->held = read_figure(reader, 1);
	(void) read_rows(reader,
					 "SELECT count(*)"
					 "  FROM %s.datamart_users_cycles c"
					 "  JOIN %s.datamart_users_parked p USING (users_oid)"
					 " WHERE c.cycle_id = $1");
	picture->parked = read_figure(reader, 1);

	if (!read_rows(reader,
				   "SELECT f.sqlstate, count(*), min(f.message)"
				   "  FROM %s.datamart_users_failures f"
				   " WHERE f.cycle_id = $1 AND " DMU_NOT_PARKED("f")
				   " GROUP BY f.sqlstate"
				   " ORDER BY count(*) DESC, f.sqlstate"))
		return;
	picture->nkinds = (int) reader->table->numvals;
	for (int i = 0; i < Min(picture->nkinds, DMU_PICTURE_KINDS); i++)
	{
		DmuPictureKind *kind = &picture->kinds[i];

		reader->row = i;
		kind->sqlstate = read_text(reader, 1);
		kind->number = read_figure(reader, 2);
		kind->message = messages ? read_text(reader, 3) : NULL;
	}
}

static void
read_slowest(Reader *reader, bool ids)
{
	DmuPicture *picture = reader->picture;

	if (!read_rows(reader,
				   "SELECT s.dimension_user_id, s.priority, " USEC("s.elapsed") ", s.outcome"
				   "  FROM %s.datamart_users_slowest s"
				   " WHERE s.cycle_id = $1"
				   " ORDER BY s.position"
				   " LIMIT " CppAsString2(DMU_PICTURE_SLOWEST)))
		return;
	picture->nslowest = (int) reader->table->numvals;
	for (int i = 0; i < picture->nslowest; i++)
	{
		DmuPictureSlow *slow = &picture->slowest[i];

		reader->row = i;
		slow->dimension_user_id = ids ? read_figure(reader, 1) : DMU_UNKNOWN;
		slow->priority = read_text(reader, 2);
		slow->usec = read_figure(reader, 3);
		slow->outcome = read_text(reader, 4);
	}
}

/* The latest cycle of the datamart, of any if "users" is InvalidOid. */
static int64
read_latest(Reader *reader, Oid users, const char *users_name)
{
	dmu_owner_read_latest(&reader->scope,
						  "SELECT max(c.cycle_id) FROM %s.datamart_users_cycles c"
						  " WHERE " DMU_OF_DATAMART("c", "$1", "$2"),
						  DMU_PARAMS(dmu_param_oid(users),
									 dmu_param_text(users_name)));
	reader->table = SPI_tuptable;
	reader->row = 0;
	return read_figure(reader, 1);
}

/*
 * Of one cycle, or of the latest one of the datamart that the settings lead
 * to.  False if there is none; then "cycle_id" is that of another datamart.
 */
static bool
read_picture(Oid schema, bool latest, DmuPicture *picture)
{
	Reader		reader = {.context = CurrentMemoryContext,.picture = picture};
	bool		cycles = dmu_privilege_may_read(schema, "datamart_users_cycles");
	bool		messages = dmu_privilege_may_read(schema, "datamart_users_failures");
	bool		ids = dmu_privilege_may_read(schema, "datamart_users_slowest");
	Oid			users = latest ? dmu_warehouse_find_users() : InvalidOid;
	bool		found = true;

	if (OidIsValid(users))
		picture->users_table = dmu_warehouse_name(users);
	dmu_owner_enter(&reader.scope);
	if (latest)
	{
		picture->cycle_id = read_latest(&reader, users, picture->users_table);
		found = picture->cycle_id != DMU_UNKNOWN;
		if (!found)
			picture->cycle_id = read_latest(&reader, InvalidOid, NULL);
	}
	found = found && read_cycle(&reader);
	if (found)
	{
		read_comparison(&reader);
		read_priorities(&reader);
		read_profile(&reader);
		read_end(&reader, ids);
		read_failures(&reader, messages);
		read_slowest(&reader, ids);
	}
	dmu_owner_leave(&reader.scope);

	if (found && picture->lives)
		dmu_report_workers(picture,
						   dmu_privilege_may_read(schema, "datamart_users_workers"));
	if (found && picture->message != NULL && !cycles)
		picture->message_hidden = !dmu_privilege_has_role(picture->role_name);
	return found;
}

/* What there is to say where there is no latest cycle. */
static char *
describe_none(const DmuPicture *picture)
{
	if (picture->cycle_id == DMU_UNKNOWN)
		return pstrdup("There was no cycle yet.");
	return psprintf("There was no cycle of %s yet; the latest of another datamart is cycle " INT64_FORMAT ".",
					dmu_text_line(picture->users_table, 0),
					picture->cycle_id);
}

Datum
datamart_users_report(PG_FUNCTION_ARGS)
{
	DmuPicture *picture = palloc0(sizeof(DmuPicture));
	bool		latest = PG_ARGISNULL(0);

	picture->cycle_id = latest ? 0 : PG_GETARG_INT64(0);
	if (!read_picture(get_func_namespace(fcinfo->flinfo->fn_oid), latest, picture))
	{
		if (latest)
			PG_RETURN_TEXT_P(cstring_to_text(describe_none(picture)));
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cycle " INT64_FORMAT " is not in the history",
						PG_GETARG_INT64(0)),
				 errhint("See datamart_users_cycles for those that are, and datamart_users.history_retention for how long.")));
	}
	PG_RETURN_TEXT_P(cstring_to_text(dmu_picture_draw(picture)));
}
