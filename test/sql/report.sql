--
-- report.sql
--		Guards the picture that datamart_users_report() draws of a cycle, on a
--		history written by hand: in UTF8, and in ASCII for clients that have
--		no block characters.
--
-- The database is UTF8.
--
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
SET TimeZone = 'UTC';
\set SHOW_CONTEXT never
\pset format unaligned
\pset tuples_only on
SET client_encoding = 'UTF8';

-- Without a history.
SELECT datamart_users_report();

-- One cycle with all there is, at the most lines; its texts have what would
-- spoil a line.
INSERT INTO datamart_users_cycles
	(cycle_id, status, role_name, started_at, finished_at, max_users, time_limit, backlog,
	 found, processed, failed, skipped, deferred, workers_requested, workers,
	 prioritisation_time, message)
OVERRIDING SYSTEM VALUE VALUES
	(41, 'time_limit', 'etl', '2026-03-01 10:15:02Z', '2026-03-01 10:25:03.25Z', 20000, '10min', 123456,
	 20000, 18911, 42, 7, 3, 3, 2, '412.3ms', 'The time limit was reached.');
INSERT INTO datamart_users_cycle_priorities
	(cycle_id, priority, found, processed, failed, skipped, deferred, total_time, max_time, p50, p95, p99) VALUES
	(41, 'critical',    903,   889, 12, 0, 2, '00:03:10',    '00:00:41.2',   '57ms',    '459ms', '41.2s'),
	(41, 'high',       2210,  2190, 20, 0, 0, '00:02:44',    '00:00:03.4',   '49ms',    '229ms', '1.05s'),
	(41, 'medium',     4108,  4101,  6, 0, 1, '00:03:25',    '00:00:01.01',  '28.7ms',  '115ms', '9min 57s'),
	(41, 'historical',   12,    12,  0, 0, 0, '00:00:01',    '00:00:00.5',   '57ms',    '500ms', '90min'),
	(41, 'low',        1034,  1030,  4, 0, 0, '00:00:33',    '00:00:00.417', '24.5ms',  '98ms',  '28h'),
	(41, 'lowest',    11733, 10689,  0, 7, 0, '00:06:52.25', '00:00:00.09',  NULL,      NULL,    NULL);
INSERT INTO datamart_users_cycle_profiles
	(cycle_id, p50, p95, p99, bucket_upto, bucket_count, sample_width, samples,
	 planned_alone, idle_time, work_time, last_worker, last_user_id, last_priority, last_actions, last_elapsed) VALUES
	(41, '28.7ms', '114.7ms', '458.8ms',
	 '{0.9ms,6ms,14ms,24.5ms,28.7ms,49ms,57ms,98ms,115ms,229ms,459ms,917ms,3.7s,44s}',
	 '{7,90,480,7000,5100,3007,900,1200,604,310,150,70,44,1}',
	 '16s', '{52,120,204,330,410,512,604,700,733,690,610,0,0,204,380,520,611,640,655,700,712,690,681,660,640,655,610,590,577,560,540,525,510,500,490,480,470,100}',
	 1217, '100min 3.4s', '39h 20min', 1017, 1234567890123, 'historical', 4123456789, '100min 7s');
INSERT INTO datamart_users_failures
	(dimension_user_id, attempts, first_failed_at, last_failed_at, next_attempt_at, sqlstate, message, cycle_id)
SELECT i, 1, '2026-03-01 10:16Z', '2026-03-01 10:16Z',
	   CASE WHEN i % 2 = 0 THEN '2026-03-01 10:17Z' ELSE 'infinity' END::timestamptz,
	   CASE WHEN i <= 30 THEN 'P0002' WHEN i <= 38 THEN '22003' WHEN i <= 40 THEN '57014' ELSE '23505' END,
	   CASE WHEN i <= 30 THEN format(E'datamart user %s has no current row in dwh.dimension_users,\n\tand this is how that can be mended: ...', i)
			ELSE 'smallint außer Bereich' END,
	   41
  FROM generate_series(1, 42) AS i;
INSERT INTO datamart_users_slowest
	(cycle_id, position, dimension_user_id, priority, outcome, elapsed)
SELECT 41, i, 1000 + i, 'critical', CASE i WHEN 2 THEN 'failed' ELSE 'processed' END, interval '41.2s' / i
  FROM generate_series(1, 10) AS i;
SELECT datamart_users_report(41);

-- The same for a client without block characters, nor this letter.
SET client_encoding = 'WIN1251';
SELECT datamart_users_report(41);
SET client_encoding = 'SQL_ASCII';
SELECT datamart_users_report(41) ~ '^[\n -~]+$' AS plain;
SET client_encoding = 'UTF8';

-- It is one screen.
SELECT count(*) AS lines, max(length(line)) AS width, count(*) FILTER (WHERE line ~ ' $') AS blanks_at_end
  FROM string_to_table(datamart_users_report(41), E'\n') AS line;

