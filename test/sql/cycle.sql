--
-- cycle.sql
--		Guards what a cycle does and says it did: its row, its history, what
--		becomes of datamart users that fail, back-off, limits, cancel, and
--		whose rights the refresh has.
--
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
\set SHOW_CONTEXT never
SET datamart_users.max_workers = 1;

-- Does to a datamart user what its label says.
CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_dimension_user_id integer)
LANGUAGE plpgsql AS $$
DECLARE
	what text := label FROM dwh.dimension_users WHERE dimension_user_id = p_dimension_user_id;
BEGIN
	INSERT INTO dwh.refreshes (dimension_user_id) VALUES (p_dimension_user_id);
	CASE what
		WHEN 'raises' THEN
			RAISE 'no datamart for %', p_dimension_user_id USING ERRCODE = 'DM001';
		WHEN 'divides by zero' THEN
			PERFORM 1 / (p_dimension_user_id - p_dimension_user_id);
		WHEN 'commits' THEN
			COMMIT;
		WHEN 'rolls back' THEN
			ROLLBACK;
		WHEN 'talks' THEN
			-- One byte, then as many characters of two bytes as there may be.
			RAISE '-%', repeat(chr(233), 2000);
		WHEN 'says nothing' THEN
			RAISE '%', '';
		WHEN 'deletes' THEN
			DELETE FROM dwh.dimension_users WHERE dimension_user_id = p_dimension_user_id;
		WHEN 'traps' THEN
			BEGIN
				COMMIT;
			EXCEPTION WHEN OTHERS THEN
				NULL;
			END;
		WHEN 'clears the next' THEN
			UPDATE dwh.dimension_users SET modified = false
			 WHERE dimension_user_id = p_dimension_user_id + 1;
		WHEN 'clears itself' THEN
			UPDATE dwh.dimension_users SET modified = false
			 WHERE dimension_user_id = p_dimension_user_id;
		WHEN 'naps' THEN
			PERFORM pg_sleep(0.05);
		WHEN 'sleeps' THEN
			PERFORM pg_sleep(600);
		WHEN 'resets role' THEN
			RESET ROLE;
		WHEN 'sets role' THEN
			EXECUTE format('SET ROLE %I', session_user);
		WHEN 'sets session authorization' THEN
			SET SESSION AUTHORIZATION DEFAULT;
		ELSE
			NULL;
	END CASE;
END;
$$;

-- Starts anew with the given labels, as datamart users 1, 2, 3 and so on.
CREATE PROCEDURE dwh.given(VARIADIC labels text[]) LANGUAGE sql AS $$
	TRUNCATE dwh.dimension_users, dwh.facts, dwh.refreshes, datamart_users_failures;
	INSERT INTO dwh.dimension_users
	SELECT id, label, true FROM unnest(labels) WITH ORDINALITY AS l (label, id);
$$;

--
-- The row of the caller and the history, with some of every priority and of
-- every outcome but deferred.
--
CALL dwh.given('fine', 'raises', 'fine', 'fine', 'clears the next', 'fine', 'fine',
			   'divides by zero', 'fine', 'clears itself');
INSERT INTO dwh.facts
SELECT id, CURRENT_DATE - CASE id WHEN 1 THEN 0 WHEN 2 THEN 0 WHEN 3 THEN 20 WHEN 4 THEN 70 ELSE 400 END
  FROM generate_series(1, 10) AS id,
	   generate_series(1, CASE WHEN id <= 4 THEN 2 WHEN id = 5 THEN 101 WHEN id = 6 THEN 101
							   WHEN id <= 8 THEN 11 ELSE 1 END);
SELECT status, backlog, found, processed, failed, skipped, deferred, workers,
	   elapsed > '0' AS elapsed
  FROM datamart_users_run_cycle(9);
