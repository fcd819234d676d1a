\set echo_of_test :ECHO
\set ECHO none
--
-- begin.sql
--		What the regression tests start from: a session whose output is
--		stable, and a warehouse that is small enough to be read.
--
-- The extension must be there already.  A test includes this file by
--
--		\getenv srcdir PG_ABS_SRCDIR
--		\set begin :srcdir '/include/begin.sql'
--		\i :begin
--
-- because pg_regress feeds psql from standard input, where \ir has nothing to
-- be relative to; PG_ABS_SRCDIR is its --inputdir, wherever make was called.
--
-- dwh.refreshes says who was refreshed, by whom and in what order.
--

LOAD 'datamart_users';
SET datamart_users.progress_interval = 0;
SET client_min_messages = warning;

-- A time zone in which it is noon, so that no date changes during the test.
SELECT set_config('TimeZone',
				  format('<noon>%s', extract(hour FROM now() AT TIME ZONE 'UTC') - 12),
				  false)
\g /dev/null

CREATE SCHEMA dwh;

CREATE TABLE dwh.dimension_users (
	dimension_user_id integer PRIMARY KEY,
	label text,
	modified boolean
);

CREATE TABLE dwh.facts (
	action_dimension_id_user integer,
	action_at timestamptz
);

CREATE TABLE dwh.refreshes (
	refresh_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	dimension_user_id bigint,
	role_name name DEFAULT current_user
);

CREATE PROCEDURE dwh.update_datamart_user(p_dimension_user_id integer)
LANGUAGE plpgsql
AS $$
BEGIN
	INSERT INTO dwh.refreshes (dimension_user_id) VALUES (p_dimension_user_id);
END;
$$;

-- Rows of the extension's tables that a test makes up are of this datamart.
CREATE PROCEDURE dwh.made_up_rows_are_mine()
LANGUAGE plpgsql
AS $$
DECLARE
	written record;
BEGIN
	FOR written IN SELECT attrelid::regclass AS in_table, attname AS as_column,
						  CASE attname WHEN 'users_oid' THEN 'dwh.dimension_users'::regclass::oid::text
							   ELSE 'dwh.dimension_users' END AS value
					 FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
					WHERE attname IN ('users_oid', 'users_table') AND relkind = 'r' AND relname LIKE 'datamart\_users\_%'
	LOOP
		EXECUTE format('ALTER TABLE %s ALTER %I SET DEFAULT %L',
					   written.in_table, written.as_column, written.value);
	END LOOP;
END;
$$;
CALL dwh.made_up_rows_are_mine();

\set ECHO :echo_of_test
