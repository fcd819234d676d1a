--
-- settings.sql
--		Guards the settings: their defaults and ranges, that each is checked
--		before anything starts, and that a session's settings reach the
--		workers of its cycle.
--
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
\set SHOW_CONTEXT never

\pset format unaligned
SELECT name, boot_val, unit, vartype, min_val, max_val
  FROM pg_settings
 WHERE name LIKE 'datamart\_users.%'
 ORDER BY name COLLATE "C";
\pset format aligned
-- What would be odd in that table.
SELECT name, context, boot_val, reset_val, short_desc
  FROM pg_settings
 WHERE name LIKE 'datamart\_users.%'
   AND (context <> 'user' OR boot_val <> reset_val OR short_desc !~ '^Sets .*\.$')
 ORDER BY name COLLATE "C";

--
-- Values that cannot be set.
--
-- The server's own checks, in its own words.
\set VERBOSITY sqlstate
SET datamart_users.max_users_per_cycle = 0;
SET datamart_users.max_users_per_cycle = 10000001;
SET datamart_users.max_users_per_cycle = 'many';
SET datamart_users.max_workers = -1;
SET datamart_users.max_workers = 1025;
SET datamart_users.catchup_threshold = -1;
SET datamart_users.catchup_max_users = 10000001;
SET datamart_users.cycle_time_limit = '-1s';
SET datamart_users.cycle_time_limit = '30d';
SET datamart_users.user_timeout = '5 apples';
SET datamart_users.user_timeout = -1;
SET datamart_users.retry_delay = -1;
SET datamart_users.retry_delay_max = -1;
SET datamart_users.progress_interval = -1;
SET datamart_users.log_every_users = -1;
SET datamart_users.history_retention = '-1d';
SET datamart_users.no_such_setting = 1;
\set VERBOSITY default

SET datamart_users.recency_days = '7, 30'; \echo :SQLSTATE
SET datamart_users.recency_days = '7, 30, 90, 365'; \echo :SQLSTATE
SET datamart_users.recency_days = '7, 7, 90'; \echo :SQLSTATE
SET datamart_users.recency_days = '90, 30, 7'; \echo :SQLSTATE
SET datamart_users.recency_days = '0, 30, 90'; \echo :SQLSTATE
SET datamart_users.recency_days = '7, 30, 365001'; \echo :SQLSTATE
SET datamart_users.recency_days = '7, 30, 99999999999999999999'; \echo :SQLSTATE
SET datamart_users.recency_days = '7; 30; 90'; \echo :SQLSTATE
SET datamart_users.recency_days = '7, 30, 90 days'; \echo :SQLSTATE
SET datamart_users.recency_days = ''; \echo :SQLSTATE
SET datamart_users.activity_thresholds = '100'; \echo :SQLSTATE
SET datamart_users.activity_thresholds = '10, 100'; \echo :SQLSTATE
SET datamart_users.activity_thresholds = '10, 10'; \echo :SQLSTATE
SET datamart_users.activity_thresholds = '100, -1'; \echo :SQLSTATE
SET datamart_users.activity_thresholds = '2147483648, 10'; \echo :SQLSTATE
SET datamart_users.activity_thresholds = 'a, b'; \echo :SQLSTATE

SET datamart_users.facts_table = ''; \echo :SQLSTATE
SET datamart_users.facts_table = 'db.dwh.facts'; \echo :SQLSTATE
SET datamart_users.facts_table = 'dwh."facts'; \echo :SQLSTATE
SET datamart_users.facts_table = 'dwh.facts; DROP TABLE dwh.facts'; \echo :SQLSTATE
SET datamart_users.users_table = 'dwh.'; \echo :SQLSTATE
SET datamart_users.users_table = 'dwh.""'; \echo :SQLSTATE
SET datamart_users.users_table = '"".users'; \echo :SQLSTATE
SET datamart_users.users_table = 'two names'; \echo :SQLSTATE
SET datamart_users.procedure = ''; \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.p()'; \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.p(integer'; \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.p(integer,)'; \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.p(integer) x'; \echo :SQLSTATE

