/*-------------------------------------------------------------------------
 *
 * priority_query.c
 *		The text of the prioritisation.
 *
 *		A person can read it, EXPLAIN it and reckon with its order: the text for
 *		the person and the text that runs come from one builder, and differ in
 *		where the ids come from and in literals.
 *
 *		This file plans and runs nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "priority.h"
#include "priority_query.h"
#include "utils/builtins.h"

/*
 * All names are qualified: the text is run with the caller's search_path, as
 * what is behind his views and policies has to be, and by persons with theirs.
 */
#define EQUAL "OPERATOR(pg_catalog.=)"
#define LESS "OPERATOR(pg_catalog.<)"


DmuPriority
dmu_priority_of(int recency_class, int activity_class)
{
	Assert(recency_class >= 1 && recency_class <= DMU_NRECENCY + 1);
	Assert(activity_class >= 1 && activity_class <= DMU_NACTIVITY + 1);

	if (recency_class <= DMU_NRECENCY)
		return (DmuPriority) (DMU_CRITICAL + recency_class - 1);
	return (DmuPriority) (DMU_HISTORICAL + activity_class - 1);
}

/*
 * What is to be known of each: how many facts, and the last action.  Those
 * without facts come from the second branch.  It is no outer join, because a
 * planner that expects few rows would aggregate all of them anew for each.
 *
 * The ids are joined to the facts, or else compared with them as an array:
 * only that is sent to a foreign server, which would otherwise have to send
 * all of its facts.  Nobody compares what it sends back with the array, so
 * "waits" tells whose ids are in it.
 */
static void
append_counts(StringInfo buf, const DmuWarehouse *warehouse,
			  const DmuQueryParts *parts)
{
	const char *user = warehouse->facts_user.quoted;
	const char *time = warehouse->facts_time.quoted;

	if (parts->array == NULL)
		appendStringInfo(buf,
						 "        SELECT w.id,\n"
						 "               pg_catalog.count(*) AS action_count,\n"
						 "               pg_catalog.max(f.%s) AS last_action_at\n"
						 "        FROM %s\n"
						 "        JOIN %s AS f ON f.%s " EQUAL " w.id\n"
						 "        GROUP BY w.id\n",
						 time, parts->ids, warehouse->facts_name, user);
	else
		appendStringInfo(buf,
						 "        SELECT f.%s::bigint AS id,\n"
						 "               pg_catalog.count(*) AS action_count,\n"
						 "               pg_catalog.max(f.%s) AS last_action_at,\n"
						 "               false AS waits\n"
						 "        FROM %s AS f\n"
						 "        WHERE f.%s " EQUAL " ANY (%s)\n"
						 "        GROUP BY f.%s\n",
						 user, time, warehouse->facts_name, user, parts->array,
						 user);
	appendStringInfo(buf,
					 "        UNION ALL\n"
					 "        SELECT w.id, 0, NULL%s\n"
					 "        FROM %s\n",
					 parts->array == NULL ? "" : ", true", parts->ids);
}

char	   *
dmu_priority_build_counts(const DmuWarehouse *warehouse, DmuCounted counted)
{
	const char *user = warehouse->facts_user.quoted;
	const char *time = warehouse->facts_time.quoted;
	const char *what = psprintf("pg_catalog.count(*), pg_catalog.max(f.%s)",
								time);
	const char *key = warehouse->users_key.quoted;

	switch (counted)
	{
		case DMU_COUNT_IDS:
			return psprintf("SELECT w.id, %s\n"
							"FROM pg_catalog.unnest($1) AS w (id)\n"
							"JOIN %s AS f ON f.%s " EQUAL " w.id\n"
							"GROUP BY w.id",
							what, warehouse->facts_name, user);
		case DMU_COUNT_FLAGGED:
			return psprintf("SELECT f.%s::bigint, %s\n"
							"FROM %s AS u\n"
							"JOIN %s AS f ON f.%s " EQUAL " u.%s\n"
							"WHERE u.%s\n"
							"GROUP BY f.%s",
							user, what, warehouse->users_name,
							warehouse->facts_name, user, key,
							warehouse->users_flag.quoted, user);
		case DMU_COUNT_SINCE:
		case DMU_COUNT_BETWEEN:
			return psprintf("SELECT f.%s::bigint\n"
							"FROM %s AS f\n"
							"WHERE f.%s OPERATOR(pg_catalog.>=) (CURRENT_DATE OPERATOR(pg_catalog.-) $1)%s\n"
							"GROUP BY f.%s",
							user, warehouse->facts_name, time,
							counted == DMU_COUNT_SINCE ? "" :
							psprintf("\n  AND f.%s " LESS " (CURRENT_DATE OPERATOR(pg_catalog.-) $2)", time),
							user);
		case DMU_COUNT_ALL:
			break;
	}
	return psprintf("SELECT f.%s::bigint, %s\n"
					"FROM %s AS f\n"
					"GROUP BY f.%s",
					user, what, warehouse->facts_name, user);
}

