--
-- doctor.sql
--		Guards what the doctor says of views, of publications, and of a
--		procedure that he cannot look into.
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin

\pset format unaligned
\pset tuples_only on
\pset null '(null)'
CREATE FUNCTION dwh.says(VARIADIC items text[], OUT item text, OUT status text, OUT detail text, OUT hint text) RETURNS SETOF record
LANGUAGE sql AS 'SELECT c.* FROM datamart_users_check() c WHERE c.item = ANY (items)';

--
-- Indexes below views
--
CREATE TABLE dwh.f2020 (who integer, done_at timestamptz);
CREATE TABLE dwh.f2021 (w integer, d timestamptz, other integer);
CREATE TABLE dwh.times (who integer, day date);
CREATE VIEW dwh.v_one AS SELECT who AS action_dimension_id_user, done_at AS action_at FROM dwh.f2020;
CREATE VIEW dwh.v_above AS SELECT action_at, action_dimension_id_user FROM dwh.v_one WHERE action_at IS NOT NULL;
CREATE VIEW dwh.v_union AS SELECT who AS action_dimension_id_user, done_at AS action_at FROM dwh.f2020 UNION ALL SELECT w, d FROM dwh.f2021;
CREATE VIEW dwh.v_join AS SELECT f.who AS action_dimension_id_user, t.day AS action_at FROM dwh.f2020 f LEFT JOIN dwh.times t USING (who);
CREATE VIEW dwh.v_using AS SELECT who AS action_dimension_id_user, day AS action_at FROM dwh.f2020 JOIN dwh.times USING (who);
CREATE VIEW dwh.v_cte AS WITH c AS (SELECT * FROM dwh.f2020), s AS (SELECT * FROM c) SELECT s.who AS action_dimension_id_user, s.done_at AS action_at FROM s;
CREATE VIEW dwh.v_group AS SELECT who AS action_dimension_id_user, max(done_at) AS action_at FROM dwh.f2020 GROUP BY who;
CREATE VIEW dwh.v_computed AS SELECT who + 1 AS action_dimension_id_user, done_at AS action_at FROM dwh.f2020;
CREATE VIEW dwh.v_values AS SELECT * FROM (VALUES (1, now())) v (action_dimension_id_user, action_at);
SELECT format('SET datamart_users.facts_table = %L', 'dwh.v_' || v), 'SELECT * FROM dwh.says(''facts index'')'
FROM unnest(ARRAY['one', 'above', 'union', 'join', 'using', 'cte', 'group', 'computed', 'values']) v \gexec
-- the statements are to be pasted
SET datamart_users.facts_table = 'dwh.v_union';
\set ECHO none
SELECT unnest(string_to_array(hint, E'\n')) FROM dwh.says('facts index') \gexec
\set ECHO all
SELECT * FROM dwh.says('facts index');
SET datamart_users.facts_table = 'dwh.v_one';
SELECT * FROM dwh.says('facts index', 'facts partitions', 'flag index');
RESET datamart_users.facts_table;

CREATE TABLE dwh.people (id integer, flag boolean);
CREATE VIEW dwh.users AS SELECT p.id AS dimension_user_id, p.flag AS modified FROM dwh.people p;
SET datamart_users.users_table = 'dwh.users';
SELECT * FROM dwh.says('users index');
CREATE UNIQUE INDEX ON dwh.people (id);
SELECT * FROM dwh.says('users index');
RESET datamart_users.users_table;

--
-- Publications.  The data of a column list and a row filter belong to the
-- identity, too.
--
SET client_min_messages = error;
CREATE TABLE dwh.datamartusers (dimension_user_id integer, facts bigint);
SELECT * FROM dwh.says('publications');
CREATE PUBLICATION p FOR ALL TABLES;
SELECT * FROM dwh.says('publications');
ALTER TABLE dwh.dimension_users DROP CONSTRAINT dimension_users_pkey;
SELECT * FROM dwh.says('publications');
-- the server agrees
UPDATE dwh.dimension_users SET modified = FALSE; \echo :SQLSTATE
ALTER PUBLICATION p SET (publish = 'insert, truncate');
SELECT * FROM dwh.says('publications');
ALTER PUBLICATION p SET (publish = 'delete');
SELECT * FROM dwh.says('publications');
DROP PUBLICATION p;
CREATE PUBLICATION p FOR TABLES IN SCHEMA dwh;
SELECT status, detail FROM dwh.says('publications');
ALTER TABLE dwh.dimension_users REPLICA IDENTITY FULL;
ALTER TABLE dwh.datamartusers REPLICA IDENTITY FULL;
SELECT status, detail FROM dwh.says('publications');
ALTER TABLE dwh.dimension_users REPLICA IDENTITY NOTHING;
SELECT status, detail FROM dwh.says('publications');
ALTER TABLE dwh.dimension_users REPLICA IDENTITY DEFAULT, ADD PRIMARY KEY (dimension_user_id) DEFERRABLE;
SELECT status, detail FROM dwh.says('publications');
ALTER TABLE dwh.dimension_users DROP CONSTRAINT dimension_users_pkey, ADD PRIMARY KEY (dimension_user_id);
SELECT status, detail FROM dwh.says('publications');
DROP PUBLICATION p;