SELECT dimension_user_id FROM dwh.refreshes ORDER BY refresh_id;
SELECT * FROM dwh.dimension_users WHERE modified ORDER BY dimension_user_id;
SELECT status, role_name = current_user AS role, started_at <= finished_at AS times,
	   elapsed = finished_at - started_at AS elapsed, max_users, time_limit, backlog, found,
	   processed, failed, skipped, deferred, workers_requested, workers,
	   prioritisation_time > '0' AND prioritisation_time <= elapsed AS prioritisation_time, message
  FROM datamart_users_cycles;
SELECT priority, found, processed, failed, skipped, deferred,
	   total_time >= max_time AS times
  FROM datamart_users_cycle_priorities
 ORDER BY array_position(ARRAY['critical', 'high', 'medium', 'historical', 'low', 'lowest'], priority);
SELECT sum(p.found) AS found, sum(p.processed) AS processed, sum(p.failed) AS failed,
	   sum(p.skipped) AS skipped, sum(p.deferred) AS deferred,
	   sum(p.total_time) <= min(c.elapsed) AS times
  FROM datamart_users_cycle_priorities AS p
  JOIN datamart_users_cycles AS c USING (cycle_id);
SELECT priority, avg_time <= max_time AS avg_time, users_per_minute > 0 AS users_per_minute
  FROM datamart_users_cycle_priority_rates
 ORDER BY priority COLLATE "C";

-- What is left, and then nothing: the failed ones are held.
SELECT status, backlog, found, processed, failed, skipped, deferred, workers
  FROM datamart_users_run_cycle(9);
SELECT status, backlog, found, processed, failed, skipped, deferred, workers
  FROM datamart_users_run_cycle();
SELECT found, count(p) AS priorities
  FROM datamart_users_cycles
  LEFT JOIN datamart_users_cycle_priorities AS p USING (cycle_id, found)
 WHERE found = 0
 GROUP BY cycle_id, found;

-- Start and wait give the same row.
CALL dwh.given('fine', 'raises');
SELECT datamart_users_start_cycle() AS cycle_id \gset
SELECT cycle_id = :cycle_id AS cycle_id, status, backlog, found, processed, failed, skipped,
	   deferred, workers, elapsed > '0' AS elapsed
  FROM datamart_users_wait_cycle(:cycle_id);
-- It has ended: so has the waiting, and the row is still the same.
SELECT cycle_id = :cycle_id AS cycle_id, status, backlog, found, processed, failed, skipped,
	   deferred, workers, elapsed > '0' AS elapsed
  FROM datamart_users_wait_cycle(:cycle_id, '0');
SELECT count(*)
  FROM datamart_users_wait_cycle(:cycle_id) AS w
  JOIN datamart_users_cycles AS c
	   USING (cycle_id, status, backlog, found, processed, failed, skipped, deferred, workers, elapsed);

-- Into a table of one's own.
CALL dwh.given('fine');
CREATE TABLE dwh.my_log (status text, processed integer);
INSERT INTO dwh.my_log SELECT status, processed FROM datamart_users_run_cycle();
SELECT * FROM dwh.my_log;

--
-- Failures, one by one.
--
CALL dwh.given('raises', 'divides by zero', 'commits', 'rolls back', 'talks', 'says nothing',
			   'deletes', 'traps', 'fine');
SELECT status, found, processed, failed FROM datamart_users_run_cycle();
-- What a failed refresh had written is gone.
SELECT dimension_user_id, label, modified, r IS NOT NULL AS refreshed
  FROM dwh.dimension_users
  LEFT JOIN dwh.refreshes AS r USING (dimension_user_id)
 ORDER BY dimension_user_id;
SELECT dimension_user_id, label, attempts, sqlstate, message,
	   cycle_id = (SELECT max(cycle_id) FROM datamart_users_cycles) AS cycle_id
  FROM datamart_users_failures
  JOIN dwh.dimension_users USING (dimension_user_id)
 WHERE label <> 'talks'
 ORDER BY dimension_user_id;
SELECT context FROM datamart_users_failures WHERE dimension_user_id = 2;
-- The first failure is the last one so far.
SELECT count(*) FROM datamart_users_failures WHERE first_failed_at <> last_failed_at;
-- Longer than there is room for: cut between two characters.
SELECT octet_length(message), message = '-' || repeat(chr(233), length(message) - 1) AS intact
  FROM datamart_users_failures
 WHERE dimension_user_id = 5 AND getdatabaseencoding() = 'UTF8'