char	   *
dmu_priority_build(const DmuWarehouse *warehouse, const DmuQueryParts *parts)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf,
						   "SELECT a.id AS dimension_user_id,\n"
						   "       CASE");
	for (int i = 0; i < DMU_NRECENCY; i++)
		appendStringInfo(&buf, "%s WHEN a.last_action_at OPERATOR(pg_catalog.>=) (CURRENT_DATE OPERATOR(pg_catalog.-) %s) THEN %d\n",
						 i == 0 ? "" : "           ", parts->days[i], i + 1);
	appendStringInfo(&buf,
					 "            ELSE %d\n"
					 "       END AS recency_class,\n"
					 "       CASE", DMU_NRECENCY + 1);
	for (int i = 0; i < DMU_NACTIVITY; i++)
		appendStringInfo(&buf, "%s WHEN a.action_count OPERATOR(pg_catalog.>) %s THEN %d\n",
						 i == 0 ? "" : "           ", parts->thresholds[i], i + 1);

	/*
	 * Not every date is a timestamp, and the first days of the calendar are
	 * none in some time zones; one bad fact must not end it all.
	 */
	appendStringInfo(&buf,
					 "            ELSE %d\n"
					 "       END AS activity_class,\n"
					 "       a.action_count,\n"
					 "       CASE WHEN a.last_action_at " LESS " '4700-01-01 BC' THEN '-infinity'\n"
					 "            WHEN a.last_action_at " LESS " '9999-12-31' THEN a.last_action_at::timestamp with time zone\n"
					 "            WHEN a.last_action_at IS NOT NULL THEN 'infinity'\n"
					 "       END AS last_action_at\n"
					 "FROM (\n"
					 "%s"
					 "    SELECT p.id,\n"
					 "           pg_catalog.max(p.action_count) AS action_count,\n"
					 "           pg_catalog.max(p.last_action_at) AS last_action_at\n"
					 "    FROM (\n",
					 DMU_NACTIVITY + 1, parts->with);
	append_counts(&buf, warehouse, parts);
	appendStringInfo(&buf,
					 "    ) AS p\n"
					 "    GROUP BY p.id\n"
					 "%s"
					 ") AS a\n",
					 parts->array == NULL ? "" : "    HAVING pg_catalog.bool_or(p.waits)\n");
	if (parts->limit != NULL)
		appendStringInfo(&buf,
						 "ORDER BY recency_class,\n"
						 "         activity_class,\n"
						 "         action_count DESC,\n"
						 "         a.last_action_at DESC NULLS LAST,\n"
						 "         dimension_user_id\n"
						 "LIMIT %s", parts->limit);
	return buf.data;
}

static const char *
without_held(const DmuWarehouse *warehouse, const DmuBacklog *backlog)
{
	StringInfoData buf;

	if (backlog->nheld == 0)
		return "";
	initStringInfo(&buf);
	appendStringInfoString(&buf,
						   "\n          AND NOT EXISTS (\n"
						   "              SELECT FROM pg_catalog.unnest('{");
	for (int i = 0; i < backlog->nheld; i++)
		appendStringInfo(&buf, "%s" INT64_FORMAT, i == 0 ? "" : ",", backlog->held[i]);
	appendStringInfo(&buf,
					 "}'::bigint[]) AS held (id)\n"
					 "              WHERE held.id " EQUAL " u.%s\n"
					 "          )",
					 warehouse->users_key.quoted);
	return buf.data;
}

char	   *
dmu_priority_query(const DmuWarehouse *warehouse, const DmuBacklog *backlog,
				   int max_users)
{
	DmuQueryParts parts = {
		.ids = "waiting AS w",
		.limit = psprintf("%d", max_users),
	};

	parts.with = psprintf("    WITH waiting AS MATERIALIZED (\n"
						  "        SELECT DISTINCT u.%s::bigint AS id\n"
						  "        FROM %s AS u\n"
						  "        WHERE u.%s\n"
						  "          AND u.%s IS NOT NULL%s\n"
						  "    )\n",
						  warehouse->users_key.quoted, warehouse->users_name,
						  warehouse->users_flag.quoted,
						  warehouse->users_key.quoted,
						  without_held(warehouse, backlog));
	for (int i = 0; i < DMU_NRECENCY; i++)
		parts.days[i] = psprintf("%d", dmu_recency_days[i]);
	for (int i = 0; i < DMU_NACTIVITY; i++)
		parts.thresholds[i] = psprintf("%d", dmu_activity_thresholds[i]);
	return dmu_priority_build(warehouse, &parts);
}
