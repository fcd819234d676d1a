--
-- stored.sql
--		Guards that the doctor sees settings that are stored for later sessions
--		and will not be taken there: wrong names, wrong values, for whomever.
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
SELECT current_database() AS db \gset
\set me 'format(''%I'', current_user)'
CREATE ROLE "regress_dmu Etl";
CREATE FUNCTION dwh.f() RETURNS integer LANGUAGE sql AS 'SELECT 1';

-- What the doctor says of settings, without names that are of this machine.
CREATE FUNCTION dwh.settings() RETURNS TABLE (status text, detail text, hint text) LANGUAGE sql AS $$
	SELECT status, replace(detail, quote_ident(current_database()), 'DB'), replace(hint, quote_ident(current_database()), 'DB')
	  FROM datamart_users_check() WHERE item = 'settings'
$$;
\pset format unaligned
\pset tuples_only on
SELECT * FROM dwh.settings();

-- Where the library is loaded, the server itself refuses them.
\set VERBOSITY sqlstate
ALTER ROLE "regress_dmu Etl" SET datamart_users.max_users_per_cycle = 'abc';
ALTER ROLE "regress_dmu Etl" SET datamart_users.max_wrokers = 4;
\set VERBOSITY default
-- Where it is not, it takes everything.
\c -
ALTER ROLE "regress_dmu Etl" IN DATABASE :"db" SET datamart_users.max_users_per_cycle = 'abc';
SELECT * FROM dwh.settings();
-- By hint, as a person pastes it.
SELECT hint FROM datamart_users_check() WHERE item = 'settings' \gset
:hint
SELECT * FROM dwh.settings();

-- Each place, and each kind of fault.
\c -
ALTER ROLE "regress_dmu Etl" SET datamart_users.max_wrokers = 4;
ALTER ROLE "regress_dmu Etl" SET "datamart_users.Max_Workers" = '-1';
ALTER DATABASE :"db" SET datamart_users.recency_days = '7, 30';
ALTER ROLE "regress_dmu Etl" SET datamart_users.nothing_like_it = 'x; DROP TABLE y';
ALTER FUNCTION dwh.f() SET datamart_users.users_table = '1 2 3';
ALTER FUNCTION dwh.f() SET datamart_users.retry_delay = '1 fortnight';
-- In which order the server warns of them is nobody's matter.
SET client_min_messages = error;
SELECT status, unnest(string_to_array(detail, '; ')) AS detail, unnest(string_to_array(hint, E'\n')) AS hint FROM dwh.settings() ORDER BY 2;
RESET client_min_messages;
SELECT hint FROM datamart_users_check() WHERE item = 'settings' \gset
\c -
:hint
\c -
SELECT * FROM dwh.settings();

-- Within worker_settings.
\c -
ALTER ROLE "regress_dmu Etl" IN DATABASE template1 SET datamart_users.history_retention = '1 fortnight';
ALTER ROLE "regress_dmu Etl" SET datamart_users.worker_settings = 'jit = off, work_memory = 1GB';
SELECT detail FROM dwh.settings();
ALTER ROLE "regress_dmu Etl" SET datamart_users.worker_settings = 'jit = off, work_mem = much';
SELECT detail FROM dwh.settings();
ALTER ROLE "regress_dmu Etl" RESET datamart_users.worker_settings;

-- What is good, what is of others, and of another database is no fault.
ALTER ROLE "regress_dmu Etl" SET datamart_users.worker_settings = 'jit = off, some_library.setting = much';
ALTER ROLE "regress_dmu Etl" SET datamart_users.max_users_per_cycle = 100;
ALTER ROLE "regress_dmu Etl" SET datamart_users.retry_delay = '2min';
ALTER ROLE "regress_dmu Etl" SET other_library.max_wrokers = 4;
SELECT * FROM dwh.settings();

-- Whoever asks sees them.
\c -
ALTER ROLE "regress_dmu Etl" SET datamart_users.max_wrokers = 4;
GRANT USAGE ON SCHEMA dwh TO "regress_dmu Etl";
GRANT EXECUTE ON FUNCTION datamart_users_check TO "regress_dmu Etl";
SET ROLE "regress_dmu Etl";
SELECT * FROM dwh.settings();
RESET ROLE;
ALTER ROLE "regress_dmu Etl" RESET ALL;
ALTER ROLE "regress_dmu Etl" IN DATABASE template1 RESET ALL;

-- A hint that helps this session has the lasting form, too.
SET datamart_users.retry_delay = 0;
SELECT replace(hint, :me, 'ME') FROM dwh.settings();

SET client_min_messages = warning;
DROP SCHEMA dwh CASCADE;
DROP EXTENSION datamart_users;
DROP ROLE "regress_dmu Etl";