SET datamart_users.worker_settings = 'jit'; \echo :SQLSTATE
SET datamart_users.worker_settings = 'jit ='; \echo :SQLSTATE
SET datamart_users.worker_settings = 'jit = off,'; \echo :SQLSTATE
SET datamart_users.worker_settings = ', jit = off'; \echo :SQLSTATE
SET datamart_users.worker_settings = 'jit = off work_mem = 1MB'; \echo :SQLSTATE
SET datamart_users.worker_settings = 'search_path = a, b'; \echo :SQLSTATE
SET datamart_users.worker_settings = 'search_path = ''a, b'; \echo :SQLSTATE

-- None of them is in force.
SELECT name, setting
  FROM pg_settings
 WHERE name LIKE 'datamart\_users.%' AND setting <> boot_val
 ORDER BY name COLLATE "C";

--
-- The settings of a worker.  The procedure writes down those in dwh.watched.
--
CREATE TABLE dwh.watched (name text);
CREATE TABLE dwh.seen (name text, value text);
CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_dimension_user_id integer)
LANGUAGE sql
AS $$
	TRUNCATE dwh.seen;
	INSERT INTO dwh.seen SELECT name, current_setting(name, true) FROM dwh.watched;
$$;
INSERT INTO dwh.dimension_users VALUES (1, 'one', true);
-- Runs a cycle and shows what it saw; the flag is set again for the next.
PREPARE again AS UPDATE dwh.dimension_users SET modified = true RETURNING dimension_user_id;
PREPARE seen AS SELECT name, value FROM dwh.seen ORDER BY name COLLATE "C";

INSERT INTO dwh.watched VALUES
	('search_path'), ('TimeZone'), ('DateStyle'), ('work_mem'), ('lock_timeout'),
	('my.setting'), ('datamart_users.user_timeout'), ('transaction_isolation');
SET search_path = "Odd one", public;
SET TimeZone = 'Asia/Kathmandu';
SET DateStyle = 'German, YMD';
SET work_mem = '1234kB';
SET lock_timeout = '77s';
SET my.setting = 'of the session, with ''quotes'' and "others"';
SET datamart_users.user_timeout = '99min';
SELECT status, processed FROM datamart_users_run_cycle();
EXECUTE seen;

-- The same if the call that waits is not the one that starts.
EXECUTE again \g /dev/null
SET my.setting = 'of start_cycle';
SELECT status, processed
  FROM datamart_users_wait_cycle(datamart_users_start_cycle());
SELECT value FROM dwh.seen WHERE name = 'my.setting';

-- SET LOCAL of a function that calls.
EXECUTE again \g /dev/null
CREATE FUNCTION call_with_work_mem() RETURNS integer
LANGUAGE sql SET work_mem = '2345kB'
AS 'SELECT processed FROM datamart_users_run_cycle()';
SELECT call_with_work_mem();
SELECT value FROM dwh.seen WHERE name = 'work_mem';
DROP FUNCTION call_with_work_mem();
RESET search_path;
RESET TimeZone;
RESET DateStyle;
RESET work_mem;
RESET lock_timeout;
RESET my.setting;
RESET datamart_users.user_timeout;

-- Of the database and the role, for sessions that begin after it.
ALTER DATABASE :"DBNAME" SET my.setting = 'of the database';
ALTER DATABASE :"DBNAME" SET datamart_users.max_users_per_cycle = 1;
ALTER ROLE CURRENT_USER IN DATABASE :"DBNAME" SET work_mem = '3456kB';
ALTER ROLE CURRENT_USER IN DATABASE :"DBNAME" SET datamart_users.procedure = 'no_such_procedure';
\c -
SET client_min_messages = warning;
SET datamart_users.progress_interval = 0;
INSERT INTO dwh.dimension_users VALUES (2, 'two', true), (3, 'three', true);
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.update_datamart_user';
SELECT status, found, processed FROM datamart_users_run_cycle();
SELECT name, value FROM dwh.seen WHERE name IN ('my.setting', 'work_mem') ORDER BY name;
ALTER DATABASE :"DBNAME" RESET my.setting;
ALTER DATABASE :"DBNAME" RESET datamart_users.max_users_per_cycle;
ALTER ROLE CURRENT_USER IN DATABASE :"DBNAME" RESET work_mem;
ALTER ROLE CURRENT_USER IN DATABASE :"DBNAME" RESET datamart_users.procedure;

