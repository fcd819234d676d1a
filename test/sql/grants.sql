--
-- grants.sql
--		Guards that each view and table can be granted by itself: whoever has
--		SELECT on it, and nothing else of the extension, can read it.
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin

INSERT INTO dwh.dimension_users SELECT i, 'user ' || i, TRUE FROM generate_series(1, 3) i;
CREATE ROLE regress_dmu_grants_reader;
CREATE ROLE regress_dmu_grants_none;

-- Rows of each relation, to a role that has this one only; or the error.
CREATE FUNCTION dwh.read_alone(what regclass, reader name) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	EXECUTE format('GRANT SELECT ON %s TO regress_dmu_grants_reader', what);
	EXECUTE format('SET LOCAL ROLE %I', reader);
	EXECUTE format('SELECT count(*) FROM %s', what) INTO n;
	RESET ROLE;
	EXECUTE format('REVOKE SELECT ON %s FROM regress_dmu_grants_reader', what);
	RETURN CASE WHEN n >= 0 THEN 'read' END;
EXCEPTION WHEN insufficient_privilege THEN
	RESET ROLE;
	EXECUTE format('REVOKE SELECT ON %s FROM regress_dmu_grants_reader', what);
	RETURN SQLERRM;
END $$;

CREATE VIEW dwh.relations AS
	SELECT c.oid::regclass AS relation, c.relkind
	  FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
	 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'datamart_users')
	   AND c.relkind IN ('r', 'v', 'f');

SELECT relkind, dwh.read_alone(relation, 'regress_dmu_grants_reader') AS reader, count(*) >= 1 AS some
  FROM dwh.relations
 GROUP BY 1, 2 ORDER BY 1, 2;

-- Which that one needs the right to read the warehouse, as its comment says.
GRANT USAGE ON SCHEMA dwh TO regress_dmu_grants_reader;
GRANT SELECT ON dwh.dimension_users, dwh.facts TO regress_dmu_grants_reader;
SELECT relkind, dwh.read_alone(relation, 'regress_dmu_grants_reader') AS reader, count(*) >= 1 AS some
  FROM dwh.relations
 GROUP BY 1, 2 ORDER BY 1, 2;

-- To nobody else.
SELECT count(*) FROM dwh.relations WHERE dwh.read_alone(relation, 'regress_dmu_grants_none') !~ '^permission denied for ';

-- What is behind them cannot be turned to something else.
\set VERBOSITY sqlstate
SET ROLE regress_dmu_grants_reader;
CREATE FOREIGN TABLE pg_temp.mine (a integer) SERVER datamart_users OPTIONS (source 'backlog');
SELECT datamart_users_source_handler();
RESET ROLE;
\set VERBOSITY default
CREATE FOREIGN TABLE dwh.mine (a integer) SERVER datamart_users OPTIONS (source 'progress');
CREATE FOREIGN TABLE dwh.yours (a integer) SERVER datamart_users OPTIONS (origin 'progress');
SELECT count(*) FROM dwh.mine;
SELECT count(*) FROM dwh.yours;
CREATE FOREIGN TABLE dwh.others (a text, b text, c text, d text, e text, f text, g text, h text, i text, j text, k text, l text) SERVER datamart_users OPTIONS (source 'backlog');
SELECT c FROM dwh.others;
SELECT count(*) FROM datamart_users_backlog_source;

-- As part of other queries: scanned again and again, and beside a table that
-- is read in parallel.
SELECT count(*) FROM generate_series(1, 3) i, LATERAL (SELECT waiting FROM datamart_users_backlog b WHERE b.waiting + i > 0 OFFSET 0) x;
CREATE TABLE dwh.large AS SELECT i FROM generate_series(1, 10000) i;
ANALYZE dwh.large;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
\set query 'SELECT sum(waiting), n FROM datamart_users_backlog, (SELECT count(*) AS n FROM dwh.large) AS l GROUP BY n'
EXPLAIN (COSTS off) :query;
:query;
SELECT count(*) FROM datamart_users_progress p RIGHT JOIN dwh.dimension_users u ON p.cycle_id = u.dimension_user_id;

DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
DROP OWNED BY regress_dmu_grants_reader;
DROP ROLE regress_dmu_grants_reader, regress_dmu_grants_none;
