--
-- setup.sql
--		Guards what CREATE EXTENSION leaves in a database, in whatever schema,
--		and that DROP EXTENSION takes all of it away.
--
SET client_min_messages = warning;
CREATE SCHEMA "Strange schema";
CREATE EXTENSION datamart_users SCHEMA "Strange schema";
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin

CREATE VIEW members AS
SELECT i.type, i.identity, d.classid, d.objid, d.refobjid
  FROM pg_depend AS d,
	   LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS i
 WHERE d.deptype = 'e'
   AND d.refclassid = 'pg_extension'::regclass
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'datamart_users')
   AND i.type <> 'type';

\pset format unaligned
SELECT type, identity FROM members ORDER BY type COLLATE "C", identity COLLATE "C";
\pset format aligned

-- Everything is said to be what it is: none of these.
SELECT type, identity
  FROM members
 WHERE obj_description(objid, classid::regclass::name) IS NULL
   AND type <> 'sequence'
 ORDER BY 1, 2;
-- All of it carries the prefix.
SELECT type, identity
  FROM members
 WHERE identity !~ '^"Strange schema"\.datamart_users_'
 ORDER BY 1, 2;
SELECT obj_description(oid, 'pg_extension') IS NOT NULL AS comment, extrelocatable
  FROM pg_extension
 WHERE extname = 'datamart_users';

-- PUBLIC may do nothing with it, pg_monitor may read.
SELECT m.identity, a.privilege_type
  FROM members AS m
  LEFT JOIN pg_proc AS p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
  LEFT JOIN pg_class AS c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
	   LATERAL aclexplode(coalesce(proacl, relacl,
								   acldefault(CASE m.type WHEN 'function' THEN 'f'
														  WHEN 'sequence' THEN 's'
														  ELSE 'r' END::"char",
											  coalesce(proowner, relowner)))) AS a
 WHERE a.grantee = 0
 ORDER BY 1, 2;
SELECT m.identity, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS pg_monitor
  FROM members AS m
  JOIN pg_class AS c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
  LEFT JOIN LATERAL aclexplode(relacl) AS a ON a.grantee = 'pg_monitor'::regrole
 GROUP BY m.identity
 ORDER BY m.identity COLLATE "C";
-- And it really can, what is behind the views included.
GRANT USAGE ON SCHEMA "Strange schema", dwh TO pg_monitor;
GRANT SELECT ON ALL TABLES IN SCHEMA dwh TO pg_monitor;
DO $$
DECLARE
	readable regclass;
BEGIN
	FOR readable IN SELECT oid FROM pg_class
					 WHERE relname LIKE 'datamart\_users%' AND relkind IN ('r', 'v')
					   AND has_table_privilege('pg_monitor', oid, 'SELECT')
	LOOP
		SET LOCAL ROLE pg_monitor;
		EXECUTE format('SELECT FROM %s', readable);
		RESET ROLE;
	END LOOP;
END;
$$;

-- A dump takes the history along.
SELECT unnest(extconfig)::regclass::text COLLATE "C" AS dumped
  FROM pg_extension
 WHERE extname = 'datamart_users'
 ORDER BY 1;

-- Functions run with the caller's rights, but for these.
SELECT proname
  FROM members
  JOIN pg_proc ON classid = 'pg_proc'::regclass AND pg_proc.oid = objid
 WHERE prosecdef
 ORDER BY proname COLLATE "C";
-- None of those that are not in C can be led astray by a search_path.
SELECT identity, proconfig
  FROM members
  JOIN pg_proc ON classid = 'pg_proc'::regclass AND pg_proc.oid = objid
 WHERE probin IS NULL
   AND proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp']
 ORDER BY identity COLLATE "C";

--
-- It works from there, with the schema out of the search_path.
--
INSERT INTO dwh.dimension_users VALUES (1, 'one', true), (2, 'two', true), (100000, 'too large', true);
INSERT INTO dwh.facts VALUES (2, CURRENT_DATE);
SELECT queue_position, dimension_user_id, priority
  FROM "Strange schema".datamart_users_queue() ORDER BY 1;
SELECT "Strange schema".datamart_users_priority_query() LIKE 'SELECT %' AS is_text;
CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_dimension_user_id integer)
LANGUAGE sql AS 'INSERT INTO dwh.refreshes (dimension_user_id) VALUES (p_dimension_user_id::smallint)';
SELECT status, found, processed, failed
  FROM "Strange schema".datamart_users_run_cycle(max_workers => 1);
SELECT dimension_user_id, message FROM "Strange schema".datamart_users_failures;
SELECT "Strange schema".datamart_users_retry(100000);
SELECT status, found, processed, failed
  FROM "Strange schema".datamart_users_wait_cycle("Strange schema".datamart_users_start_cycle(max_workers => 1));
SELECT attempts FROM "Strange schema".datamart_users_failures;
SELECT status, found FROM "Strange schema".datamart_users_cycles ORDER BY cycle_id;
SELECT "Strange schema".datamart_users_cancel_cycle();

-- It stays where it is.
\set VERBOSITY sqlstate
ALTER EXTENSION datamart_users SET SCHEMA public;
-- Only a superuser can create it: its functions are in C.
DROP EXTENSION datamart_users;
CREATE ROLE regress_dm_creator;
GRANT CREATE ON DATABASE :"DBNAME" TO regress_dm_creator;
GRANT ALL ON SCHEMA public TO regress_dm_creator;
SET ROLE regress_dm_creator;
CREATE EXTENSION datamart_users;
RESET ROLE;
\set VERBOSITY default

--
-- Nothing is left.
--
SELECT count(*) FROM members;
SELECT oid::regclass FROM pg_class WHERE relname LIKE 'datamart\_users%' ORDER BY 1;
SELECT oid::regprocedure FROM pg_proc WHERE proname LIKE 'datamart\_users%' ORDER BY 1;
SELECT oid::regtype FROM pg_type WHERE typname LIKE '%datamart\_users%' ORDER BY 1;
DROP SCHEMA "Strange schema";

-- And it can come back, without its past.
CREATE EXTENSION datamart_users;
SELECT count(*) FROM datamart_users_cycles;
UPDATE dwh.dimension_users SET modified = true;
SELECT cycle_id, found FROM datamart_users_run_cycle(2, max_workers => 1);

-- Its schema may be renamed.
DROP EXTENSION datamart_users;
CREATE SCHEMA dm;
CREATE EXTENSION datamart_users SCHEMA dm;
ALTER SCHEMA dm RENAME TO "dm; DROP SCHEMA dwh";
UPDATE dwh.dimension_users SET modified = true;
SELECT found, processed, failed
  FROM "dm; DROP SCHEMA dwh".datamart_users_run_cycle(max_workers => 1);
SELECT "dm; DROP SCHEMA dwh".datamart_users_retry();
SELECT found FROM "dm; DROP SCHEMA dwh".datamart_users_cycles;

DROP SCHEMA dwh CASCADE;
DROP VIEW members;
DROP OWNED BY regress_dm_creator;
DROP ROLE regress_dm_creator;
DROP EXTENSION datamart_users;
DROP SCHEMA "dm; DROP SCHEMA dwh";
