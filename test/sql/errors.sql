--
-- errors.sql
--		Guards every refusal of a call: its SQLSTATE, message and hint, and
--		that nothing has happened by then.
--
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
\set SHOW_CONTEXT never
INSERT INTO dwh.dimension_users VALUES (1, 'one', true), (2, 'two', true);
INSERT INTO dwh.facts VALUES (1, CURRENT_DATE);

--
-- Arguments.
--
SELECT datamart_users_run_cycle(0); \echo :SQLSTATE
SELECT datamart_users_run_cycle(-5); \echo :SQLSTATE
SELECT datamart_users_run_cycle(10000001); \echo :SQLSTATE
SELECT datamart_users_run_cycle(max_workers => 0); \echo :SQLSTATE
SELECT datamart_users_run_cycle(max_workers => -1); \echo :SQLSTATE
SELECT datamart_users_run_cycle(max_workers => 1025); \echo :SQLSTATE
SELECT datamart_users_run_cycle(time_limit => '-1s'); \echo :SQLSTATE
SELECT datamart_users_run_cycle(time_limit => '-1 day +1 h'); \echo :SQLSTATE
SELECT datamart_users_start_cycle(0); \echo :SQLSTATE
SELECT datamart_users_start_cycle(max_workers => -1); \echo :SQLSTATE
SELECT datamart_users_start_cycle(time_limit => '-1 mon'); \echo :SQLSTATE
SELECT datamart_users_queue(0); \echo :SQLSTATE
SELECT datamart_users_queue(10000001); \echo :SQLSTATE
SELECT datamart_users_priority_query(-1); \echo :SQLSTATE
CALL datamart_users_run(0); \echo :SQLSTATE
CALL datamart_users_run(max_workers => 1025); \echo :SQLSTATE
CALL datamart_users_run(time_limit => '-1s'); \echo :SQLSTATE
SELECT datamart_users_wait_cycle(NULL); \echo :SQLSTATE
SELECT datamart_users_wait_cycle(1, '-1s'); \echo :SQLSTATE
SELECT datamart_users_wait_cycle(1); \echo :SQLSTATE
SELECT datamart_users_wait_cycle(-1, '1s'); \echo :SQLSTATE
-- Longer than a clock can count, in microseconds and in milliseconds.
SELECT datamart_users_run_cycle(time_limit => '300000 years'); \echo :SQLSTATE
SELECT datamart_users_start_cycle(time_limit => '170000000 years'); \echo :SQLSTATE
SELECT datamart_users_wait_cycle(1, '170000000 years'); \echo :SQLSTATE
SELECT datamart_users_run_cycle(time_limit => '-170000000 years'); \echo :SQLSTATE

--
-- Where a cycle could not do its work.
--
-- A transaction block that workers could have to wait for, or that keeps a
-- snapshot.
BEGIN;
SELECT count(*) FROM dwh.facts;
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT count(*) FROM datamart_users_queue();
SELECT datamart_users_start_cycle(); \echo :SQLSTATE
ROLLBACK;
BEGIN;
LOCK TABLE pg_catalog.pg_description IN SHARE MODE;
CALL datamart_users_run(); \echo :SQLSTATE
ROLLBACK;
BEGIN;
LOCK TABLE datamart_users_failures IN ROW SHARE MODE;
CALL datamart_users_run(); \echo :SQLSTATE
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
CALL datamart_users_run(); \echo :SQLSTATE
ROLLBACK;
BEGIN;
SAVEPOINT one;
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
ROLLBACK TO one;
SAVEPOINT two;
CALL datamart_users_run(); \echo :SQLSTATE
ROLLBACK;
BEGIN;
DECLARE "One row" CURSOR FOR SELECT 1;
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
ROLLBACK;
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT 1;
FETCH ALL FROM held;
CALL datamart_users_run(); \echo :SQLSTATE
ROLLBACK;
BEGIN;
DO $$
DECLARE
	v_row record;
	v_cursor CURSOR FOR SELECT 1;
BEGIN
	v_cursor := 'loop';
	FOR v_row IN v_cursor LOOP
		PERFORM datamart_users_run_cycle();
	END LOOP;
END;
$$; \echo :SQLSTATE
ROLLBACK;
BEGIN;
UPDATE dwh.dimension_users SET label = 'written' WHERE dimension_user_id = 1;
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
ROLLBACK;
BEGIN;
CREATE TEMPORARY TABLE of_block (id integer);
CALL datamart_users_run(); \echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT datamart_users_start_cycle(); \echo :SQLSTATE
ROLLBACK;
-- Several statements in one message are one block.
SELECT count(*) FROM dwh.facts \; SELECT datamart_users_run_cycle(); \echo :SQLSTATE
DO $$
BEGIN
	PERFORM datamart_users_run_cycle();
EXCEPTION WHEN no_data_found THEN
	RAISE 'not reached';
