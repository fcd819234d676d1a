--
-- views.sql
--		Guards that views, and code behind them, work in a cycle as they do in a
--		plain statement of the caller's.
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin

SET datamart_users.retry_delay = 0;
\pset tuples_only on
\pset format unaligned
INSERT INTO dwh.dimension_users SELECT i, 'user ' || i, TRUE FROM generate_series(1, 4) i;
INSERT INTO dwh.facts VALUES (1, CURRENT_DATE), (2, CURRENT_DATE - 20);
\set cycle 'SELECT found, processed, failed, deferred FROM datamart_users_run_cycle(NULL, 1); UPDATE dwh.dimension_users SET modified = TRUE;'
\set queue 'SELECT dimension_user_id, priority FROM datamart_users_queue();'

--
-- Names that only the caller's search_path finds: in functions behind the
-- facts and behind the users, of each way to write one, in policies
--
CREATE SCHEMA app;
SET search_path = app, public;
CREATE TABLE app.places AS TABLE dwh.facts;
CREATE FUNCTION app.in_plpgsql() RETURNS SETOF dwh.facts LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT * FROM places; END';
CREATE FUNCTION app.in_sql() RETURNS SETOF dwh.facts LANGUAGE sql STABLE AS 'SELECT * FROM places';
CREATE FUNCTION app.zero() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN (SELECT count(*) * 0 FROM places); END';
CREATE FUNCTION app.may_see(integer) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN EXISTS (SELECT FROM places); END';

CREATE VIEW app.facts_plpgsql AS SELECT * FROM app.in_plpgsql();
CREATE VIEW app.facts_sql AS SELECT * FROM app.in_sql();
CREATE VIEW app.facts_column AS SELECT action_dimension_id_user + app.zero() AS action_dimension_id_user, action_at FROM dwh.facts;
CREATE VIEW app.facts_filter AS SELECT * FROM dwh.facts WHERE app.zero() = 0;
SET datamart_users.facts_table = 'app.facts_plpgsql';
:queue
:cycle
SET datamart_users.facts_table = 'app.facts_sql';
:queue
:cycle
SET datamart_users.facts_table = 'app.facts_column';
:queue
:cycle
SET datamart_users.facts_table = 'app.facts_filter';
:queue
:cycle
SELECT priority, waiting FROM datamart_users_backlog WHERE waiting > 0;
RESET datamart_users.facts_table;

CREATE VIEW app.users AS SELECT * FROM dwh.dimension_users WHERE app.may_see(dimension_user_id);
SET datamart_users.users_table = 'app.users';
:queue
:cycle
RESET datamart_users.users_table;
-- without that path, as a plain statement fails, so does this
SET search_path = public;
SET datamart_users.facts_table = 'app.facts_plpgsql';
SELECT count(*) FROM app.facts_plpgsql; \echo :SQLSTATE
SELECT count(*) FROM datamart_users_queue(); \echo :SQLSTATE
SELECT found FROM datamart_users_run_cycle(NULL, 1); \echo :SQLSTATE
RESET datamart_users.facts_table;

-- policies
CREATE ROLE regress_seen;
GRANT USAGE ON SCHEMA dwh, app TO regress_seen;
GRANT ALL ON ALL TABLES IN SCHEMA dwh, app TO regress_seen;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO regress_seen;
ALTER TABLE dwh.facts ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON dwh.facts USING (app.may_see(action_dimension_id_user));
ALTER TABLE dwh.dimension_users ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON dwh.dimension_users USING (app.may_see(dimension_user_id));
SET ROLE regress_seen;
SET search_path = app, public;
:queue
:cycle
RESET ROLE;
RESET search_path;
ALTER TABLE dwh.facts DISABLE ROW LEVEL SECURITY;
ALTER TABLE dwh.dimension_users DISABLE ROW LEVEL SECURITY;

