--
-- check.sql
--		Guards the doctor: all is well with a well-kept warehouse, and of what
--		is broken here, one thing at a time, it reports that and nothing else,
--		with a hint that mends it.
--
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
\set SHOW_CONTEXT never
\pset format unaligned
\pset tuples_only on
\set sick 'SELECT item, status, detail FROM datamart_users_check() WHERE status <> ''ok'';'
\set get_hint 'SELECT replace(string_agg(hint, E''\\n''), ''to role '' || quote_ident(current_user), ''to role ME'') AS hint FROM datamart_users_check() WHERE status <> ''ok'' \\gset'
SET datamart_users.max_workers = 1;
SET TimeZone = 'UTC';

ALTER TABLE dwh.dimension_users SET (autovacuum_enabled = off);
ALTER TABLE dwh.facts SET (autovacuum_enabled = off);
INSERT INTO dwh.dimension_users SELECT i, 'user', true FROM generate_series(1, 50) AS i;
INSERT INTO dwh.facts SELECT 1 + i % 50, '2026-01-01' FROM generate_series(1, 500) AS i;
CREATE INDEX facts_idx ON dwh.facts (action_dimension_id_user, action_at);
ANALYZE dwh.dimension_users, dwh.facts;

SELECT item, status FROM datamart_users_check();
SELECT count(*) AS hints FROM datamart_users_check() WHERE hint IS NOT NULL AND hint NOT LIKE '%datamart_users_try()%';

--
-- Indexes.
--
DROP INDEX dwh.facts_idx;
:sick
:get_hint
\echo :hint
:hint
:sick
DROP INDEX dwh.facts_user_action_at_idx;

-- What an interrupted CREATE INDEX CONCURRENTLY leaves has to go first.
\set VERBOSITY terse
CREATE UNIQUE INDEX CONCURRENTLY facts_user_action_at_idx ON dwh.facts (action_dimension_id_user, action_at);
\set VERBOSITY default
SELECT item, status FROM datamart_users_check() WHERE status <> 'ok';
:get_hint
\echo :hint
:hint
:sick

-- The index on the flag is none to have alone.
CREATE INDEX flag_idx ON dwh.dimension_users (dimension_user_id) WHERE modified;
:sick
DROP INDEX dwh.facts_user_action_at_idx1;
SELECT item, status FROM datamart_users_check() WHERE status <> 'ok';
SELECT hint FROM datamart_users_check() WHERE item = 'flag index' \gset
\echo :hint
:hint
:sick
SELECT to_regclass('dwh.flag_idx') IS NULL AS dropped;

-- One with more columns will do, as will one that leaves anonymous facts out.
DROP INDEX dwh.facts_user_action_at_idx;
CREATE INDEX more_idx ON dwh.facts (action_dimension_id_user) INCLUDE (action_at);
:sick
DROP INDEX dwh.more_idx;
CREATE INDEX more_idx ON dwh.facts (action_dimension_id_user, action_at) WHERE action_dimension_id_user IS NOT NULL;
:sick
DROP INDEX dwh.more_idx;
-- These will not.
CREATE INDEX less1_idx ON dwh.facts (action_dimension_id_user);
CREATE INDEX less2_idx ON dwh.facts (action_at, action_dimension_id_user);
CREATE INDEX less3_idx ON dwh.facts (action_dimension_id_user, action_at) WHERE action_at > '2025-01-01';
SELECT item, status FROM datamart_users_check() WHERE status <> 'ok';
DROP INDEX dwh.less1_idx, dwh.less2_idx, dwh.less3_idx;
CREATE INDEX facts_idx ON dwh.facts (action_dimension_id_user, action_at);

ALTER TABLE dwh.dimension_users DROP CONSTRAINT dimension_users_pkey;
:sick
:get_hint
\echo :hint
:hint
:sick

--
-- A partitioned facts table, two levels deep, with one name that needs quotes.
--
CREATE TABLE dwh.parted (LIKE dwh.facts) PARTITION BY RANGE (action_at);
CREATE TABLE dwh.parted_2025 PARTITION OF dwh.parted
	FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') WITH (autovacuum_enabled = off);