UNION ALL
SELECT 1023, true WHERE getdatabaseencoding() <> 'UTF8';

--
-- Back-off: doubled with each attempt, up to a limit; the count goes on.
--
CALL dwh.given('raises', 'raises', 'fine');
SET datamart_users.retry_delay = '1min';
SET datamart_users.retry_delay_max = '200s';
CREATE VIEW back_off AS
SELECT dimension_user_id, attempts,
	   date_trunc('second', next_attempt_at - last_failed_at) AS delay,
	   next_attempt_at > now() AS held,
	   first_failed_at < last_failed_at AS again
  FROM datamart_users_failures;
SELECT processed, failed FROM datamart_users_run_cycle();
SELECT dimension_user_id, attempts, delay, held FROM back_off ORDER BY dimension_user_id;
SELECT count(*) FROM datamart_users_queue();
SELECT datamart_users_retry(1), datamart_users_retry(1), datamart_users_retry(3), datamart_users_retry(4);
SELECT dimension_user_id FROM datamart_users_queue();
SELECT attempts, held FROM back_off WHERE dimension_user_id = 1;
SELECT processed, failed FROM datamart_users_run_cycle();
SELECT * FROM back_off WHERE attempts = 2;
SELECT datamart_users_retry();
SELECT datamart_users_retry();
SELECT processed, failed FROM datamart_users_run_cycle();
SELECT datamart_users_retry();
SELECT processed, failed FROM datamart_users_run_cycle();
SELECT * FROM back_off ORDER BY dimension_user_id;

-- Success forgets them.
UPDATE dwh.dimension_users SET label = 'fine';
SELECT datamart_users_retry(1);
SELECT processed, failed FROM datamart_users_run_cycle();
SELECT * FROM back_off ORDER BY dimension_user_id;
-- The time alone does as well as retry.
UPDATE datamart_users_failures SET next_attempt_at = now() - interval '1 us';
SELECT processed, failed FROM datamart_users_run_cycle();
SELECT count(*) FROM datamart_users_failures;

-- Failing over and over does not end in an overflow, no delay means none.
CALL dwh.given('raises', 'raises');
SET datamart_users.retry_delay_max = '24d';
SELECT processed, failed FROM datamart_users_run_cycle();
UPDATE datamart_users_failures
   SET next_attempt_at = now(), attempts = CASE dimension_user_id WHEN 1 THEN 30 ELSE 5000 END;
SELECT processed, failed FROM datamart_users_run_cycle();
SELECT * FROM back_off ORDER BY dimension_user_id;
CALL dwh.given('raises');
SET datamart_users.retry_delay = 0;
SELECT processed, failed FROM datamart_users_run_cycle();
SELECT processed, failed FROM datamart_users_run_cycle();
SELECT attempts, delay, held FROM back_off;
RESET datamart_users.retry_delay;
RESET datamart_users.retry_delay_max;
DROP VIEW back_off;

-- A few that always fail do not keep the others from their turn.
CALL dwh.given('raises', 'raises', 'raises', 'fine', 'fine', 'fine');
INSERT INTO dwh.facts SELECT id, CURRENT_DATE FROM generate_series(1, 3) AS id;
SELECT processed, failed FROM datamart_users_run_cycle(3);
SELECT processed, failed FROM datamart_users_run_cycle(3);

--
-- Limits of time.
--
CALL dwh.given(VARIADIC array_fill('naps'::text, ARRAY[40]));
SELECT status, found, processed < found AS some_left, failed, skipped
  FROM datamart_users_run_cycle(time_limit => '0.2s');
SET datamart_users.cycle_time_limit = '100ms';
SELECT status, processed < found AS some_left, failed, skipped
  FROM datamart_users_run_cycle();
-- As short as can be is not none.
SELECT status, processed < found AS some_left, failed, skipped
  FROM datamart_users_run_cycle(time_limit => '100 us');