-- Set before the library is there to check them.
\c -
SET client_min_messages = warning;
SET datamart_users.progress_interval = 0;
SET datamart_users.max_users_per_cycle = 'many';
SET datamart_users.no_such_setting = 1;
LOAD 'datamart_users';
SHOW datamart_users.max_users_per_cycle;
SHOW datamart_users.no_such_setting;
SHOW datamart_users.progress_interval;
-- A name that there is not is told once; a cycle must not run with the default,
-- until a good value is set.
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.max_users_per_cycle = 1000;

--
-- worker_settings: over those of the session, unless it says otherwise.
--
PREPARE again AS UPDATE dwh.dimension_users SET modified = true WHERE dimension_user_id = 1 RETURNING 1;
PREPARE seen AS SELECT name, value FROM dwh.seen ORDER BY name COLLATE "C";
TRUNCATE dwh.watched;
INSERT INTO dwh.watched VALUES
	('jit'), ('plan_cache_mode'), ('max_parallel_workers_per_gather'), ('synchronous_commit'),
	('work_mem'), ('search_path'), ('my.setting');
SET jit = on;
SET plan_cache_mode = force_custom_plan;
SET max_parallel_workers_per_gather = 4;
SET synchronous_commit = on;
SET work_mem = '1111kB';
EXECUTE again \g /dev/null
SELECT status, processed FROM datamart_users_run_cycle();
EXECUTE seen;
SET datamart_users.worker_settings = '';
EXECUTE again \g /dev/null
SELECT status, processed FROM datamart_users_run_cycle();
EXECUTE seen;
SET datamart_users.worker_settings =
	'work_mem = 5MB, JIT=off,search_path = ''"Odd, one", dwh'' , my.setting = ''it''''s = 1''';
EXECUTE again \g /dev/null
SELECT status, processed FROM datamart_users_run_cycle();
EXECUTE seen;
-- The session itself has not changed.
SHOW work_mem;

-- What only a cycle's start can find out.
EXECUTE again \g /dev/null
SET datamart_users.worker_settings = 'no_such_parameter = 1';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.worker_settings = 'work_mem = lots';
SELECT datamart_users_start_cycle(); \echo :SQLSTATE
SET datamart_users.worker_settings = 'jit = off, max_connections = 5';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.worker_settings = 'role = postgres';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.worker_settings = 'Session_Authorization = postgres';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.worker_settings = 'default_transaction_read_only = on';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.worker_settings = 'datamart_users.procedure = p';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
RESET datamart_users.worker_settings;
RESET jit;
RESET plan_cache_mode;
RESET max_parallel_workers_per_gather;
RESET synchronous_commit;
RESET work_mem;
DROP SCHEMA dwh CASCADE;

--
-- Tables and procedure: quoted names, names without a schema.
--
CREATE SCHEMA "Odd, one";
CREATE TABLE "Odd, one"."Fact""s; --" (action_dimension_id_user bigint, action_at date);
CREATE TABLE "Odd, one"."select" (dimension_user_id bigint, modified boolean, done_by text);
CREATE PROCEDURE "Odd, one"."Re(fresh)"(id bigint, how text DEFAULT 'default')
LANGUAGE sql AS 'UPDATE "Odd, one"."select" SET done_by = how WHERE dimension_user_id = id';
INSERT INTO "Odd, one"."select" VALUES (1, true), (5000000000, true);
INSERT INTO "Odd, one"."Fact""s; --" VALUES (5000000000, CURRENT_DATE);
SET datamart_users.facts_table = '"Odd, one"."Fact""s; --"';
SET datamart_users.users_table = ' "Odd, one" . "select" ';
SET datamart_users.procedure = '"Odd, one"."Re(fresh)" ( bigint , "text" ) ';
SELECT queue_position, dimension_user_id, priority FROM datamart_users_queue() ORDER BY 1;
SELECT status, processed FROM datamart_users_run_cycle();
SELECT * FROM "Odd, one"."select" ORDER BY 1;