CREATE TABLE dwh.parted_2026 PARTITION OF dwh.parted
	FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (action_dimension_id_user);
CREATE TABLE dwh."Odd ones" PARTITION OF dwh.parted_2026
	FOR VALUES IN (1, 3, 5, 7, 9) WITH (autovacuum_enabled = off);
CREATE TABLE dwh.parted_2026_others PARTITION OF dwh.parted_2026 DEFAULT WITH (autovacuum_enabled = off);
SET datamart_users.facts_table = 'dwh.parted';
:sick
:get_hint
\echo :hint
:hint
:sick
SELECT relid, isleaf, level FROM pg_partition_tree('dwh.parted_user_action_at_idx') ORDER BY relid::text COLLATE "C";

-- One partition without it, whose parent has no valid one then.
DROP INDEX dwh.parted_user_action_at_idx;
CREATE INDEX own_idx ON dwh.parted_2025 (action_dimension_id_user, action_at);
CREATE INDEX other_idx ON dwh.parted_2026_others (action_dimension_id_user, action_at);
CREATE INDEX parent_idx ON ONLY dwh.parted (action_dimension_id_user, action_at);
ALTER INDEX dwh.parent_idx ATTACH PARTITION dwh.own_idx;
:sick
:get_hint
\echo :hint
:hint
:sick
SELECT relid, isleaf, level FROM pg_partition_tree('dwh.parent_idx') ORDER BY relid::text COLLATE "C";

-- All of them with it, but not the next one.
DROP INDEX dwh.parent_idx;
CREATE INDEX own_idx ON dwh.parted_2025 (action_dimension_id_user, action_at);
CREATE INDEX parent_2026_idx ON dwh.parted_2026 (action_dimension_id_user, action_at);
:sick
:get_hint
\echo :hint
:hint
:sick

-- Statistics: of a partition, and of the whole, which autovacuum leaves alone.
INSERT INTO dwh.parted SELECT i % 50, '2026-02-01' FROM generate_series(1, 500) AS i;
:sick
ANALYZE dwh."Odd ones", dwh.parted_2026_others, dwh.parted_2026;
:sick
:get_hint
\echo :hint
:hint
:sick
INSERT INTO dwh.parted SELECT i % 50, '2026-02-01' FROM generate_series(1, 5000) AS i;
ANALYZE dwh."Odd ones", dwh.parted_2026_others, dwh.parted_2026;
:sick
:get_hint
:hint
:sick
RESET datamart_users.facts_table;

-- Statistics of a table, that have grown old.
SELECT pg_stat_reset_single_table_counters('dwh.facts'::regclass);
INSERT INTO dwh.facts SELECT 1 + i % 50, '2026-01-01' FROM generate_series(1, 3000) AS i;
SELECT pg_stat_force_next_flush();
:sick
:get_hint
\echo :hint
:hint
:sick

--
-- Tables, columns, procedure.
--
SET datamart_users.facts_table = 'dwh.fatcs';
SELECT item, status FROM datamart_users_check() WHERE status <> 'ok' OR detail LIKE 'not looked at%';
:get_hint
\echo :hint
SELECT replace(detail, 'role ' || quote_ident(current_user), 'role ME') FROM datamart_users_check() WHERE item = 'privileges';
SET datamart_users.facts_table = 'dwh.dimension_users';
:sick
CREATE VIEW dwh.odd_facts AS SELECT action_dimension_id_user::text, action_at::text FROM dwh.facts;
SET datamart_users.facts_table = 'dwh.odd_facts';
:sick
CREATE TEMPORARY TABLE temporary_facts (LIKE dwh.facts);
SET datamart_users.facts_table = 'temporary_facts';
:sick
CREATE VIEW dwh.fine_facts AS SELECT * FROM dwh.facts;
SET datamart_users.facts_table = 'dwh.fine_facts';
:sick
RESET datamart_users.facts_table;