-- Nothing is lost, and nothing done twice.
SELECT count(*) FILTER (WHERE modified) + (SELECT count(*) FROM dwh.refreshes) AS users,
	   count(*) FILTER (WHERE modified AND dimension_user_id IN (SELECT dimension_user_id FROM dwh.refreshes)) AS twice
  FROM dwh.dimension_users;
-- The argument is over the setting; 0 is none, as there.
UPDATE dwh.dimension_users SET modified = dimension_user_id <= 3;
SELECT status, found, processed FROM datamart_users_run_cycle(time_limit => '0');
UPDATE dwh.dimension_users SET modified = dimension_user_id <= 3;
SELECT status, found, processed FROM datamart_users_run_cycle(time_limit => '1 mon');
UPDATE dwh.dimension_users SET modified = dimension_user_id <= 3;
SELECT status, found, processed FROM datamart_users_run_cycle(time_limit => '1 day -1 h');
SELECT status, time_limit,
	   message = format('time limit of %s s reached with %s of %s datamart users still to do',
						extract(epoch FROM time_limit)::double precision, found - processed, found) AS told
  FROM datamart_users_cycles
 WHERE time_limit >= '0.1s'
 ORDER BY cycle_id;
RESET datamart_users.cycle_time_limit;

-- One datamart user takes too long, and fails alone.
CALL dwh.given('fine', 'sleeps', 'fine');
SET datamart_users.user_timeout = '2s';
SELECT status, processed, failed FROM datamart_users_run_cycle();
SELECT dimension_user_id, sqlstate, message FROM datamart_users_failures;
RESET datamart_users.user_timeout;

--
-- Cancel.
--
SELECT datamart_users_cancel_cycle();
CALL dwh.given('sleeps', 'fine');
SELECT datamart_users_start_cycle() AS cycle_id \gset
SELECT cycle_id = :cycle_id AS cycle_id, status, processed
  FROM datamart_users_wait_cycle(:cycle_id, '0');
SELECT cycle_id = :cycle_id AS cycle_id, status, processed
  FROM datamart_users_wait_cycle(:cycle_id, '10 ms');
SELECT cycle_id = :cycle_id AS cycle_id, role_name = current_user AS role, done, processed
  FROM datamart_users_progress;
SELECT worker, pid = (SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
					   WHERE l.locktype = 'advisory' AND l.objsubid = 3
						 AND d.datname = current_database()) AS coordinator,
	   processed, failed
  FROM datamart_users_workers
 WHERE worker = 1;
-- There is one cycle of a datamart.
\set VERBOSITY sqlstate
SELECT datamart_users_run_cycle();
SELECT datamart_users_start_cycle();
\set VERBOSITY default
-- Whoever is neither of its role nor may signal other sessions cannot stop it.
CREATE ROLE regress_dm_other;
CREATE ROLE regress_dm_signaller IN ROLE pg_signal_backend;
GRANT EXECUTE ON FUNCTION datamart_users_cancel_cycle TO regress_dm_other, regress_dm_signaller;
SET ROLE regress_dm_other;
SELECT datamart_users_cancel_cycle(); \echo :SQLSTATE
SET ROLE regress_dm_signaller;
SELECT datamart_users_cancel_cycle(); \echo :SQLSTATE
RESET ROLE;
SELECT datamart_users_cancel_cycle();
SELECT status, processed, failed FROM datamart_users_wait_cycle(:cycle_id);
SELECT status, processed, failed, message LIKE 'canceled by datamart_users_cancel_cycle(), called by role "%' AS told FROM datamart_users_cycles WHERE cycle_id = :cycle_id;
SELECT * FROM dwh.dimension_users ORDER BY dimension_user_id;
SELECT count(*) FROM datamart_users_failures;
SELECT datamart_users_cancel_cycle();
SELECT count(*) FROM datamart_users_progress;
SELECT count(*) FROM datamart_users_workers;