SET search_path = "Odd, one", public;
SET datamart_users.facts_table = '"Fact""s; --"';
SET datamart_users.users_table = '"select"';
SET datamart_users.procedure = '"Re(fresh)"';
UPDATE "select" SET modified = true, done_by = NULL;
SELECT status, processed FROM datamart_users_run_cycle();
SELECT * FROM "select" ORDER BY 1;

-- Names without quotes are folded, as in SQL.
CREATE VIEW folded AS SELECT * FROM "select";
SET datamart_users.users_table = 'FOLDED';
UPDATE "select" SET modified = true;
SELECT status, processed FROM datamart_users_run_cycle();
RESET search_path;
SELECT * FROM datamart_users_queue(); \echo :SQLSTATE

-- Of two procedures that would do, the one for the type of the key.
SET search_path = "Odd, one", public;
CREATE PROCEDURE refresh(id integer) LANGUAGE sql
AS $$UPDATE "select" SET done_by = 'integer' WHERE dimension_user_id = id$$;
CREATE PROCEDURE refresh(id bigint) LANGUAGE sql
AS $$UPDATE "select" SET done_by = 'bigint' WHERE dimension_user_id = id$$;
SET datamart_users.procedure = 'refresh';
UPDATE "select" SET modified = true;
SELECT status, processed FROM datamart_users_run_cycle();
SELECT * FROM "select" ORDER BY 1;
SET datamart_users.procedure = 'refresh(int4)';
UPDATE "select" SET modified = true;
SELECT status, processed, failed FROM datamart_users_run_cycle();
SELECT * FROM "select" ORDER BY 1;
SELECT dimension_user_id, sqlstate, message FROM datamart_users_failures;
RESET search_path;
RESET datamart_users.facts_table;
RESET datamart_users.users_table;
RESET datamart_users.procedure;
DROP SCHEMA "Odd, one" CASCADE;
DROP EXTENSION datamart_users;

--
-- How many datamart users a cycle takes.
--
CREATE EXTENSION datamart_users;
\i :begin
SET datamart_users.max_workers = 1;
INSERT INTO dwh.dimension_users SELECT i, i, true FROM generate_series(1, 30) AS i;
SET datamart_users.max_users_per_cycle = 2;
SET datamart_users.catchup_threshold = 26;
SET datamart_users.catchup_max_users = 3;
SELECT count(*) FROM datamart_users_queue();
SELECT backlog, found FROM datamart_users_run_cycle();
SELECT backlog, found FROM datamart_users_run_cycle(1);
SELECT backlog, found FROM datamart_users_run_cycle();
SELECT count(*) FROM datamart_users_queue();
SELECT backlog, found FROM datamart_users_run_cycle();
-- Both are needed.
SET datamart_users.catchup_threshold = 0;
SELECT backlog, found FROM datamart_users_run_cycle();
SET datamart_users.catchup_threshold = 1;
SET datamart_users.catchup_max_users = 0;
SELECT backlog, found FROM datamart_users_run_cycle();
SELECT max_users, backlog, found, workers_requested
  FROM datamart_users_cycles
 ORDER BY cycle_id;

--
-- How many workers: what was asked for, whatever the server then had; no more
-- than datamart users; at least one.
--
TRUNCATE datamart_users_cycles CASCADE;
SET client_min_messages = error;
SELECT workers BETWEEN 1 AND 2 AS ok FROM datamart_users_run_cycle(2, max_workers => 4);
SELECT workers FROM datamart_users_run_cycle(1, max_workers => 4);
SET datamart_users.max_workers = 3;
SELECT workers BETWEEN 1 AND 3 AS ok FROM datamart_users_run_cycle(6);
SET datamart_users.max_workers = 0;
SELECT workers >= 1 AS ok FROM datamart_users_run_cycle(2);
SET client_min_messages = warning;
SELECT CASE WHEN cycle_id < max(cycle_id) OVER () THEN workers_requested END AS requested,
	   workers_requested >= 1 AS ok, processed = found AS all_done
  FROM datamart_users_cycles
 ORDER BY cycle_id;

DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