CREATE PUBLICATION p FOR TABLE dwh.dimension_users (label);
SELECT status, split_part(hint, ';', 1) FROM dwh.says('publications');
DROP PUBLICATION p;
CREATE PUBLICATION p FOR TABLE dwh.dimension_users WHERE (modified);
SELECT status, split_part(hint, ';', 1) FROM dwh.says('publications');
DROP PUBLICATION p;

-- partitions, published by themselves or through their root; only one without
CREATE TABLE dwh.parted (dimension_user_id integer, modified boolean) PARTITION BY LIST (dimension_user_id);
CREATE TABLE dwh.parted_1 PARTITION OF dwh.parted FOR VALUES IN (1);
CREATE TABLE dwh.parted_2 PARTITION OF dwh.parted FOR VALUES IN (2);
ALTER TABLE dwh.parted_1 REPLICA IDENTITY FULL;
SET datamart_users.users_table = 'dwh.parted';
CREATE PUBLICATION p FOR TABLE dwh.parted;
SELECT status, detail, hint FROM dwh.says('publications');
ALTER PUBLICATION p SET (publish_via_partition_root = true);
SELECT status, detail, hint FROM dwh.says('publications');
ALTER PUBLICATION p SET TABLE dwh.parted_1;
SELECT status, detail, hint FROM dwh.says('publications');
-- below a view, and written by a rule
ALTER PUBLICATION p SET TABLE dwh.people;
DROP INDEX dwh.people_id_idx;
SET datamart_users.users_table = 'dwh.users';
SELECT status, detail, hint FROM dwh.says('publications');
CREATE TABLE dwh.ruled (id integer, cleared boolean);
CREATE VIEW dwh.users_rule AS SELECT 1 AS dimension_user_id, TRUE AS modified;
CREATE RULE r AS ON UPDATE TO dwh.users_rule DO INSTEAD UPDATE dwh.ruled SET cleared = TRUE;
ALTER PUBLICATION p SET TABLE dwh.ruled;
SET datamart_users.users_table = 'dwh.users_rule';
SELECT status, detail, hint FROM dwh.says('publications');
RESET datamart_users.users_table;

-- tables that the procedure writes, elsewhere
CREATE SCHEMA mart;
CREATE TABLE mart.totals (id integer, n bigint);
ALTER PUBLICATION p SET TABLE mart.totals;
SELECT status, detail FROM dwh.says('publications');
CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_dimension_user_id integer) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE mart.totals SET n = 0 WHERE id = p_dimension_user_id;
END $$;
SELECT status, detail FROM dwh.says('publications');
CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_dimension_user_id integer) LANGUAGE sql
BEGIN ATOMIC
	DELETE FROM mart.totals WHERE id = p_dimension_user_id;
END;
SELECT status, detail FROM dwh.says('publications');
DROP PUBLICATION p;

--
-- What is inside a procedure
--
SELECT status, hint FROM dwh.says('privileges');
CREATE ROLE regress_dmu_etl;
GRANT USAGE ON SCHEMA dwh TO regress_dmu_etl;
GRANT SELECT ON dwh.facts, dwh.dimension_users TO regress_dmu_etl;
GRANT UPDATE (modified) ON dwh.dimension_users TO regress_dmu_etl;
GRANT EXECUTE ON FUNCTION datamart_users_run_cycle, datamart_users_try, datamart_users_check TO regress_dmu_etl;
SELECT * FROM datamart_users_check('regress_dmu_etl') WHERE item = 'privileges';
-- so it is
INSERT INTO dwh.dimension_users VALUES (1, 'one', TRUE);
SET ROLE regress_dmu_etl;
SELECT outcome, sqlstate, message FROM datamart_users_try();
RESET ROLE;
ALTER PROCEDURE dwh.update_datamart_user SECURITY DEFINER;
SELECT * FROM datamart_users_check('regress_dmu_etl') WHERE item = 'privileges';
SET ROLE regress_dmu_etl;
SELECT outcome, sqlstate, message FROM datamart_users_try();
RESET ROLE;

DROP SCHEMA dwh, mart CASCADE;
DROP OWNED BY regress_dmu_etl;
DROP ROLE regress_dmu_etl;
DROP EXTENSION datamart_users;