--
-- Whose rights a refresh has.  None of these roles can log in.
--
CREATE ROLE regress_dm_runner;
CREATE ROLE regress_dm_definer;
GRANT USAGE ON SCHEMA dwh TO regress_dm_runner, regress_dm_definer;
GRANT SELECT, UPDATE ON dwh.dimension_users TO regress_dm_runner, regress_dm_definer;
GRANT SELECT ON dwh.facts TO regress_dm_runner, regress_dm_definer;
GRANT INSERT ON dwh.refreshes TO regress_dm_runner, regress_dm_definer;
GRANT EXECUTE ON FUNCTION datamart_users_run_cycle, datamart_users_start_cycle,
	datamart_users_cancel_cycle, datamart_users_retry
	TO regress_dm_runner, regress_dm_definer;

CALL dwh.given('fine');
SET ROLE regress_dm_runner;
SELECT status, processed FROM datamart_users_run_cycle();
RESET ROLE;
SELECT dimension_user_id, role_name FROM dwh.refreshes;

CALL dwh.given('fine');
CREATE FUNCTION dwh.run_as_definer() RETURNS text LANGUAGE sql SECURITY DEFINER
SET search_path = public, pg_temp
AS 'SELECT status FROM datamart_users_run_cycle()';
ALTER FUNCTION dwh.run_as_definer() OWNER TO regress_dm_definer;
GRANT USAGE ON SCHEMA dwh TO regress_dm_other;
SET ROLE regress_dm_other;
SELECT dwh.run_as_definer();
RESET ROLE;
SELECT dimension_user_id, role_name FROM dwh.refreshes;
SELECT role_name FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 2;

-- What the function does with its owner's rights is not for its caller to set.
CALL dwh.given('fine');
CREATE PROCEDURE public.of_the_caller(integer) LANGUAGE sql AS '';
SET SESSION AUTHORIZATION regress_dm_other;
SET datamart_users.procedure = 'public.of_the_caller';
SELECT dwh.run_as_definer(); \echo :SQLSTATE
RESET datamart_users.procedure;
SET datamart_users.worker_settings = 'search_path = of_the_caller';
SELECT dwh.run_as_definer(); \echo :SQLSTATE
RESET datamart_users.worker_settings;
SET datamart_users.users_table = 'dwh.dimension_users';
SELECT dwh.run_as_definer(); \echo :SQLSTATE
RESET datamart_users.users_table;
SET datamart_users.facts_table = 'dwh.facts';
SELECT dwh.run_as_definer(); \echo :SQLSTATE
RESET datamart_users.facts_table;
SELECT dwh.run_as_definer(); \echo :SQLSTATE
-- The hint is true.
RESET SESSION AUTHORIZATION;
CALL dwh.given('fine');
ALTER FUNCTION dwh.run_as_definer() SET datamart_users.procedure = 'dwh.update_datamart_user';
SET SESSION AUTHORIZATION regress_dm_other;
SET datamart_users.procedure = 'public.of_the_caller';
SELECT dwh.run_as_definer(); \echo :SQLSTATE
RESET datamart_users.procedure;
RESET SESSION AUTHORIZATION;
SELECT dimension_user_id, role_name FROM dwh.refreshes;
DROP PROCEDURE public.of_the_caller(integer);

-- There is no way back up.
CALL dwh.given('fine', 'resets role', 'sets role', 'sets session authorization');
SET ROLE regress_dm_runner;
SELECT status, processed, failed FROM datamart_users_run_cycle();
-- His cycles are in the history, and his failures; he himself cannot write them.
INSERT INTO datamart_users_cycles (status, role_name, started_at) VALUES ('completed', 'x', now()); \echo :SQLSTATE
UPDATE datamart_users_cycles SET processed = 1000000; \echo :SQLSTATE
DELETE FROM datamart_users_cycle_priorities; \echo :SQLSTATE
DELETE FROM datamart_users_failures; \echo :SQLSTATE
SELECT count(*) FROM datamart_users_failures; \echo :SQLSTATE
INSERT INTO datamart_users_suspects VALUES (1, 1, 1); \echo :SQLSTATE
SELECT datamart_users_retry();
RESET ROLE;
SELECT dimension_user_id, sqlstate, message FROM datamart_users_failures ORDER BY dimension_user_id;
SELECT dimension_user_id, role_name FROM dwh.refreshes ORDER BY refresh_id;

