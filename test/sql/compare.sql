--
-- compare.sql
--		Guards what the history says of the present: what is unusual in a cycle,
--		days and weeks side by side, and when the backlog is drained.
--
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
SET TimeZone = 'UTC';
SET IntervalStyle = 'postgres';

-- Nothing yet.
SELECT * FROM datamart_users_cycle_comparison;
SELECT * FROM datamart_users_periods;
SELECT * FROM datamart_users_drain;

--
-- One cycle beside the thirty before it.
--
-- Forty nights of about four minutes, and those that do not count: aborted,
-- failed, of another datamart.
INSERT INTO datamart_users_cycles
	(status, role_name, started_at, finished_at, max_users, backlog, found, processed,
	 failed, skipped, deferred, workers_requested, workers, prioritisation_time, users_oid, users_table)
SELECT 'completed', 'etl', night, night + make_interval(secs => 240 + i % 7), 10000, 5000 + 20 * (i % 5), 5000, 5000 - i % 3,
	   i % 3, 0, 0, 2, 2, '00:00:02', 1, 'dwh.dimension_users'
  FROM generate_series(1, 40) AS i, make_interval(days => i) AS nights, LATERAL (SELECT '2025-01-01 02:00Z'::timestamptz + nights AS night) AS n;
INSERT INTO datamart_users_cycle_profiles (cycle_id, p50, p95, p99, bucket_upto, bucket_count, sample_width, samples)
SELECT cycle_id, '80ms', '200ms', '300ms', '{}', '{}', '1s', '{}' FROM datamart_users_cycles;
INSERT INTO datamart_users_cycles
	(cycle_id, status, role_name, started_at, finished_at, backlog, found, processed, failed, skipped, deferred, users_oid, users_table, counted_at)
OVERRIDING SYSTEM VALUE VALUES
	(41, 'aborted', 'etl', '2025-02-11 02:00Z', '2025-02-11 09:00Z', 5000, 5000, 700, 0, 0, 0, 1, 'dwh.dimension_users', '2025-02-11 02:00:30Z'),
	(42, 'failed',  'etl', '2025-02-11 10:00Z', '2025-02-11 10:01Z', NULL, NULL, NULL, NULL, NULL, NULL, 1, 'dwh.dimension_users', NULL),
	(43, 'completed', 'etl', '2025-02-11 11:00Z', '2025-02-11 21:00Z', 9, 9, 9, 0, 0, 0, 2, 'dwh.dimension_countries', NULL),
	(44, 'completed', 'etl', '2025-02-12 02:00Z', '2025-02-12 02:12Z', 5100, 5000, 4960, 40, 0, 0, 1, 'dwh.dimension_users', NULL),
	(45, 'completed', 'etl', '2025-02-13 02:00Z', '2025-02-13 02:04Z', 5100, 5000, 4999, 1, 0, 0, 1, 'dwh.dimension_users', NULL),
	(46, 'running', 'etl', '2025-02-14 02:00Z', NULL, 5100, 5000, 10, 1, 0, 0, 1, 'dwh.dimension_users', '2025-02-14 02:00:10Z');
INSERT INTO datamart_users_cycle_profiles (cycle_id, p50, p95, p99, bucket_upto, bucket_count, sample_width, samples)
VALUES (44, '85ms', '900ms', '2s', '{}', '{}', '1s', '{}');
INSERT INTO datamart_users_cycle_priorities
	(cycle_id, priority, found, processed, failed, skipped, deferred, total_time, max_time) VALUES
	(41, 'critical', 5000, 700, 0, 0, 0, '00:01:00', '00:00:01');

SELECT measure, unit, value, cycles, median, low, high, unusual
  FROM datamart_users_cycle_comparison WHERE cycle_id = 44;
SELECT cycle_id, string_agg(measure, ', ') AS unusual FROM datamart_users_cycle_comparison WHERE unusual GROUP BY cycle_id ORDER BY cycle_id;
-- Too few to say, none to say, none at all.
SELECT cycle_id, max(cycles) AS cycles, bool_or(unusual) AS unusual
  FROM datamart_users_cycle_comparison WHERE cycle_id IN (1, 10, 11, 43, 46) GROUP BY cycle_id ORDER BY cycle_id;