-- Whoever owns what might be meant gets no statement out of that.
ALTER TABLE dwh.dimension_users RENAME modified TO flag;
CREATE TABLE dwh."users
DROP TABLE dwh.facts;" (dimension_user_id integer, modified boolean);
SET datamart_users.users_table = 'dwh.users';
SELECT replace(hint, 'to role ' || quote_ident(current_user), 'to role ME'), hint !~ '(^|\n)[^-]' AS comment FROM datamart_users_check() WHERE status <> 'ok';
DROP TABLE dwh."users
DROP TABLE dwh.facts;";
ALTER TABLE dwh.dimension_users RENAME flag TO modified;
RESET datamart_users.users_table;
CREATE VIEW dwh.odd_users AS SELECT DISTINCT * FROM dwh.dimension_users;
SET datamart_users.users_table = 'dwh.odd_users';
:sick
SET datamart_users.users_table = '"Dwh".Users';
:sick
RESET datamart_users.users_table;

CREATE FUNCTION dwh.a_function(integer) RETURNS void LANGUAGE sql AS '';
CREATE PROCEDURE dwh.a_text(text) LANGUAGE sql AS '';
CREATE PROCEDURE dwh.two(integer) LANGUAGE sql AS '';
CREATE PROCEDURE dwh.two(integer, text DEFAULT '') LANGUAGE sql AS '';
CREATE PROCEDURE dwh.two(bigint) LANGUAGE sql AS '';
SET datamart_users.procedure = 'dwh.none';
:sick
SET datamart_users.procedure = 'dwh.a_function';
:sick
SET datamart_users.procedure = 'dwh.a_text';
:sick
SET datamart_users.procedure = 'dwh.two';
:sick
SET datamart_users.procedure = 'dwh.two(bigint)';
:sick
SET datamart_users.procedure = 'dwh.two(big int)';
:sick
RESET datamart_users.procedure;

-- What a cycle takes is well, what it does not is an error, by the same words.
CREATE PROCEDURE dwh.p(integer, integer DEFAULT 0) LANGUAGE sql AS '';
CREATE PROCEDURE dwh."refresh-user"(integer) LANGUAGE sql AS '';
CREATE PROCEDURE dwh."2p"(integer) LANGUAGE sql AS '';
CREATE PROCEDURE dwh."P q"(integer) LANGUAGE sql AS '';
CREATE PROCEDURE dwh.a_long_name_of_which_only_the_first_63_bytes_will_be_kept_by_the_server(integer) LANGUAGE sql AS '';
CREATE PROCEDURE dwh.more(integer, OUT text) LANGUAGE sql AS 'SELECT $$more$$';
\set VERBOSITY terse
\set both 'SELECT status, detail FROM datamart_users_check() WHERE item = ''procedure''; SELECT status FROM datamart_users_run_cycle(1);'
SET datamart_users.procedure = 'dwh.p(integer, numeric)';
:both
SET datamart_users.procedure = 'dwh.p( INT , int4 )';
:both
SET datamart_users.procedure = 'dwh.refresh-user';
:both
SET datamart_users.procedure = 'dwh."refresh-user"';
:both
SET datamart_users.procedure = 'dwh.2p';
:both
SET datamart_users.procedure = '"dwh"."P q"';
:both
SET datamart_users.procedure = 'dwh.a_long_name_of_which_only_the_first_63_bytes_will_be_kept_by_the_server';
:both
SET datamart_users.procedure = 'dwh.more';
:both
SET datamart_users.procedure = 'pg_temp.p';
:both
SET datamart_users.procedure = 'nowhere.p';
:both
RESET datamart_users.procedure;
-- Types of columns, likewise.
CREATE DOMAIN dwh.number AS bigint;
CREATE DOMAIN dwh.user_key AS dwh.number;
CREATE DOMAIN dwh.moment AS timestamp;
CREATE TABLE dwh.domain_users (dimension_user_id dwh.user_key PRIMARY KEY, modified boolean);
CREATE TABLE dwh.domain_facts (action_dimension_id_user dwh.user_key, action_at dwh.moment);
CREATE INDEX ON dwh.domain_facts (action_dimension_id_user, action_at);
SET datamart_users.facts_table = 'dwh.domain_facts';
SET datamart_users.users_table = 'dwh.domain_users';
:sick
SELECT status FROM datamart_users_run_cycle(1);
ALTER TABLE dwh.domain_facts ALTER action_dimension_id_user TYPE numeric;
:sick
SELECT status FROM datamart_users_run_cycle(1);
\set VERBOSITY default
RESET datamart_users.facts_table;
RESET datamart_users.users_table;
DELETE FROM datamart_users_cycles;
UPDATE dwh.dimension_users SET modified = true;
ANALYZE dwh.dimension_users;