-- With fewer lines of the histogram than priorities, and with none of the latter
-- but one.
BEGIN;
UPDATE datamart_users_cycle_profiles SET bucket_upto = '{14ms,44s}', bucket_count = '{17,4}' WHERE cycle_id = 41;
SELECT substring(datamart_users_report(41) FROM 'Refresh times.*?(?=\n\n)');
DELETE FROM datamart_users_cycle_priorities WHERE cycle_id = 41 AND priority <> 'high';
SELECT substring(datamart_users_report(41) FROM 'Refresh times.*?(?=\n\n)');
ROLLBACK;

-- Nothing to do; nothing known; a short one; and one that nobody ended.
INSERT INTO datamart_users_cycles
	(cycle_id, status, role_name, started_at, finished_at, max_users, backlog,
	 found, processed, failed, skipped, deferred, workers_requested, workers,
	 prioritisation_time, message)
OVERRIDING SYSTEM VALUE VALUES
	(42, 'completed', 'etl', '2026-03-01 11:00Z', '2026-03-01 11:00:00.0123Z', 1000, 0, 0, 0, 0, 0, 0, 2, 1, '4ms', NULL),
	(43, 'failed', 'etl', '2026-03-01 12:00Z', '2026-03-01 12:00:00.02Z', NULL, NULL, NULL, 0, 0, 0, 0, 2, 0, NULL,
	 'relation "dwh.facts" does not exist'),
	(44, 'completed', 'etl', '2026-03-01 13:00Z', '2026-03-01 13:00:00.9Z', 1000, 2, 2, 2, 0, 0, 0, 1, 1, '4ms', NULL),
	(45, 'aborted', 'etl', '2026-03-01 14:00Z', '2026-03-02 14:00Z', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2, NULL, NULL,
	 'The server went down during the cycle.'),
	(46, 'running', 'etl', '2026-03-02 14:00Z', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2, NULL, NULL, NULL);
INSERT INTO datamart_users_cycle_priorities
	(cycle_id, priority, found, processed, failed, skipped, deferred, total_time, max_time) VALUES
	(44, 'high', 2, 2, 0, 0, 0, '00:00:00.8', '00:00:00.79');
INSERT INTO datamart_users_cycle_profiles
	(cycle_id, p50, p95, p99, bucket_upto, bucket_count, sample_width, samples) VALUES
	(42, NULL, NULL, NULL, '{}', '{}', '1s', '{}'),
	(44, '9ms', '790ms', '790ms', '{9ms,917ms}', '{1,1}', '1s', '{2}');
SELECT datamart_users_report(42);
SELECT datamart_users_report(43);
SELECT datamart_users_report(44);
SELECT datamart_users_report(45);
-- The latest is the default.
SELECT datamart_users_report();

-- From microseconds to hours: still seven lines.
UPDATE datamart_users_cycle_profiles
   SET bucket_upto = ARRAY['80us', '1ms', '11ms', '1s', '9s', '100s', '10h']::interval[],
	   bucket_count = '{1,2,4,8,16,32,1000000}'
 WHERE cycle_id = 44;
SELECT line
  FROM string_to_table(datamart_users_report(44), E'\n') WITH ORDINALITY AS l (line, number)
 WHERE line LIKE '  ≤ %'
 ORDER BY number;

-- How durations are written.
CREATE TEMPORARY TABLE durations AS
SELECT 1000 + row_number() OVER () AS cycle_id, d
  FROM unnest('{0,1us,949us,950us,9.94ms,9.95ms,99.4ms,999ms,999.5ms,1s,59.94s,59.95s,61s,3599.4s,3599.5s,90min,48h}'::interval[]) AS d;
INSERT INTO datamart_users_cycles
	(cycle_id, status, role_name, started_at, finished_at)
OVERRIDING SYSTEM VALUE
SELECT cycle_id, 'completed', 'etl', '2026-03-01 15:00Z', '2026-03-01 15:00Z'::timestamptz + d FROM durations;
SELECT string_agg(substring(datamart_users_report(cycle_id) FROM 'after ([^\n]*)'), ', ' ORDER BY cycle_id) FROM durations;
DELETE FROM datamart_users_cycles WHERE cycle_id > 1000;

-- What is invisible, turns texts around or breaks lines does not get through,
-- neither in a message nor in the name of a role.
INSERT INTO datamart_users_cycles
	(cycle_id, status, role_name, started_at, finished_at, message)
