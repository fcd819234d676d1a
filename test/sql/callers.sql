--
-- callers.sql
--		Guards from where a cycle may be called: transaction blocks that do no
--		harm, the procedure for schedulers, and the error after failures.
--
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
\set SHOW_CONTEXT never

CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_dimension_user_id integer)
LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM dwh.dimension_users
				WHERE dimension_user_id = p_dimension_user_id AND label = 'raises') THEN
		RAISE 'no datamart for %', p_dimension_user_id USING ERRCODE = 'DM001';
	END IF;
END;
$$;
-- Starts anew with the given labels, as datamart users 1, 2, 3 and so on.
CREATE PROCEDURE dwh.given(VARIADIC labels text[]) LANGUAGE sql AS $$
	TRUNCATE dwh.dimension_users, datamart_users_failures;
	INSERT INTO dwh.dimension_users
	SELECT id, label, true FROM unnest(labels) WITH ORDINALITY AS l (label, id);
$$;

--
-- Transaction blocks as drivers begin them.
--
CALL dwh.given('fine', 'fine');
BEGIN;
SELECT status, found, processed FROM datamart_users_run_cycle();
-- What it has done is there, and stays.
SELECT count(*) FROM dwh.dimension_users WHERE modified;
ROLLBACK;
SELECT count(*) FROM dwh.dimension_users WHERE modified;

-- Again and again in one block; a setting for the block reaches the workers.
CALL dwh.given('fine', 'fine', 'fine', 'fine');
BEGIN;
SET LOCAL datamart_users.max_users_per_cycle = 1;
SELECT outcome FROM datamart_users_try();
SELECT status, backlog, found, processed FROM datamart_users_run_cycle();
CALL datamart_users_run();
SELECT datamart_users_start_cycle() AS cycle_id \gset
SELECT status, backlog, found, processed FROM datamart_users_wait_cycle(:cycle_id);
-- What is read of the extension's tables, or of the catalogs, is no hindrance.
SELECT status, backlog, found, processed FROM datamart_users_wait_cycle(:cycle_id);
SELECT count(*) FROM datamart_users_progress;
SELECT count(*) > 0 AS functions FROM pg_proc;
SELECT count(*) > 0 AS tables FROM information_schema.tables;
SELECT status, backlog, found, processed FROM datamart_users_run_cycle();
COMMIT;
SELECT count(*) FROM dwh.dimension_users WHERE modified;

BEGIN ISOLATION LEVEL READ UNCOMMITTED;
SELECT status FROM datamart_users_run_cycle();
COMMIT;
-- A savepoint that is no more.
BEGIN;
SAVEPOINT one;
RELEASE one;
SELECT status FROM datamart_users_run_cycle();
COMMIT AND CHAIN;
SELECT status FROM datamart_users_run_cycle();
COMMIT;
-- The cursor that it runs in, and one that is left of another transaction.
BEGIN;
DECLARE left_over CURSOR WITH HOLD FOR SELECT generate_series(1, 2);
DECLARE its_own CURSOR FOR SELECT status FROM datamart_users_run_cycle();
COMMIT;
BEGIN;
DECLARE its_own CURSOR FOR SELECT status FROM datamart_users_run_cycle();
FETCH ALL FROM its_own;
CLOSE its_own;
SELECT status FROM datamart_users_run_cycle();
COMMIT;
CLOSE left_over;
-- Notices, an advisory lock that no refresh wants, code.
BEGIN;
LISTEN datamart;
SELECT pg_advisory_xact_lock(4711, 1);
DO $$ BEGIN PERFORM datamart_users_run_cycle(); END; $$;
SELECT status FROM datamart_users_run_cycle();
COMMIT;
UNLISTEN *;
-- Several statements in one message.
SET datamart_users.max_workers = 1 \; SELECT status, workers FROM datamart_users_run_cycle();
RESET datamart_users.max_workers;

--
-- The procedure.
--
CALL dwh.given('fine', 'raises', 'fine', 'fine', 'fine');
CALL datamart_users_run(2);
CALL datamart_users_run(NULL, 1, '1 h');
CALL datamart_users_run(time_limit => '100 us');
SELECT status, max_users, time_limit, workers_requested = 1 AS one_worker, found, processed, failed
  FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 3;