-- Names are looked up along the caller's search_path, and nothing else is.
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.format(text, VARIADIC "any") RETURNS text LANGUAGE internal AS 'text_format';
CREATE FUNCTION hostile.never_equal(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, PROCEDURE = hostile.never_equal);
CREATE FUNCTION hostile.trap(text, name) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''trap''; END';
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = name, PROCEDURE = hostile.trap);
CREATE FUNCTION hostile.quote_ident(name) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''trap''; END';
CREATE FUNCTION hostile.datamart_users_check_find_relation(text, name[]) RETURNS regclass LANGUAGE plpgsql AS 'BEGIN RAISE ''trap''; END';
CREATE TABLE hostile.datamart_users_cycles ();
CREATE TABLE hostile.pg_class ();
SET search_path = hostile, dwh, public, pg_catalog;
SET datamart_users.facts_table = 'facts';
SET datamart_users.users_table = '"dimension_users"';
SET datamart_users.procedure = 'update_datamart_user';
SELECT count(*) AS items, count(*) FILTER (WHERE status OPERATOR(pg_catalog.<>) 'ok') AS sick FROM datamart_users_check();
RESET search_path;
SELECT item, detail FROM datamart_users_check() WHERE status = 'error';
SET search_path = dwh;
SELECT count(*) FILTER (WHERE status <> 'ok') AS sick FROM public.datamart_users_check();
RESET search_path;
RESET datamart_users.facts_table;
RESET datamart_users.users_table;
RESET datamart_users.procedure;

--
-- Privileges, of oneself and of others.
--
CREATE ROLE "regress_dmu_check_Etl";
CREATE ROLE regress_dmu_check_monitor IN ROLE pg_monitor;
SELECT item, status, detail FROM datamart_users_check('regress_dmu_check_Etl') WHERE status <> 'ok';
SELECT hint FROM datamart_users_check('regress_dmu_check_Etl') WHERE status <> 'ok' \gset
\echo :hint
:hint
SELECT count(*) AS sick FROM datamart_users_check('regress_dmu_check_Etl') WHERE status <> 'ok';
REVOKE UPDATE (modified) ON dwh.dimension_users FROM "regress_dmu_check_Etl";
SELECT hint FROM datamart_users_check('regress_dmu_check_Etl') WHERE status <> 'ok';
SELECT item, status, detail FROM datamart_users_check('nobody') WHERE status <> 'ok';
-- A monitoring role sees everything else as the others do.
SET ROLE regress_dmu_check_monitor;
SELECT item, status FROM datamart_users_check() WHERE status <> 'ok';
SET ROLE "regress_dmu_check_Etl";
SELECT item, status FROM datamart_users_check() WHERE status <> 'ok';
RESET ROLE;
-- A role is asked about with its own rights, whatever those of the caller.
GRANT UPDATE (modified) ON dwh.dimension_users TO "regress_dmu_check_Etl";
SET ROLE regress_dmu_check_monitor;
SELECT item, status, detail FROM datamart_users_check('regress_dmu_check_Etl') WHERE item IN ('procedure', 'privileges');
SELECT detail FROM datamart_users_check() WHERE item IN ('procedure', 'privileges');
RESET ROLE;
REVOKE UPDATE (modified) ON dwh.dimension_users FROM "regress_dmu_check_Etl";
-- Whoever may call it needs nothing else.
GRANT EXECUTE ON FUNCTION datamart_users_check TO "regress_dmu_check_Etl";
SET ROLE "regress_dmu_check_Etl";
SELECT count(*) AS items, count(*) FILTER (WHERE status = 'error') AS errors FROM datamart_users_check();
RESET ROLE;

--
-- Server and settings.
--
SET datamart_users.max_workers = 1000;
SELECT item, status FROM datamart_users_check() WHERE status <> 'ok';
SELECT hint ~ '^ALTER SYSTEM SET max_worker_processes = \d+; -- and restart the server$'
  FROM datamart_users_check() WHERE status <> 'ok';
