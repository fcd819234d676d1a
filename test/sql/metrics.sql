--
-- metrics.sql
--		Guards what datamart_users_metrics makes of the history: each of the
--		recommended metrics over a cycle, a day and all, by priority and for
--		all priorities.
--
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
SET TimeZone = 'UTC';
SET IntervalStyle = 'postgres';

-- Nothing yet.
SELECT * FROM datamart_users_metrics;

-- Two cycles of one day, one that failed before it had a queue, one of the day
-- after that was aborted, and one that is running.
INSERT INTO datamart_users_cycles
	(cycle_id, status, role_name, started_at, finished_at, max_users, backlog,
	 found, processed, failed, skipped, deferred, workers_requested, workers)
OVERRIDING SYSTEM VALUE VALUES
	(1, 'completed',  'etl', '2025-03-01 10:00Z', '2025-03-01 10:02Z', 100, 150, 100, 90, 6, 2, 2, 2, 2),
	(2, 'time_limit', 'etl', '2025-03-01 11:00Z', '2025-03-01 11:01Z', 100,  60,  60, 30, 0, 0, 0, 2, 2),
	(3, 'failed',     'etl', '2025-03-01 12:00Z', '2025-03-01 12:00Z', NULL, NULL, NULL, 0, 0, 0, 0, 2, 0),
	(4, 'aborted',    'etl', '2025-03-02 10:00Z', '2025-03-09 10:00Z', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2, NULL),
	(5, 'running',    'etl', '2025-03-09 10:00Z', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2, NULL);
INSERT INTO datamart_users_cycle_priorities
	(cycle_id, priority, found, processed, failed, skipped, deferred, total_time, max_time) VALUES
	(1, 'critical', 20, 15, 5, 0, 0, '00:02:00', '00:00:30'),
	(1, 'lowest',   80, 75, 1, 2, 2, '00:01:20', '00:00:05'),
	(2, 'critical', 40, 30, 0, 0, 0, '00:01:30', '00:00:10'),
	(2, 'low',      20,  0, 0, 0, 0, '00:00:00', '00:00:00');
INSERT INTO datamart_users_cycle_profiles
	(cycle_id, p50, p95, p99, bucket_upto, bucket_count, sample_width, samples) VALUES
	(1, '1s', '10s', '30s', '{}', '{}', '1s', '{}');

CREATE FUNCTION plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS
$$ BEGIN RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || query; END $$;
CREATE VIEW metrics AS
SELECT *, row_number() OVER (
			ORDER BY array_position('{cycle,day,week,all}', period), period_start,
					 array_position('{critical,high,medium,historical,low,lowest}', priority) NULLS FIRST) AS line
  FROM datamart_users_metrics;

-- How many, and what became of them.
SELECT period, period_start, cycle_id, priority, cycles, found, processed, failed, skipped, deferred
  FROM metrics ORDER BY line;
-- Processing time, in total and per batch.
SELECT period, period_start::date AS day, cycle_id, priority, elapsed, total_time
  FROM metrics ORDER BY line;
-- Throughput, success rate, distribution.
SELECT period, period_start::date AS day, cycle_id, priority, users_per_minute, users_per_minute_working, success_rate, share
  FROM metrics ORDER BY line;
-- Average and longest time per datamart user.
SELECT period, period_start::date AS day, cycle_id, priority, avg_time, max_time, p50, p95, p99
  FROM metrics ORDER BY line;

-- It agrees with the view on the priorities of single cycles.
SELECT count(*) AS rows,
	   count(*) FILTER (WHERE r.avg_time IS DISTINCT FROM m.avg_time
						   OR r.users_per_minute IS DISTINCT FROM m.users_per_minute) AS differ
  FROM datamart_users_cycle_priority_rates AS r
  JOIN datamart_users_metrics AS m USING (cycle_id, priority)
 WHERE m.period = 'cycle';

-- One failure in a million is not a success of 100 %.
UPDATE datamart_users_cycles SET found = 1000000, processed = 999999, failed = 1, skipped = 0, deferred = 0 WHERE cycle_id = 1;
SELECT success_rate FROM datamart_users_metrics WHERE cycle_id = 1 AND priority IS NULL;

-- Days are those of the session.
SET TimeZone = 'Pacific/Kiritimati';
SELECT period_start, found FROM datamart_users_metrics WHERE period = 'day' AND priority IS NULL ORDER BY 1;