-- In the midst of code, which goes on with what it had.
CREATE TABLE dwh.my_log (line text);
CREATE PROCEDURE dwh.run_twice() LANGUAGE plpgsql AS $$
DECLARE
	v_row record;
BEGIN
	FOR v_row IN SELECT generate_series(1, 2) AS i LOOP
		CALL dwh.given('fine');
		COMMIT;
		CALL datamart_users_run();
		INSERT INTO dwh.my_log SELECT format('%s: %s', v_row.i, count(*)) FROM dwh.dimension_users WHERE modified;
		COMMIT;
	END LOOP;
END;
$$;
CALL dwh.run_twice();
SELECT * FROM dwh.my_log;
DO $$
DECLARE
	v_row record;
BEGIN
	FOR v_row IN SELECT line FROM dwh.my_log LOOP
		SET LOCAL datamart_users.max_users_per_cycle = 10;
		CALL datamart_users_run();
		UPDATE dwh.my_log SET line = 'after ' || line WHERE line = v_row.line;
		COMMIT;
	END LOOP;
END;
$$;
SELECT * FROM dwh.my_log;
SELECT max_users FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 2;
-- At the other levels, where it has to commit; and in functions.
SET default_transaction_isolation = 'serializable';
CALL datamart_users_run();
DO $$
BEGIN
	PERFORM count(*) FROM dwh.my_log;
	CALL datamart_users_run();
	PERFORM count(*) FROM dwh.my_log;
END;
$$;
RESET default_transaction_isolation;
CREATE FUNCTION dwh.run_in_function() RETURNS integer LANGUAGE sql AS 'CALL datamart_users_run(); SELECT 1';
SELECT dwh.run_in_function();
SELECT dwh.run_in_function() FROM generate_series(1, 2);

--
-- An error after a cycle in which datamart users failed.
--
SET datamart_users.error_on_failure = on;
CALL dwh.given('fine', 'raises', 'fine', 'raises', 'fine');
SELECT status FROM datamart_users_run_cycle(2); \echo :SQLSTATE
-- What was processed stays, and is known.
SELECT dimension_user_id FROM dwh.dimension_users WHERE modified ORDER BY 1;
SELECT status, found, processed, failed FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 1;
SELECT dimension_user_id, attempts FROM datamart_users_failures;
CALL datamart_users_run(); \echo :SQLSTATE
SELECT dimension_user_id FROM dwh.dimension_users WHERE modified ORDER BY 1;
-- The failed ones are held, so nobody fails.
CALL datamart_users_run();
-- A cycle that was started is all right; to wait for it is not, then or later.
SELECT datamart_users_retry();
SELECT datamart_users_start_cycle() AS cycle_id \gset
SELECT datamart_users_wait_cycle(:cycle_id); \echo :SQLSTATE
SELECT datamart_users_wait_cycle(:cycle_id, '0'); \echo :SQLSTATE
SET datamart_users.error_on_failure = off;
SELECT status, failed FROM datamart_users_wait_cycle(:cycle_id);
-- In a block it is an error like any other.
SELECT datamart_users_retry();
BEGIN;
SET LOCAL datamart_users.error_on_failure = on;
SELECT datamart_users_run_cycle(); \echo :SQLSTATE
SELECT 1;
ROLLBACK;
SELECT attempts FROM datamart_users_failures ORDER BY dimension_user_id;
-- Cycles that did not end well by themselves.
INSERT INTO datamart_users_cycles (cycle_id, users_oid, users_table, role_name, status, started_at, finished_at)
	OVERRIDING SYSTEM VALUE
SELECT 1000 + i, 'dwh.dimension_users'::regclass, 'dwh.dimension_users', current_user,
	   (ARRAY['failed', 'aborted', 'cancelled', 'completed', 'time_limit'])[i], now(), now()
  FROM generate_series(1, 5) AS i;
SET datamart_users.error_on_failure = on;
SELECT datamart_users_wait_cycle(1001); \echo :SQLSTATE
SELECT datamart_users_wait_cycle(1002); \echo :SQLSTATE
SELECT status FROM datamart_users_wait_cycle(1003);
SELECT status FROM datamart_users_wait_cycle(1004);
SELECT status FROM datamart_users_wait_cycle(1005);

DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