SET datamart_users.max_workers = 1;

SET datamart_users.worker_settings = 'JIT = ''on'', plan_cache_mode=auto, work_mem = ''1GB''';
SET max_parallel_workers_per_gather = 3;
:sick
:get_hint
SELECT regexp_replace(:'hint', 'ROLE .* IN DATABASE .* SET', 'ROLE ... SET');
:hint
:sick
SET datamart_users.worker_settings = 'jit = on, plan_cache_mode = force_generic_plan, max_parallel_workers_per_gather = ''0'', jit=off';
:sick
-- Empty: as the session has it.
SET datamart_users.worker_settings = '';
SET jit = off;
SET plan_cache_mode = force_generic_plan;
SET max_parallel_workers_per_gather = 0;
:sick
RESET datamart_users.worker_settings;

-- What no worker could be given.
SET datamart_users.worker_settings = 'jit = off, work_memory = 1GB';
:sick
SET datamart_users.worker_settings = 'work_mem = much';
:sick
SET datamart_users.worker_settings = 'role = postgres';
:sick
:get_hint
\echo :hint
RESET datamart_users.worker_settings;
-- In a function that lends its rights, nothing that its caller has set is tried.
CREATE FUNCTION lend() RETURNS TABLE (item text, status text, detail text) LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, public
	AS $$SELECT item, status, detail FROM datamart_users_check() WHERE status <> 'ok'$$;
SET ROLE "regress_dmu_check_Etl";
SET datamart_users.worker_settings = 'work_mem = much';
SELECT item, status FROM lend();
RESET datamart_users.worker_settings;
RESET ROLE;
DROP FUNCTION lend();

SET datamart_users.catchup_threshold = 10;
:sick
:get_hint
:hint
:sick
SET datamart_users.catchup_threshold = 0;
:sick
:get_hint
:hint
:sick
RESET datamart_users.catchup_threshold;
RESET datamart_users.catchup_max_users;
SET datamart_users.retry_delay = 0;
:sick
:get_hint
:hint
:sick
SET default_transaction_read_only = on;
:sick
:get_hint
:hint
:sick

--
-- History.
--
INSERT INTO datamart_users_cycles (cycle_id, status, role_name, started_at, workers_requested)
OVERRIDING SYSTEM VALUE VALUES (-1, 'running', 'etl', now(), 1);
:sick
:get_hint
\echo :hint
-- The hint runs a cycle, which does mark it.
\o /dev/null
:hint
\o
:sick
SELECT status FROM datamart_users_cycles ORDER BY cycle_id;
ANALYZE dwh.dimension_users;

-- The last one counts.
DELETE FROM datamart_users_cycles;
INSERT INTO datamart_users_cycles (cycle_id, status, role_name, started_at, finished_at, message)
OVERRIDING SYSTEM VALUE VALUES (1, 'failed', 'etl', '2026-03-01', '2026-03-01', 'no relation');
:sick
:get_hint
:hint
INSERT INTO datamart_users_cycles (cycle_id, status, role_name, started_at, finished_at, message)
OVERRIDING SYSTEM VALUE VALUES (2, 'aborted', 'etl', '2026-03-02', '2026-03-02', 'The server went down during the cycle.');
:sick
INSERT INTO datamart_users_cycles (cycle_id, status, role_name, started_at, finished_at, found, processed, failed)
OVERRIDING SYSTEM VALUE VALUES (3, 'completed', 'etl', '2026-03-03', '2026-03-03', 3, 0, 3);
:sick

-- A few failures are daily life; that nothing else happens is not.
INSERT INTO datamart_users_failures
	(dimension_user_id, attempts, first_failed_at, last_failed_at, next_attempt_at, sqlstate, message, cycle_id)
SELECT i, 1, '2026-03-01', '2026-03-01', '2026-03-02', 'P0002', 'no current row', 3
  FROM generate_series(1, 3) AS i;