--
-- The query itself finds the server's own in any search_path, also where a
-- domain or an array could make somebody else's fit better
--
CREATE SCHEMA hostile;
CREATE DOMAIN hostile.key AS integer;
CREATE DOMAIN hostile.day AS timestamptz;
CREATE TABLE hostile.users (dimension_user_id hostile.key, modified boolean);
CREATE TABLE hostile.facts (action_dimension_id_user hostile.key, action_at hostile.day);
INSERT INTO hostile.users VALUES (1, TRUE), (2, TRUE), (3, TRUE);
INSERT INTO hostile.facts VALUES (1, CURRENT_DATE), (2, CURRENT_DATE - 20);
CREATE FUNCTION hostile.trap() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hostile'; END $$;
CREATE FUNCTION hostile.trap(hostile.key, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.trap(bigint, hostile.key) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.trap(hostile.day, date) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.trap(hostile.day, hostile.day) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.trap(bigint, integer) RETURNS boolean LANGUAGE sql AS 'SELECT hostile.trap()';
CREATE FUNCTION hostile.trap(date, integer) RETURNS date LANGUAGE sql AS 'SELECT CASE WHEN hostile.trap() THEN $1 END';
CREATE FUNCTION hostile.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE sql AS 'SELECT 1::bigint WHERE hostile.trap()';
CREATE OPERATOR hostile.= (FUNCTION = hostile.trap, LEFTARG = hostile.key, RIGHTARG = bigint);
CREATE OPERATOR hostile.= (FUNCTION = hostile.trap, LEFTARG = bigint, RIGHTARG = hostile.key);
CREATE OPERATOR hostile.>= (FUNCTION = hostile.trap, LEFTARG = hostile.day, RIGHTARG = date);
CREATE OPERATOR hostile.< (FUNCTION = hostile.trap, LEFTARG = hostile.day, RIGHTARG = hostile.day);
CREATE OPERATOR hostile.> (FUNCTION = hostile.trap, LEFTARG = bigint, RIGHTARG = integer);
CREATE OPERATOR hostile.- (FUNCTION = hostile.trap, LEFTARG = date, RIGHTARG = integer);
CREATE AGGREGATE hostile.max (hostile.day) (SFUNC = pg_catalog.timestamptz_smaller, STYPE = timestamptz);
CREATE AGGREGATE hostile.max (bigint) (SFUNC = pg_catalog.int8smaller, STYPE = bigint);
CREATE AGGREGATE hostile.count (*) (SFUNC = pg_catalog.int8inc, STYPE = bigint, INITCOND = 1000);
SET datamart_users.users_table = 'hostile.users';
SET datamart_users.facts_table = 'hostile.facts';
CREATE PROCEDURE dwh.hold(id bigint) LANGUAGE sql AS
	'INSERT INTO datamart_users_failures (users_oid, users_table, dimension_user_id, attempts, first_failed_at, last_failed_at, next_attempt_at, sqlstate, message, cycle_id)
	VALUES (''hostile.users''::regclass, ''hostile.users'', id, 1, now(), now(), now() + ''1 day'', ''XX000'', '''', 0)';
CALL dwh.hold(3);
:queue
SET search_path = hostile, pg_catalog, public;
:queue
SELECT datamart_users_priority_query() AS query \gset
SELECT dimension_user_id, recency_class, activity_class, action_count FROM (:query) q;
RESET search_path;
DELETE FROM datamart_users_failures;
RESET datamart_users.users_table;
RESET datamart_users.facts_table;
SET client_min_messages = error;
DROP SCHEMA hostile CASCADE;
SET client_min_messages = warning;

--
-- Days that not every type and time zone knows
--
CREATE TABLE dwh.days (action_dimension_id_user integer, action_at date);
INSERT INTO dwh.days VALUES (1, '4714-11-24 BC'), (2, '5874897-12-31'), (3, '-infinity'), (4, 'infinity'), (1, NULL);
CREATE TABLE dwh.moments (action_dimension_id_user integer, action_at timestamp);
INSERT INTO dwh.moments VALUES (1, '4714-11-24 00:00:00 BC'), (2, '294276-12-31 23:59:59.999999'), (3, '-infinity'), (4, 'infinity'), (1, NULL);
CREATE TABLE dwh.moments_tz (action_dimension_id_user integer, action_at timestamptz);
INSERT INTO dwh.moments_tz VALUES (1, '4714-11-24 00:00:00+00 BC'), (2, '294276-12-31 23:59:59.999999+00'), (3, '-infinity'), (4, 'infinity'), (1, NULL);
CREATE PROCEDURE dwh.try_days() LANGUAGE plpgsql AS $$
DECLARE
	v_zone text;
	v_table text;
	v_queue text;
	v_waiting bigint;
BEGIN
	FOREACH v_zone IN ARRAY ARRAY['UTC', '<east>-14', '<west>+12'] LOOP
		FOREACH v_table IN ARRAY ARRAY['dwh.days', 'dwh.moments', 'dwh.moments_tz'] LOOP
			PERFORM set_config('TimeZone', v_zone, TRUE), set_config('datamart_users.facts_table', v_table, TRUE);
			SELECT string_agg(format('%s %s %s', dimension_user_id, priority, last_action_at), ', ' ORDER BY queue_position)
			INTO v_queue FROM datamart_users_queue();
			SELECT sum(waiting) INTO v_waiting FROM datamart_users_backlog;
			RAISE WARNING '% %: % (%)', v_zone, v_table, v_queue, v_waiting;
		END LOOP;
	END LOOP;
END $$;
CALL dwh.try_days();
SET datamart_users.facts_table = 'dwh.days';
SET TimeZone = '<east>-14';
:cycle
RESET datamart_users.facts_table;
RESET TimeZone;

--
-- Users tables that cannot be locked, or only in part: the third attempt of a
-- refresh, which locks first where it can
--
CREATE SEQUENCE dwh.attempts;
CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_dimension_user_id integer) LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('dwh.attempts') % 3 <> 0 THEN
		RAISE serialization_failure;
	END IF;
END $$;
CREATE TABLE dwh.flags (id integer PRIMARY KEY);
CREATE FUNCTION dwh.clear() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE dwh.dimension_users SET modified = NEW.modified WHERE dimension_user_id = OLD.dimension_user_id;
	RETURN NEW;
END $$;
CREATE VIEW dwh.u1 AS SELECT u.dimension_user_id, u.modified FROM dwh.dimension_users u LEFT JOIN dwh.flags f ON f.id = u.dimension_user_id;
CREATE VIEW dwh.u2 AS SELECT f.id, u.dimension_user_id, u.modified FROM dwh.flags f RIGHT JOIN dwh.dimension_users u ON f.id = u.dimension_user_id;
CREATE VIEW dwh.u3 AS SELECT DISTINCT dimension_user_id, modified FROM dwh.dimension_users;
CREATE VIEW dwh.u4 AS SELECT dimension_user_id, bool_or(modified) AS modified FROM dwh.dimension_users GROUP BY 1;
CREATE VIEW dwh.u5 AS SELECT dimension_user_id, modified FROM dwh.dimension_users UNION ALL SELECT id, FALSE FROM dwh.flags;
CREATE VIEW dwh.u6 AS SELECT dimension_user_id, modified FROM dwh.dimension_users INTERSECT SELECT dimension_user_id, modified FROM dwh.dimension_users;
CREATE VIEW dwh.u7 AS SELECT DISTINCT ON (dimension_user_id) dimension_user_id, modified, row_number() OVER () FROM dwh.dimension_users;
CREATE VIEW dwh.u8 AS WITH u AS MATERIALIZED (SELECT dimension_user_id, modified FROM dwh.dimension_users) SELECT * FROM u LIMIT 100;
SELECT format('CREATE TRIGGER t INSTEAD OF UPDATE ON dwh.u%s FOR EACH ROW EXECUTE FUNCTION dwh.clear()', i) FROM generate_series(1, 8) i \gexec
-- one above such a view, one that a rule updates, and those that can be locked
CREATE VIEW dwh.u9 AS SELECT dimension_user_id, modified FROM dwh.u1;
CREATE VIEW dwh.u10 AS SELECT DISTINCT dimension_user_id, modified FROM dwh.dimension_users;
CREATE RULE r AS ON UPDATE TO dwh.u10 DO INSTEAD UPDATE dwh.dimension_users SET modified = NEW.modified WHERE dimension_user_id = OLD.dimension_user_id;
CREATE VIEW dwh.u11 AS SELECT dimension_user_id, modified FROM dwh.dimension_users;
CREATE VIEW dwh.u12 AS SELECT * FROM dwh.u11 WHERE modified;

CREATE PROCEDURE dwh.try_users(n integer) LANGUAGE sql AS $$
	DELETE FROM datamart_users_failures;
	UPDATE dwh.dimension_users SET modified = (dimension_user_id = 1);
	SELECT setval('dwh.attempts', 3), set_config('datamart_users.users_table', 'dwh.u' || n, FALSE);
$$;
SELECT format('CALL dwh.try_users(%s)', i), format('SELECT %L, processed, failed, deferred, (SELECT min(sqlstate) FROM datamart_users_failures), (SELECT last_value - 3 FROM dwh.attempts) FROM datamart_users_run_cycle(NULL, 1)', 'u' || i), 'SELECT u.dimension_user_id FROM dwh.dimension_users u WHERE modified' FROM generate_series(1, 12) i \gexec
RESET datamart_users.users_table;

SET client_min_messages = error;
DROP SCHEMA dwh, app CASCADE;
DROP OWNED BY regress_seen;
DROP ROLE regress_seen;
DROP EXTENSION datamart_users;