-- A right that only the procedure needs is the datamart user's failure.
CALL dwh.given('fine');
REVOKE INSERT ON dwh.refreshes FROM regress_dm_runner;
SET ROLE regress_dm_runner;
SELECT status, processed, failed FROM datamart_users_run_cycle();
RESET ROLE;
SELECT sqlstate, message FROM datamart_users_failures;

-- His own cycle he can stop, and so can whoever may signal his sessions.
CALL dwh.given('sleeps');
GRANT INSERT ON dwh.refreshes TO regress_dm_runner;
SET ROLE regress_dm_runner;
SELECT datamart_users_start_cycle() AS cycle_id \gset
SET ROLE regress_dm_other;
SELECT datamart_users_cancel_cycle(); \echo :SQLSTATE
SET ROLE regress_dm_runner;
SELECT datamart_users_cancel_cycle();
SELECT datamart_users_start_cycle() > :cycle_id AS started;
SET ROLE regress_dm_signaller;
SELECT datamart_users_cancel_cycle();
RESET ROLE;
SELECT status, role_name FROM datamart_users_cycles WHERE cycle_id >= :cycle_id ORDER BY cycle_id;
-- None is left, even if one of these went wrong.
SELECT datamart_users_cancel_cycle();

--
-- History: what a dead coordinator or server left behind, and retention.
--
CALL dwh.given('fine', 'fine', 'fine');
TRUNCATE datamart_users_cycles CASCADE;
INSERT INTO datamart_users_cycles (cycle_id, status, role_name, started_at, finished_at)
OVERRIDING SYSTEM VALUE VALUES
	(-1, 'running', 'coordinator died', now(), NULL),
	(-2, 'running', 'server died', '2001-01-01', NULL),
	(-3, 'completed', 'three days ago', now() - interval '3 days', now() - interval '3 days'),
	(-4, 'failed', 'a day and a bit ago', now() - interval '25 h', now()),
	(-5, 'failed', 'not quite a day ago', now() - interval '23 h', now());
INSERT INTO datamart_users_cycle_priorities
SELECT cycle_id, 'low', 0, 0, 0, 0, 0, '0', '0' FROM datamart_users_cycles WHERE cycle_id < -2;
-- Who was at work when the server went down a second time is the suspect.
INSERT INTO datamart_users_suspects VALUES (1, 2, -2);
SET datamart_users.history_retention = 0;
SELECT status, backlog, found, processed FROM datamart_users_run_cycle();
SELECT role_name, status, finished_at IS NOT NULL AS finished, message
  FROM datamart_users_cycles
 WHERE cycle_id < 0
 ORDER BY cycle_id DESC;
SELECT dimension_user_id, attempts, sqlstate, message, cycle_id FROM datamart_users_failures;
SELECT count(*) FROM datamart_users_suspects;

SET datamart_users.history_retention = '1d';
SELECT status, found FROM datamart_users_run_cycle();
SELECT role_name, status, count(p) AS priorities
  FROM datamart_users_cycles AS c
  LEFT JOIN datamart_users_cycle_priorities AS p USING (cycle_id)
 WHERE cycle_id < 0
 GROUP BY cycle_id
 ORDER BY cycle_id DESC;
SELECT count(*) AS cycles FROM datamart_users_cycles WHERE cycle_id > 0;
SELECT count(*) FROM datamart_users_cycle_priorities WHERE cycle_id < 0;
RESET datamart_users.history_retention;

--
-- Kinds of users tables.
--
CALL dwh.given('fine', 'raises', 'fine');
CREATE TABLE dwh.parted_users (dimension_user_id bigint, modified boolean NOT NULL)
	PARTITION BY LIST (modified);