OVERRIDING SYSTEM VALUE
SELECT 1000, 'failed', U&'ad\200Bmin\202Elte', '2026-03-01 15:00Z', '2026-03-01 15:00Z', U&'a\00A0b\2028c\2067d\200De\00E9';
SELECT datamart_users_report(1000);
CREATE FUNCTION shown(message text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	UPDATE datamart_users_cycles SET message = shown.message WHERE cycle_id = 1000;
	RETURN split_part(datamart_users_report(1000), E'\n', 2);
END;
$$;
SELECT shown
  FROM unnest('{[1,31],[127,160],[173,173],[847,847],[1536,1541],[1564,1564],[4447,4448],[6155,6159],
				[8203,8207],[8232,8238],[8288,8303],[12644,12644],[65024,65039],[65279,65279],
				[65529,65531],[69821,69821],[113824,113827],[119155,119162],[917505,917631],
				[917760,917999]}'::int4multirange) AS r,
	   generate_series(lower(r), upper(r) - 1) AS c,
	   shown('a' || chr(c) || 'b')
 GROUP BY shown
 ORDER BY shown COLLATE "C";
-- And all else does.
SELECT count(*) AS different
  FROM string_to_table(U&'\00E9 \0416 \05D0 \0627 \0E01 \4E2D \AC00 \+01F600', ' ') AS c
 WHERE shown(c) <> '  ' || c;
DROP FUNCTION shown(text);
DELETE FROM datamart_users_cycles WHERE cycle_id = 1000;

-- Ids that never were.
SELECT datamart_users_report(47); \echo :SQLSTATE
SELECT datamart_users_report(-1); \echo :SQLSTATE

-- Whoever may call it needs nothing else.
CREATE ROLE regress_dmu_report_reader;
GRANT EXECUTE ON FUNCTION datamart_users_report(bigint) TO regress_dmu_report_reader;
SET ROLE regress_dmu_report_reader;
SELECT datamart_users_report(42);
-- But ids and messages are for those who may read the tables they are from.
\set third 'SELECT line FROM string_to_table(datamart_users_report(41), E''\\n'') WITH ORDINALITY AS l (line, number) WHERE number IN (2, 3) OR number > 33 ORDER BY number;'
:third
RESET ROLE;
GRANT SELECT ON datamart_users_failures TO regress_dmu_report_reader;
UPDATE datamart_users_cycles SET role_name = 'regress_dmu_report_reader' WHERE cycle_id = 41;
SET ROLE regress_dmu_report_reader;
:third
RESET ROLE;
REVOKE ALL ON datamart_users_failures FROM regress_dmu_report_reader;
REVOKE ALL ON FUNCTION datamart_users_report(bigint) FROM regress_dmu_report_reader;
SET ROLE regress_dmu_report_reader;
SELECT datamart_users_report(42); \echo :SQLSTATE
RESET ROLE;
DROP ROLE regress_dmu_report_reader;

-- By default the latest cycle of the datamart of the settings.  A name that
-- does not fit is cut; one that leads nowhere leaves the choice to all cycles.
CREATE TABLE dwh.dimension_countries (dimension_user_id integer, modified boolean);
UPDATE datamart_users_cycles SET users_oid = 'dwh.dimension_countries'::regclass, users_table = 'dwh."' || repeat('countries ', 12) || '"' WHERE cycle_id = 42;
\set title 'SELECT line FROM string_to_table(datamart_users_report(), E''\\n'') WITH ORDINALITY AS l (line, number) WHERE number = 1 OR line LIKE ''  users table%'' ORDER BY number;'
SELECT max(cycle_id) AS latest FROM datamart_users_cycles;
:title
SET datamart_users.users_table = 'dwh.dimension_countries';
:title
SET datamart_users.users_table = 'dwh.no_such_table';
:title
SET datamart_users.users_table = 'dwh.facts';
:title
RESET datamart_users.users_table;

-- In a database without block characters, whatever the client has.
SELECT current_database() AS home \gset
CREATE DATABASE regress_dmu_report ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;
\c regress_dmu_report
SET client_encoding = 'UTF8';
SET TimeZone = 'UTC';
CREATE EXTENSION datamart_users;
ALTER TABLE datamart_users_cycles ALTER users_oid SET DEFAULT 0, ALTER users_table SET DEFAULT 'dwh.dimension_users';
INSERT INTO datamart_users_cycles
	(status, role_name, started_at, finished_at, max_users, backlog,
	 found, processed, failed, skipped, deferred, workers_requested, workers,
	 prioritisation_time)
VALUES ('completed', 'etl', '2026-03-01 13:00Z', '2026-03-01 13:00:00.9Z', 1000, 6, 6, 6, 0, 0, 0, 1, 1, '4ms');
INSERT INTO datamart_users_cycle_priorities
	(cycle_id, priority, found, processed, failed, skipped, deferred, total_time, max_time)
VALUES (1, 'high', 6, 6, 0, 0, 0, '00:00:00.8', '00:00:00.79');
INSERT INTO datamart_users_cycle_profiles
	(cycle_id, p50, p95, p99, bucket_upto, bucket_count, sample_width, samples)
VALUES (1, '9ms', '790ms', '790ms', '{9ms,917ms}', '{5,1}', '1s', '{2,3,1}');
SELECT datamart_users_report();
\c :home
SET client_min_messages = warning;
DROP DATABASE regress_dmu_report;

DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
