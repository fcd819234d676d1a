--
-- try.sql
--		Guards that a rehearsal finds out what a cycle would, and leaves nothing.
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin

\pset tuples_only on
\pset format unaligned
\pset null '(null)'
\set columns 'dimension_user_id, outcome, elapsed >= interval \'0\' AS elapsed, sqlstate, message, detail, hint, translate(context, E\'\\n\', \' \') AS context'
\set try 'SELECT ' :columns ' FROM datamart_users_try'
CREATE VIEW dwh.left_behind AS
	SELECT (SELECT count(*) FROM dwh.refreshes) AS refreshes,
		(SELECT count(*) FROM dwh.dimension_users WHERE NOT modified) AS cleared,
		(SELECT count(*) FROM datamart_users_failures) AS failures,
		(SELECT count(*) FROM datamart_users_contention) AS contention,
		(SELECT count(*) FROM datamart_users_cycles) AS cycles;

--
-- Whom
--
INSERT INTO dwh.dimension_users VALUES (1, 'one', TRUE), (2, 'two', TRUE), (3, 'three', FALSE);
INSERT INTO dwh.facts (action_dimension_id_user, action_at) VALUES (2, CURRENT_DATE);

-- the first of the queue, the one that is asked for, one that is not modified
:try ();
:try (1);
:try (3);
-- none of that id
SELECT datamart_users_try(4); \echo :SQLSTATE
SELECT datamart_users_try(9000000000); \echo :SQLSTATE
SELECT * FROM dwh.left_behind WHERE refreshes <> 0 OR cleared <> 1 OR failures <> 0 OR cycles <> 0;
-- the result is there for other uses
SELECT t.outcome FROM dwh.dimension_users u, datamart_users_try(u.dimension_user_id) t ORDER BY u.dimension_user_id;

--
-- What a refresh can run into
--
CREATE FUNCTION dwh.become(body text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_dimension_user_id integer) LANGUAGE plpgsql AS %L', body);
END $$;
SELECT pg_get_functiondef('dwh.update_datamart_user'::regproc) AS definition \gset

SELECT dwh.become('BEGIN RAISE EXCEPTION ''no %'', p_dimension_user_id USING ERRCODE = ''XY123'', DETAIL = ''my detail'', HINT = ''my hint''; END');
:try ();
SELECT dwh.become('BEGIN COMMIT; END');
:try ();
SELECT dwh.become('BEGIN RAISE serialization_failure; END');
:try ();
SELECT dwh.become('BEGIN LOOP PERFORM 1; END LOOP; END');
SET datamart_users.user_timeout = '50ms';
:try ();
RESET datamart_users.user_timeout;
-- as a worker: its settings, no way back to another role
SELECT dwh.become('BEGIN RAISE EXCEPTION ''% % %'', current_setting(''jit''), current_setting(''transaction_isolation''), current_setting(''work_mem''); END');
SET work_mem = '7MB';
:try ();
RESET work_mem;
SELECT dwh.become('BEGIN RESET ROLE; END');
:try ();

-- deferred triggers, and those that put off others; cursors that are read at the commit
CREATE TABLE dwh.noted (id integer, step integer);
CREATE FUNCTION dwh.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.step = 3 THEN
		RAISE EXCEPTION 'deferred: % %', NEW.id, NEW.step;
	END IF;
	SET CONSTRAINTS ALL DEFERRED;
	INSERT INTO dwh.noted VALUES (NEW.id, NEW.step + 1);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER note AFTER INSERT ON dwh.noted DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dwh.note();
SELECT dwh.become('BEGIN INSERT INTO dwh.noted VALUES (p_dimension_user_id, 1); END');
:try ();
DROP TRIGGER note ON dwh.noted;
SELECT dwh.become('BEGIN EXECUTE ''DECLARE c CURSOR WITH HOLD FOR SELECT 1 / (1 - n) FROM generate_series(0, 1) n''; END');
:try ();
-- a flag that does not stay cleared, and no datamart user to fail for it
SELECT dwh.become('BEGIN NULL; END');
CREATE FUNCTION dwh.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.modified := TRUE; RETURN NEW; END $$;
CREATE TRIGGER keep BEFORE UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.keep();
:try ();
DROP TRIGGER keep ON dwh.dimension_users;
-- what a refresh leaves in its session
SELECT dwh.become('BEGIN CREATE TEMP TABLE t (i integer); PREPARE p AS SELECT 1; PERFORM pg_advisory_lock(1); SET work_mem = ''5MB''; NOTIFY c; END');
:try ();

SELECT * FROM dwh.left_behind;

--
-- What stays
--
CREATE SEQUENCE dwh.numbers;
SELECT dwh.become('BEGIN PERFORM nextval(''dwh.numbers''); END');
:try ();
SELECT last_value, is_called FROM dwh.numbers;

--
-- Held by back-off, nobody waits, no cycle could begin
--
SELECT dwh.become('BEGIN RAISE EXCEPTION ''no''; END');
SELECT failed FROM datamart_users_run_cycle(NULL, 1);
:try ();
SELECT outcome, sqlstate FROM datamart_users_try(2);
SELECT attempts, dimension_user_id FROM datamart_users_failures ORDER BY 2;
UPDATE dwh.dimension_users SET modified = FALSE;
:try ();
-- not after a write of its own
\set VERBOSITY sqlstate
BEGIN;
DELETE FROM dwh.facts;
SELECT datamart_users_try();
ROLLBACK;
\set VERBOSITY default
SET datamart_users.procedure = 'dwh.nothing';
SELECT datamart_users_try(); \echo :SQLSTATE
RESET datamart_users.procedure;
:definition;

CREATE ROLE regress_trier;
SET ROLE regress_trier;
SELECT datamart_users_try(); \echo :SQLSTATE
RESET ROLE;
GRANT EXECUTE ON FUNCTION datamart_users_try TO regress_trier;
SET ROLE regress_trier;
SELECT datamart_users_try(); \echo :SQLSTATE
RESET ROLE;
REVOKE EXECUTE ON FUNCTION datamart_users_try FROM regress_trier;
DROP ROLE regress_trier;

SELECT count(*) FROM pg_locks WHERE locktype = 'advisory';
DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