-- Another datamart with cycles of the same days is not added to the first one.
SET TimeZone = 'UTC';
CREATE TEMPORARY TABLE before AS SELECT * FROM datamart_users_metrics;
INSERT INTO datamart_users_cycles
	(cycle_id, status, role_name, started_at, finished_at, max_users, backlog,
	 found, processed, failed, skipped, deferred, workers_requested, workers, users_oid, users_table)
OVERRIDING SYSTEM VALUE VALUES
	(6, 'completed',  'etl', '2025-03-01 10:00Z', '2025-03-01 10:04Z', 100, 8, 8, 4, 4, 0, 0, 2, 2, 1, 'dwh.dimension_countries');
INSERT INTO datamart_users_cycle_priorities
	(cycle_id, priority, found, processed, failed, skipped, deferred, total_time, max_time) VALUES
	(6, 'critical', 2, 2, 0, 0, 0, '00:00:20', '00:00:15'),
	(6, 'lowest',   6, 2, 4, 0, 0, '00:03:30', '00:02:00');
SELECT period, priority, cycles, found, processed, failed, users_per_minute, success_rate, share, avg_time, max_time
  FROM datamart_users_metrics WHERE users_table = 'dwh.dimension_countries'
 ORDER BY array_position('{cycle,day,week,all}', period),
		  array_position('{critical,high,medium,historical,low,lowest}', priority) NULLS FIRST;
CREATE TEMPORARY VIEW after AS SELECT * FROM datamart_users_metrics WHERE users_table = 'dwh.dimension_users';
SELECT (SELECT count(*) FROM after) - (SELECT count(*) FROM before) AS more,
	   (SELECT count(*) FROM (TABLE after EXCEPT TABLE before) AS d) AS differ;
DROP VIEW after;
SELECT users_table, sum(found) AS found FROM datamart_users_cycle_priority_rates GROUP BY 1 ORDER BY 1;

-- Percentiles over days are those of all refreshes of the days, not of the
-- cycles; no percentile is beyond the longest refresh.
SELECT DISTINCT period, priority, p50, p95, p99 FROM metrics
 WHERE users_table = 'dwh.dimension_users' AND period <> 'cycle' AND p50 IS NOT NULL;
UPDATE datamart_users_cycle_priorities AS p
   SET p50 = h.p50, p95 = h.p95, p99 = p.max_time, bucket_upto = h.upto, bucket_count = h.count
  FROM (VALUES (1, 'critical', '1s'::interval, '1s'::interval, '{1s,32s}'::interval[], '{19,1}'::bigint[]),
			   (2, 'critical', '2s', '10s', '{2s,10s}', '{28,2}'),
			   (1, 'lowest', '1s', '2s', '{1s,2s}', '{40,38}'),
			   (6, 'critical', '15s', '15s', '{16s}', '{2}'),
			   (6, 'lowest', '120s', '120s', '{100s,128s}', '{1,5}')) AS h (cycle_id, priority, p50, p95, upto, count)
 WHERE p.cycle_id = h.cycle_id AND p.priority = h.priority;
SELECT users_table, period, cycle_id, priority, p50, p95, p99 FROM metrics
 WHERE (priority IN ('critical', 'lowest') OR priority IS NULL) AND p50 IS NOT NULL
 ORDER BY users_table DESC, line;
-- Nobody who does not ask for them pays for them.
\pset format unaligned
\pset tuples_only on
SELECT NOT string_agg(line, ' ') ~ 'unnest' AS cheap FROM plan_of('SELECT period, priority, processed FROM datamart_users_metrics') AS line;
\pset tuples_only off
\pset format aligned
SELECT priority, p50, p95, p99, bucket_upto, bucket_count
  FROM datamart_users_cycle_priority_rates WHERE cycle_id = 1 ORDER BY priority;

-- Who may read.
CREATE ROLE regress_dmu_metrics_reader IN ROLE pg_monitor;
CREATE ROLE regress_dmu_metrics_stranger;
SET ROLE regress_dmu_metrics_reader;
SELECT count(*) > 0 AS readable FROM datamart_users_metrics;
SET ROLE regress_dmu_metrics_stranger;
SELECT count(*) FROM datamart_users_metrics;
RESET ROLE;
DROP ROLE regress_dmu_metrics_reader, regress_dmu_metrics_stranger;

DROP VIEW metrics;
DROP FUNCTION plan_of(text);
DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