END;
$$; \echo :SQLSTATE
CREATE FUNCTION write_and_call() RETURNS record LANGUAGE plpgsql AS $$
BEGIN
	UPDATE dwh.dimension_users SET label = 'written' WHERE dimension_user_id = 1;
	RETURN datamart_users_run_cycle();
END;
$$;
SELECT write_and_call(); \echo :SQLSTATE
DO $$
BEGIN
	UPDATE dwh.dimension_users SET label = 'written' WHERE dimension_user_id = 1;
	CALL datamart_users_run();
END;
$$; \echo :SQLSTATE
DROP FUNCTION write_and_call();
SET default_transaction_read_only = on;
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SELECT datamart_users_start_cycle(); \echo :SQLSTATE
SET default_transaction_read_only = off;

-- Looking is allowed anywhere.
BEGIN READ ONLY;
SELECT count(*) FROM datamart_users_queue();
SELECT datamart_users_priority_query() LIKE 'SELECT%' AS is_text;
COMMIT;

--
-- Tables.
--
SET datamart_users.facts_table = 'dwh.no_such_table';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SELECT datamart_users_start_cycle(); \echo :SQLSTATE
SELECT datamart_users_queue(); \echo :SQLSTATE
SELECT datamart_users_priority_query(); \echo :SQLSTATE
SET datamart_users.facts_table = 'no_such_schema.facts';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.facts_table = 'facts';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE SEQUENCE dwh.a_sequence;
SET datamart_users.facts_table = 'dwh.a_sequence';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.facts_table = 'dwh.dimension_users_pkey';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE TYPE dwh.a_type AS (action_dimension_id_user integer, action_at date);
SET datamart_users.facts_table = 'dwh.a_type';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE TEMP TABLE facts (LIKE dwh.facts);
SET datamart_users.facts_table = 'facts';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE TEMP VIEW temporary_facts AS SELECT * FROM dwh.facts;
SET datamart_users.facts_table = 'temporary_facts';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
DROP TABLE facts;
DROP VIEW temporary_facts;

CREATE TABLE dwh.no_actor (action_at timestamptz);
SET datamart_users.facts_table = 'dwh.no_actor';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE TABLE dwh.no_time (action_dimension_id_user integer, "Action_at" date);
SET datamart_users.facts_table = 'dwh.no_time';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE TABLE dwh.text_actor (action_dimension_id_user text, action_at timestamptz);
SET datamart_users.facts_table = 'dwh.text_actor';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE TABLE dwh.time_of_day (action_dimension_id_user integer, action_at time);
SET datamart_users.facts_table = 'dwh.time_of_day';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
RESET datamart_users.facts_table;

SET datamart_users.users_table = 'dwh.no_such_table';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE MATERIALIZED VIEW dwh.frozen_users AS SELECT * FROM dwh.dimension_users;
SET datamart_users.users_table = 'dwh.frozen_users';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE TEMP TABLE my_users (LIKE dwh.dimension_users);
SET datamart_users.users_table = 'my_users';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
DROP TABLE my_users;
CREATE TABLE dwh.no_key (user_id integer, modified boolean);
SET datamart_users.users_table = 'dwh.no_key';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE TABLE dwh.numeric_key (dimension_user_id numeric, modified boolean);
SET datamart_users.users_table = 'dwh.numeric_key';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE TABLE dwh.no_flag (dimension_user_id integer);
SET datamart_users.users_table = 'dwh.no_flag';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
ALTER TABLE dwh.no_flag ADD modified integer;
SELECT datamart_users_run_cycle(); \echo :SQLSTATE

CREATE VIEW dwh.view_of_users AS
SELECT DISTINCT dimension_user_id, modified FROM dwh.dimension_users;
SET datamart_users.users_table = 'dwh.view_of_users';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE OR REPLACE VIEW dwh.view_of_users AS
SELECT dimension_user_id, modified AND label <> '' AS modified FROM dwh.dimension_users;
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
RESET datamart_users.users_table;

--
-- Procedure.
--
SET datamart_users.procedure = 'dwh.no_such_procedure';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SELECT datamart_users_queue(); \echo :SQLSTATE
SET datamart_users.procedure = 'no_such_schema.update_datamart_user';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.no_such_procedure(integer)';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE

CREATE FUNCTION dwh.a_function(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1';
SET datamart_users.procedure = 'dwh.a_function';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.a_function(integer)';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE

CREATE PROCEDURE dwh.takes_nothing() LANGUAGE sql AS '';
SET datamart_users.procedure = 'dwh.takes_nothing';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE PROCEDURE dwh.takes_smallint(smallint) LANGUAGE sql AS '';
SET datamart_users.procedure = 'dwh.takes_smallint';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE PROCEDURE dwh.takes_two(integer, integer) LANGUAGE sql AS '';
SET datamart_users.procedure = 'dwh.takes_two';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.takes_two(integer, integer)';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE PROCEDURE dwh.gives(integer, OUT integer) LANGUAGE sql AS 'SELECT 1';
SET datamart_users.procedure = 'dwh.gives';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE PROCEDURE dwh.gives_back(INOUT integer) LANGUAGE sql AS 'SELECT 1';
SET datamart_users.procedure = 'dwh.gives_back';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE PROCEDURE dwh.takes_any_number(VARIADIC integer[]) LANGUAGE sql AS '';
SET datamart_users.procedure = 'dwh.takes_any_number';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
CREATE PROCEDURE dwh.takes_text(text) LANGUAGE sql AS '';
SET datamart_users.procedure = 'dwh.takes_text(text)';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.takes_text(no_such_type)';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.takes_text(two words)';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE

CREATE PROCEDURE dwh.twice(integer, text DEFAULT '') LANGUAGE sql AS '';
CREATE PROCEDURE dwh.twice(integer, boolean DEFAULT true) LANGUAGE sql AS '';
SET datamart_users.procedure = 'dwh.twice';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SET datamart_users.procedure = 'dwh.twice(integer, text)';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE

CREATE PROCEDURE pg_temp.temporary(integer) LANGUAGE sql AS '';
SET datamart_users.procedure = 'pg_temp.temporary';
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
-- The same by the schema's real name, which has a number.
SELECT set_config('datamart_users.procedure', format('%s.temporary', pg_my_temp_schema()::regnamespace), false)
\g /dev/null
\set VERBOSITY sqlstate
SELECT datamart_users_run_cycle();
\set VERBOSITY default
DROP PROCEDURE pg_temp.temporary(integer);
RESET datamart_users.procedure;

--
-- Privileges: a role without any, and what the hints say, one by one.
--
CREATE ROLE "regress_dm Caller";
REVOKE EXECUTE ON PROCEDURE dwh.update_datamart_user(integer) FROM PUBLIC;
SET ROLE "regress_dm Caller";
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SELECT datamart_users_start_cycle(); \echo :SQLSTATE
SELECT datamart_users_wait_cycle(1); \echo :SQLSTATE
SELECT datamart_users_cancel_cycle(); \echo :SQLSTATE
SELECT datamart_users_queue(); \echo :SQLSTATE
SELECT datamart_users_priority_query(); \echo :SQLSTATE
SELECT datamart_users_retry(); \echo :SQLSTATE

RESET ROLE;
GRANT EXECUTE ON FUNCTION datamart_users_run_cycle, datamart_users_start_cycle, datamart_users_queue
	TO "regress_dm Caller";
SET ROLE "regress_dm Caller";
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SELECT datamart_users_queue(); \echo :SQLSTATE
RESET ROLE;
GRANT USAGE ON SCHEMA dwh TO "regress_dm Caller";
SET ROLE "regress_dm Caller";
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SELECT datamart_users_queue(); \echo :SQLSTATE
RESET ROLE;
GRANT SELECT (action_dimension_id_user) ON dwh.facts TO "regress_dm Caller";
SET ROLE "regress_dm Caller";
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
RESET ROLE;
GRANT SELECT (action_dimension_id_user, action_at) ON dwh.facts TO "regress_dm Caller";
SET ROLE "regress_dm Caller";
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SELECT datamart_users_queue(); \echo :SQLSTATE
RESET ROLE;
GRANT SELECT (modified) ON dwh.dimension_users TO "regress_dm Caller";
SET ROLE "regress_dm Caller";
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
RESET ROLE;
GRANT SELECT (dimension_user_id, modified) ON dwh.dimension_users TO "regress_dm Caller";
SET ROLE "regress_dm Caller";
-- Enough to look, not to run.
SELECT count(*) FROM datamart_users_queue();
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
RESET ROLE;
GRANT UPDATE (modified) ON dwh.dimension_users TO "regress_dm Caller";
SET ROLE "regress_dm Caller";
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SELECT datamart_users_start_cycle(); \echo :SQLSTATE
-- Parameters of workers that need more than this role has.
SET datamart_users.worker_settings = 'session_replication_role = replica';
RESET ROLE;
GRANT EXECUTE ON PROCEDURE dwh.update_datamart_user(integer) TO "regress_dm Caller";
SET ROLE "regress_dm Caller";
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
RESET ROLE;
RESET datamart_users.worker_settings;

--
-- Nothing has happened.
--
SELECT count(*) FROM datamart_users_cycles;
SELECT count(*) FROM datamart_users_failures;
SELECT count(*) FROM dwh.refreshes;
SELECT * FROM dwh.dimension_users ORDER BY dimension_user_id;

-- And it was for those reasons: with the rest of the privileges, it does.
GRANT INSERT ON dwh.refreshes TO "regress_dm Caller";
SET ROLE "regress_dm Caller";
SELECT status, processed FROM datamart_users_run_cycle(max_workers => 1);
RESET ROLE;

DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
DROP ROLE "regress_dm Caller";