-- The report says it in a line.
\pset format unaligned
\pset tuples_only on
SELECT split_part(datamart_users_report(44), E'\n', 10);
SELECT split_part(datamart_users_report(45), E'\n', 10);
SELECT count(*) FROM regexp_split_to_table(datamart_users_report(9), E'\n') AS line WHERE line ~ 'unusual';
SELECT split_part(datamart_users_report(41), E'\n', 1);
\pset tuples_only off
\pset format aligned

-- An aborted cycle counts as far as its counts were written down.
SELECT period, priority, processed, elapsed, users_per_minute, users_per_minute_working
  FROM datamart_users_metrics WHERE cycle_id = 41 ORDER BY priority NULLS FIRST;
SELECT priority, users_per_minute FROM datamart_users_cycle_priority_rates WHERE cycle_id = 41;

--
-- Days and weeks.
--
SELECT period, period_start::date AS start, cycles, processed, failed, users_per_minute, users_per_minute_working,
	   cycle_p50, cycle_p95, processed_change, failed_change
  FROM datamart_users_periods WHERE users_table = 'dwh.dimension_users' AND period_start >= '2025-02-10'
 ORDER BY period, period_start;
-- The hours of a day are as many as it has.
TRUNCATE datamart_users_cycles CASCADE;
INSERT INTO datamart_users_cycles (status, role_name, started_at, finished_at, backlog, found, processed, failed, skipped, deferred, users_oid, users_table)
SELECT 'completed', 'etl', start, start + interval '1 hour', 2760, 2760, 2760, 0, 0, 0, 1, 'dwh.dimension_users'
  FROM unnest('{2025-03-29 12:00Z,2025-03-30 12:00Z,2025-10-26 12:00Z}'::timestamptz[]) AS start;
SET TimeZone = 'Europe/Berlin';
SELECT period_start::date AS day, users_per_minute, users_per_minute_working FROM datamart_users_periods WHERE period = 'day' ORDER BY 1;
SET TimeZone = 'UTC';
-- One that goes on beyond the end of the day is not counted as if it had not.
UPDATE datamart_users_cycles SET finished_at = started_at + interval '20 hours';
SELECT period_start::date AS day, users_per_minute, users_per_minute_working FROM datamart_users_periods WHERE period = 'day' ORDER BY 1;
-- Percentiles are those of all refreshes together.
INSERT INTO datamart_users_cycle_priorities
	(cycle_id, priority, found, processed, failed, skipped, deferred, total_time, max_time, bucket_upto, bucket_count)
SELECT cycle_id, 'critical', 100, 100, 0, 0, 0, '10s', '10s', ARRAY['1s', '10s']::interval[], CASE WHEN row_number() OVER (ORDER BY started_at) = 1 THEN '{99,1}'::bigint[] ELSE '{1,99}' END
  FROM datamart_users_cycles;
SELECT period, period_start::date AS start, p50, p95, p95_change FROM datamart_users_periods ORDER BY period, start;

--
-- When the backlog is drained.
--
CREATE FUNCTION pg_temp.cycles(looks text) RETURNS void LANGUAGE sql AS $$
	TRUNCATE datamart_users_cycles CASCADE;
	INSERT INTO datamart_users_cycles (status, role_name, started_at, finished_at, backlog, found, processed, failed, skipped, deferred, users_oid, users_table)
	SELECT look[5], 'etl', now() - look[1]::interval, CASE WHEN look[5] <> 'running' THEN now() - look[1]::interval + interval '1 min' END,
		   nullif(look[2], '-')::bigint, nullif(look[3], '-')::integer + nullif(look[4], '-')::integer,
		   nullif(look[3], '-')::integer, 0, nullif(look[4], '-')::integer, 0, 1, 'dwh.dimension_users'
	  FROM regexp_split_to_table(looks, '\s*;\s*') WITH ORDINALITY AS t (line, n), LATERAL (SELECT regexp_split_to_array(line, '\s*,\s*') AS look) AS l
	 ORDER BY n
$$;
CREATE TEMPORARY VIEW drain AS
SELECT period, looks, date_trunc('minute', now() - looked_at) AS ago, backlog, inflow, outflow, difference, failing, inflow_per_hour AS in_hour, outflow_per_hour AS out_hour, date_trunc('minute', now() - drained_at) AS drained_ago, drained_in, estimate
  FROM datamart_users_drain;

