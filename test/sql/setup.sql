--
-- setup.sql
--		Guards what CREATE EXTENSION leaves in a database, in whatever schema,
--		and that DROP EXTENSION takes all of it away.
--
SET client_min_messages = warning;
CREATE SCHEMA "Strange schema";

-- Somebody who may create there has been before: for every operator that the
-- script could mean there is one for each pair of types that the server has
-- none for, and so for functions.
DO $$
DECLARE
	types regtype[] := '{integer,bigint,numeric,double precision,text,name,"char",oid,interval,timestamptz,text[]}';
	op record;
	fn record;
BEGIN
	FOR op IN
		SELECT o.name, l, r,
			   CASE WHEN o.name IN ('+', '-', '*', '/', '||') THEN l::text ELSE 'boolean' END AS result
		  FROM unnest('{+,-,*,/,=,<>,<,>,<=,>=,||,~}'::text[]) AS o (name), unnest(types) AS l, unnest(types) AS r
		 WHERE NOT EXISTS (SELECT FROM pg_operator
							WHERE oprname = o.name AND oprleft = l AND oprright = r)
	LOOP
		EXECUTE format('CREATE OR REPLACE FUNCTION "Strange schema"."trap %s"(%s, %s) RETURNS %s LANGUAGE plpgsql AS ''BEGIN RAISE ''''trap''''; END''',
					   op.result, op.l, op.r, op.result);
		EXECUTE format('CREATE OPERATOR "Strange schema".%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = "Strange schema"."trap %s")',
					   op.name, op.l, op.r, op.result);
	END LOOP;
	FOR fn IN
		SELECT f.name, t
		  FROM unnest('{round,trunc,sum,max,date_trunc,now}'::text[]) AS f (name), unnest(types) AS t
		 WHERE NOT EXISTS (SELECT FROM pg_proc
							WHERE proname = f.name AND proargtypes[0] = t AND pronargs = 1)
	LOOP
		EXECUTE format('CREATE FUNCTION "Strange schema".%I(%s) RETURNS %2$s LANGUAGE plpgsql AS ''BEGIN RAISE ''''trap''''; END''',
					   fn.name, fn.t);
	END LOOP;
END;
$$;
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

-- Nothing in it leads to any of that: all that members and their parts depend
-- on is the server's own, or a member itself.
WITH RECURSIVE parts AS (
	SELECT classid, objid, identity FROM members
	UNION
	SELECT d.classid, d.objid, p.identity
	  FROM pg_depend AS d
	  JOIN parts AS p ON d.refclassid = p.classid AND d.refobjid = p.objid
	 WHERE d.deptype IN ('a', 'i')
	   AND d.classid IN ('pg_rewrite'::regclass, 'pg_constraint'::regclass, 'pg_attrdef'::regclass,
						 'pg_class'::regclass, 'pg_type'::regclass, 'pg_trigger'::regclass)
)
SELECT p.identity, pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) AS depends_on
  FROM parts AS p
  JOIN pg_depend AS d USING (classid, objid)
 WHERE d.refclassid NOT IN ('pg_extension'::regclass, 'pg_namespace'::regclass)
   AND (d.refclassid, d.refobjid) NOT IN (SELECT classid, objid FROM parts)
   AND d.refobjid >= 16384
 ORDER BY 1, 2;
-- Parts were looked at, too: the rules of views, for example.
SELECT count(*) >= 5 AS rules
  FROM pg_rewrite JOIN members ON classid = 'pg_class'::regclass AND objid = ev_class;

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
 WHERE identity !~ '^("Strange schema"\.datamart_users_|datamart_users$)'
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
-- Nor is anything looked up there when it runs, by whatever search_path.
SET search_path = "Strange schema", public, pg_catalog;
SET datamart_users.max_workers = 1;
SELECT item, status FROM datamart_users_check() WHERE status OPERATOR(pg_catalog.<>) 'ok';
SELECT pg_catalog.left(datamart_users_report(), 18);
SELECT pg_catalog.count(*) FROM datamart_users_metrics;
SELECT pg_catalog.count(*) FROM datamart_users_cycle_priority_rates;
SELECT pg_catalog.count(*) FROM datamart_users_backlog;
RESET search_path;

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
DROP SCHEMA "Strange schema" CASCADE;
SELECT count(*) FROM members;
SELECT oid::regclass FROM pg_class WHERE relname LIKE 'datamart\_users%' ORDER BY 1;
SELECT oid::regprocedure FROM pg_proc WHERE proname LIKE 'datamart\_users%' ORDER BY 1;
SELECT oid::regtype FROM pg_type WHERE typname LIKE '%datamart\_users%' ORDER BY 1;

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
SELECT item, status FROM "dm; DROP SCHEMA dwh".datamart_users_check() WHERE item IN ('procedure', 'last cycle', 'history');
SELECT left("dm; DROP SCHEMA dwh".datamart_users_report(), 18);
SELECT detail FROM "dm; DROP SCHEMA dwh".datamart_users_check('pg_monitor') WHERE item = 'privileges';

-- It needs no other language than SQL.
SELECT current_database() AS home \gset
CREATE DATABASE regress_dmu_setup TEMPLATE template0;
\c regress_dmu_setup
SET client_min_messages = warning;
DROP EXTENSION plpgsql;
CREATE EXTENSION datamart_users;
CREATE SCHEMA dwh;
CREATE TABLE dwh.facts (action_dimension_id_user integer, action_at date);
CREATE TABLE dwh.dimension_users (dimension_user_id integer, modified boolean);
CREATE PROCEDURE dwh.update_datamart_user(integer) LANGUAGE sql AS '';
INSERT INTO dwh.dimension_users VALUES (1, true);
SELECT status, found, processed FROM datamart_users_run_cycle(max_workers => 1);
SELECT count(*) FROM datamart_users_check() WHERE status = 'error';
SELECT left(datamart_users_report(), 18);
\c :home
SET client_min_messages = warning;
DROP DATABASE regress_dmu_setup;

DROP SCHEMA dwh CASCADE;
DROP VIEW members;
DROP OWNED BY regress_dm_creator;
DROP ROLE regress_dm_creator;
DROP EXTENSION datamart_users;
DROP SCHEMA "dm; DROP SCHEMA dwh";