CREATE TABLE dwh.parted_users_waiting PARTITION OF dwh.parted_users FOR VALUES IN (true);
CREATE TABLE dwh.parted_users_done PARTITION OF dwh.parted_users FOR VALUES IN (false);
INSERT INTO dwh.parted_users SELECT dimension_user_id, true FROM dwh.dimension_users;
SET datamart_users.users_table = 'dwh.parted_users';
SELECT status, processed, failed FROM datamart_users_run_cycle();
SELECT tableoid::regclass, dimension_user_id, modified FROM dwh.parted_users ORDER BY dimension_user_id;

CREATE VIEW dwh.view_of_users AS
SELECT modified, dimension_user_id::bigint FROM dwh.dimension_users WHERE label <> 'raises';
SET datamart_users.users_table = 'dwh.view_of_users';
SELECT status, found, processed, failed FROM datamart_users_run_cycle();
SELECT * FROM dwh.dimension_users ORDER BY dimension_user_id;

-- Its rows come out of an aggregate, and a trigger knows what to update.
CALL dwh.given('fine', 'raises', 'fine');
CREATE OR REPLACE VIEW dwh.view_of_users AS
SELECT bool_or(modified) AS modified, dimension_user_id::bigint
  FROM dwh.dimension_users GROUP BY dimension_user_id;
CREATE FUNCTION dwh.update_view_of_users() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE dwh.dimension_users SET modified = new.modified
	 WHERE dimension_user_id = old.dimension_user_id;
	RETURN new;
END;
$$;
CREATE TRIGGER update_view_of_users INSTEAD OF UPDATE ON dwh.view_of_users
	FOR EACH ROW EXECUTE FUNCTION dwh.update_view_of_users();
SELECT status, found, processed, failed FROM datamart_users_run_cycle();
SELECT * FROM dwh.dimension_users ORDER BY dimension_user_id;
SELECT dimension_user_id, sqlstate FROM datamart_users_failures;
RESET datamart_users.users_table;

DROP SCHEMA dwh CASCADE;
DROP OWNED BY regress_dm_runner, regress_dm_definer, regress_dm_other, regress_dm_signaller;
DROP ROLE regress_dm_runner, regress_dm_definer, regress_dm_other, regress_dm_signaller;

--
-- The warehouse of the fixtures: the datamart tells the truth.
--
\set warehouse :srcdir '/fixtures/warehouse.sql'
\set users 60
\set facts 2000
\i :warehouse
TRUNCATE datamart_users_cycles CASCADE;
TRUNCATE datamart_users_failures;
SELECT status, found, processed, failed FROM datamart_users_run_cycle(20);
SELECT count(*) FROM dwh.datamartusers;
SELECT dimension_user_id FROM dwh.stale_datamart_users();
SELECT * FROM dwh.torn_datamart_users();

SET datamart_users.procedure = 'dwh.update_datamart_user_light';
SET client_min_messages = error;
UPDATE dwh.dimension_users SET modified = true;
SELECT status, found, processed, failed FROM datamart_users_run_cycle(max_workers => 4);
SET client_min_messages = warning;
SELECT count(*) FROM dwh.datamartusers_light;
SELECT dimension_user_id FROM dwh.stale_datamart_users('dwh.datamartusers_light');

-- New facts, an account renamed: again everybody who is touched, and nobody else.
SELECT dwh.etl_add_facts(10, ARRAY[3, 5, 7]);
SELECT status, found, processed, failed FROM datamart_users_run_cycle();
SELECT dimension_user_id FROM dwh.stale_datamart_users('dwh.datamartusers_light');
RESET datamart_users.procedure;
UPDATE dwh.dimension_users SET modified = false;
DO $$ BEGIN PERFORM dwh.etl_rename_user(7); END $$;
SELECT dimension_user_id FROM datamart_users_queue() ORDER BY 1;
SELECT status, found, processed, failed FROM datamart_users_run_cycle();
SELECT dimension_user_id FROM dwh.dimension_users WHERE modified;
SELECT dimension_user_id FROM datamart_users_failures;

DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