:sick
UPDATE datamart_users_cycles SET found = 4, processed = 1 WHERE cycle_id = 3;
SELECT status, detail FROM datamart_users_check() WHERE item = 'failures';
UPDATE datamart_users_failures SET attempts = 5, next_attempt_at = 'infinity' WHERE dimension_user_id = 2;
:sick
:get_hint
:hint
UPDATE datamart_users_failures SET attempts = 1 WHERE dimension_user_id = 2;
INSERT INTO datamart_users_failures
	(dimension_user_id, attempts, first_failed_at, last_failed_at, next_attempt_at, sqlstate, message, cycle_id)
SELECT i, 1, '2026-03-01', '2026-03-01', '2026-03-02', '22003', 'out of range', 3
  FROM generate_series(4, 101) AS i;
:sick
DELETE FROM datamart_users_failures;

INSERT INTO datamart_users_cycles (cycle_id, status, role_name, started_at, finished_at)
OVERRIDING SYSTEM VALUE
SELECT i, 'completed', 'etl', '2026-03-01', '2026-03-01' FROM generate_series(1001, 101001) AS i;
SELECT item, status FROM datamart_users_check() WHERE status <> 'ok';
TRUNCATE datamart_users_cycles CASCADE;
:sick

-- The message of a cycle is for whoever may read it there, or had it as an
-- error.
INSERT INTO datamart_users_cycles (cycle_id, status, role_name, started_at, finished_at, message)
OVERRIDING SYSTEM VALUE VALUES (1, 'failed', 'somebody', '2026-03-01', '2026-03-01', U&'no\0009row \202E17');
SET ROLE "regress_dmu_check_Etl";
SELECT detail FROM datamart_users_check() WHERE item = 'last cycle';
RESET ROLE;
UPDATE datamart_users_cycles SET role_name = 'regress_dmu_check_Etl';
SET ROLE "regress_dmu_check_Etl";
SELECT detail FROM datamart_users_check() WHERE item = 'last cycle';
RESET ROLE;
DELETE FROM datamart_users_cycles;

-- Somebody's trigger on any of the tables keeps cycles from ending.
CREATE FUNCTION on_slowest() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER on_slowest AFTER INSERT ON datamart_users_slowest EXECUTE FUNCTION on_slowest();
SELECT item, status, regexp_replace(detail, 'role "[^"]*"', 'role "owner"') FROM datamart_users_check() WHERE status <> 'ok';
DROP TRIGGER on_slowest ON datamart_users_slowest;
DROP FUNCTION on_slowest();

-- Neither the extension's owner nor the caller is a superuser.
CREATE ROLE regress_dmu_check_owner;
GRANT USAGE, CREATE ON SCHEMA public TO regress_dmu_check_owner;
SELECT format('ALTER TABLE %s OWNER TO regress_dmu_check_owner', oid::regclass)
  FROM pg_class
 WHERE relname LIKE 'datamart\_users%' AND relkind IN ('r', 'v', 'f')
   AND relnamespace = 'public'::regnamespace
\gexec
SELECT format('ALTER ROUTINE %s OWNER TO regress_dmu_check_owner', oid::regprocedure)
  FROM pg_proc
 WHERE proname LIKE 'datamart\_users%'
   AND pronamespace = 'public'::regnamespace
\gexec
SET ROLE "regress_dmu_check_Etl";
SELECT item, status FROM datamart_users_check();
RESET ROLE;

-- In a session that has not loaded the library yet.
\c -
\pset format unaligned
\pset tuples_only on
SELECT count(*) FROM datamart_users_check();
-- The same, where the value of a setting turns out to be none.
\c -
SELECT format('ALTER ROLE %I IN DATABASE %I', current_user, current_database()) AS alter_role \gset
:alter_role SET datamart_users.max_users_per_cycle = 'abc';
\c -
SET client_min_messages = error;
SELECT item, status, regexp_replace(detail, ' for role .* in database .*', ' for ROLE in DB') FROM datamart_users_check() WHERE status = 'error';
\c -
:alter_role RESET datamart_users.max_users_per_cycle;

SET client_min_messages = warning;
DROP SCHEMA dwh, hostile CASCADE;
DROP EXTENSION datamart_users;
DROP OWNED BY "regress_dmu_check_Etl", regress_dmu_check_monitor, regress_dmu_check_owner;
DROP ROLE "regress_dmu_check_Etl", regress_dmu_check_monitor, regress_dmu_check_owner;