-- ago, backlog, processed, skipped, status
SELECT pg_temp.cycles('10 min, 500, 100, 0, completed');
TABLE drain;
-- Twice 600 came; 3000 were cleared by cycles, 200 by others.
SELECT pg_temp.cycles('65 min, 9000, 1000, 0, completed; 50 min, 8600, 900, 100, completed; 35 min, 8200, 1000, 0, completed; 5 min, 7000, 1000, 0, completed');
TABLE drain;
-- More come than go, and as many.
SELECT pg_temp.cycles('50 min, 1000, 1000, 0, completed; 35 min, 1100, 1000, 0, completed; 5 min, 1300, 1000, 0, completed');
TABLE drain;
SELECT pg_temp.cycles('50 min, 2000, 1000, 0, completed; 35 min, 2000, 1000, 0, completed');
TABLE drain;
-- Nothing happens.
SELECT pg_temp.cycles('50 min, 2000, 0, 0, completed; 35 min, 2000, 0, 0, completed');
TABLE drain;
-- Drained every time.
SELECT pg_temp.cycles('50 min, 2000, 2000, 0, completed; 35 min, 2000, 2000, 0, completed');
TABLE drain;
-- Somebody has cleared flags, or parked them.
SELECT pg_temp.cycles('50 min, 2000, 100, 0, completed; 35 min, 1000, 100, 0, completed');
TABLE drain;
-- A cycle that never looked does not count, one that runs or was aborted does as
-- far as it is known.
SELECT pg_temp.cycles('90 min, 2000, 500, 0, aborted; 80 min, -, -, -, aborted; 70 min, -, -, -, failed; 30 min, 1500, 500, 0, completed; 1 min, 1000, 200, 0, running');
TABLE drain;
-- Bursts that are drained in between: what is left of them is no rate.
SELECT pg_temp.cycles('5 hours, 100, 100, 0, completed; 3 hours, 900, 900, 0, completed; 30 min, 700, 500, 0, completed; 10 min, 600, 500, 0, completed');
TABLE drain;
-- Not so while more come than go, look after look.
SELECT pg_temp.cycles('5 hours, 100, 100, 0, completed; 3 hours, 900, 900, 0, completed; 30 min, 700, 500, 0, completed; 10 min, 800, 500, 0, completed');
SELECT period, backlog, difference, drained_ago, drained_in, estimate FROM drain;
SELECT pg_temp.cycles('5 hours, 100, 100, 0, completed; 3 hours, 900, 900, 0, completed; 30 min, 700, 500, 0, completed; 10 min, 600, 500, 0, completed');
-- A queue that the limit did not cut short was everybody that could be taken,
-- unless the cycle did not come to its end.
UPDATE datamart_users_cycles SET found = 500, max_users = 501 WHERE backlog = 600;
SELECT period, backlog, failing, drained_ago, estimate FROM drain;
UPDATE datamart_users_cycles SET max_users = 500 WHERE backlog = 600;
SELECT period, backlog, failing, drained_ago, estimate FROM drain;
UPDATE datamart_users_cycles SET max_users = 501, processed = 499 WHERE backlog = 600;
SELECT period, backlog, failing, drained_ago, estimate FROM drain;
-- Who fails is not drained by any rate, unless parked.
SELECT pg_temp.cycles('50 min, 2000, 1000, 0, completed; 5 min, 1012, 1000, 0, completed');
TABLE drain;
INSERT INTO datamart_users_failures
SELECT i, 1, now(), now(), now(), 'P0001', 'bad data', NULL, 1, CASE WHEN i <= 12 THEN 1 ELSE 2 END, CASE WHEN i <= 12 THEN 'dwh.dimension_users' ELSE 'dwh.dimension_countries' END
  FROM generate_series(1, 20) AS i;
INSERT INTO datamart_users_contention
SELECT i, 1, now(), now(), now(), '40001', 'collided', 1, 1, 'dwh.dimension_users' FROM generate_series(12, 12) AS i;
TABLE drain;
INSERT INTO datamart_users_parked VALUES (12, 'known', now(), 'etl', 1, 'dwh.dimension_users');
TABLE drain;
TRUNCATE datamart_users_failures, datamart_users_contention, datamart_users_parked;
-- So slowly that it is no interval any more.
SELECT pg_temp.cycles('6 days, 9000000000, 1, 0, completed; 1 min, 8999999999, 0, 0, completed');
TABLE drain;
-- Each datamart for itself.
UPDATE datamart_users_cycles SET users_oid = 2, users_table = 'dwh.dimension_countries' WHERE processed = 0;
SELECT users_table, period, looks, estimate FROM datamart_users_drain ORDER BY 1, 2;

DROP VIEW drain;
DROP FUNCTION pg_temp.cycles;
DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
