# Whose rights a cycle has: its caller's, never more, and there is no way back
# up from inside a refresh.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $run = 'SELECT status, found, processed, failed FROM datamart_users_run_cycle(NULL, 2)';
my $node = new_node('rights');
my ($stdout, $stderr);

add_warehouse($node, 'w', 6);
# The superuser is called like the OS user, who need not be postgres.
$node->safe_psql('w', <<'SQL');
DO $do$
BEGIN
	CREATE ROLE postgres SUPERUSER;
EXCEPTION WHEN duplicate_object THEN
END $do$;
SQL
$node->safe_psql('w', <<'SQL');
CREATE ROLE keeper NOLOGIN;
CREATE ROLE etl LOGIN;
CREATE ROLE alice LOGIN NOINHERIT IN ROLE keeper;
CREATE ROLE bob LOGIN;
CREATE ROLE mallory LOGIN;
CREATE ROLE nobody LOGIN;
CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
GRANT USAGE ON SCHEMA dwh TO keeper, etl, mallory;
GRANT SELECT ON ALL TABLES IN SCHEMA dwh TO keeper, etl;
GRANT UPDATE (modified) ON dwh.dimension_users TO keeper, etl;
GRANT INSERT, UPDATE ON dwh.datamartusers TO keeper, etl;
REVOKE EXECUTE ON PROCEDURE dwh.update_datamart_user FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE dwh.update_datamart_user TO keeper, etl;
GRANT EXECUTE ON FUNCTION datamart_users_run_cycle, datamart_users_start_cycle, datamart_users_wait_cycle,
	datamart_users_cancel_cycle, datamart_users_queue, datamart_users_priority_query TO keeper, etl;
SQL

sub refreshed_by
{
	return $node->safe_psql('w',
		q(SELECT string_agg(DISTINCT refreshed_by::text, ',') || ' ' || count(*) FROM dwh.datamartusers));
}

# A cycle of all six that refreshes as "role".
sub check_cycle
{
	my ($what, $role, $user, @sql) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	reset_warehouse($node, 'w', 6);
	(undef, $stdout, $stderr) = run_psql($node, 'w', \@sql, user => $user);
	is($stdout, 'completed|6|6|0', "$what: the cycle runs")
	  or diag($stderr);
	is(refreshed_by(), "$role 6", "$what: as whom the procedure runs");
	is(last_cycle($node, 'w', 'role_name'), $role, "$what: whom the history names");
	check_sane($node, 'w', $what);
	return;
}

sub failed_with
{
	return $node->safe_psql('w',
		q(SELECT string_agg(dimension_user_id || ':' || sqlstate, ' ' ORDER BY dimension_user_id) FROM datamart_users_failures));
}

#
# Who the caller is
#
check_cycle('a role of its own', 'etl', 'etl', $run);
check_cycle('SET ROLE to a NOLOGIN role', 'keeper', 'alice', 'SET ROLE keeper', $run);
check_cycle('a superuser after SET ROLE', 'keeper', undef, 'SET ROLE keeper', $run);
check_cycle('SET SESSION AUTHORIZATION', 'etl', undef, 'SET SESSION AUTHORIZATION etl', $run);
check_cycle('SET SESSION AUTHORIZATION and SET ROLE', 'keeper', undef,
	'SET SESSION AUTHORIZATION alice', 'SET ROLE keeper', $run);

$node->safe_psql('w', <<'SQL');
CREATE FUNCTION refresh_all(OUT status text, OUT found integer, OUT processed integer, OUT failed integer)
LANGUAGE sql SECURITY DEFINER
AS 'SELECT status, found, processed, failed FROM public.datamart_users_run_cycle(NULL, 2)';
ALTER FUNCTION refresh_all OWNER TO keeper;
SQL
check_cycle('SECURITY DEFINER', 'keeper', 'bob', 'SELECT * FROM refresh_all()');
is($node->safe_psql('w', q(SELECT has_schema_privilege('bob', 'dwh', 'USAGE'))), 'f',
	'SECURITY DEFINER: its caller may do nothing himself');

#
# Who is no caller
#
for my $call (
	'datamart_users_run_cycle()', 'datamart_users_start_cycle()', 'datamart_users_wait_cycle(1)',
	'datamart_users_cancel_cycle()', 'datamart_users_queue()', 'datamart_users_priority_query()',
	'datamart_users_retry()', 'datamart_users_try()')
{
	(undef, undef, $stderr) = run_psql($node, 'w', "SELECT $call", user => 'nobody');
	is(sqlstate($stderr), '42501', "PUBLIC may not call $call");
}
is( $node->safe_psql('w', <<'SQL'), '', 'nothing else is granted to PUBLIC');
SELECT p.oid::regprocedure::text FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'datamart_users'
WHERE d.deptype = 'e' AND has_function_privilege('nobody', p.oid, 'EXECUTE')
UNION ALL
SELECT c.oid::regclass::text FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'datamart_users'
WHERE d.deptype = 'e' AND c.relkind IN ('r', 'v') AND has_table_privilege('nobody', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
SQL
for my $table ('datamart_users_cycles', 'datamart_users_cycle_priorities', 'datamart_users_failures', 'datamart_users_suspects')
{
	for my $sql ("INSERT INTO $table DEFAULT VALUES", "DELETE FROM $table", "TRUNCATE $table", "UPDATE $table SET cycle_id = DEFAULT")
	{
		(undef, undef, $stderr) = run_psql($node, 'w', $sql, user => 'etl');
		is(sqlstate($stderr), '42501', "who runs cycles may not $sql");
	}
}
is((run_psql($node, 'w', 'SELECT count(*) > 0 FROM datamart_users_cycles', user => 'monitor'))[1], 't', 'pg_monitor reads the history');

for (
	[ 'REVOKE EXECUTE ON PROCEDURE dwh.update_datamart_user FROM etl', 'GRANT EXECUTE ON PROCEDURE dwh.update_datamart_user TO etl' ],
	[ 'REVOKE UPDATE (modified) ON dwh.dimension_users FROM etl', 'GRANT UPDATE (modified) ON dwh.dimension_users TO etl' ],
	[ 'REVOKE SELECT ON dwh.facts FROM etl', 'GRANT SELECT ON dwh.facts TO etl' ],
	[ 'REVOKE USAGE ON SCHEMA dwh FROM etl', 'GRANT USAGE ON SCHEMA dwh TO etl' ])
{
	my ($do, $undo) = @$_;
	my $cycles = $node->safe_psql('w', 'SELECT count(*) FROM datamart_users_cycles');

	$node->safe_psql('w', $do);
	(undef, undef, $stderr) = run_psql($node, 'w', $run, user => 'etl');
	is(sqlstate($stderr), '42501', "after $do");
	like($stderr, qr/HINT:  Run GRANT .* TO etl;/, 'with the way out');
	is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_cycles'), $cycles, 'before anything has happened');
	$node->safe_psql('w', $undo);
}

#
# Row-level security
#
reset_warehouse($node, 'w', 6);
$node->safe_psql('w', <<'SQL');
INSERT INTO dwh.facts SELECT i, now() - interval '1 year' FROM generate_series(1, 6) i;
ALTER TABLE dwh.dimension_users ENABLE ROW LEVEL SECURITY;
CREATE POLICY even ON dwh.dimension_users TO etl USING (dimension_user_id % 2 = 0);
ALTER TABLE dwh.facts ENABLE ROW LEVEL SECURITY;
CREATE POLICY recent ON dwh.facts TO etl USING (action_at > now() - interval '100 days');
SQL
(undef, $stdout, $stderr) = run_psql($node, 'w', $run, user => 'etl');
is($stdout, 'completed|3|3|0', 'row-level security on the users: those that he sees');
is($node->safe_psql('w', q(SELECT string_agg(dimension_user_id::text, ',' ORDER BY dimension_user_id) FROM dwh.dimension_users WHERE NOT modified)), '2,4,6', 'and no others');
is($node->safe_psql('w', q(SELECT string_agg(DISTINCT actions::text, ',') FROM dwh.datamartusers)), '1', 'row-level security on the facts: those that he sees');
is((run_psql($node, 'w', [ 'UPDATE dwh.dimension_users SET modified = TRUE', 'SELECT backlog FROM datamart_users_run_cycle()' ], user => 'etl'))[1], '3', 'the backlog does not tell of others, either');

# A flag that he sees and must not clear.
reset_warehouse($node, 'w', 6);
$node->safe_psql('w', <<'SQL');
DROP POLICY even ON dwh.dimension_users;
CREATE POLICY see ON dwh.dimension_users FOR SELECT TO etl USING (TRUE);
CREATE POLICY change ON dwh.dimension_users FOR UPDATE TO etl USING (dimension_user_id <> 4);
SQL
is((run_psql($node, 'w', $run, user => 'etl'))[1], 'completed|6|5|1', 'a flag that he may not clear');
is(failed_with(), '4:55000', 'is a failure of that datamart user');
is($node->safe_psql('w', 'SELECT count(*) FROM dwh.datamartusers WHERE dimension_user_id = 4'), 0, 'and its refresh is rolled back');
$node->safe_psql('w', <<'SQL');
ALTER TABLE dwh.dimension_users DISABLE ROW LEVEL SECURITY;
ALTER TABLE dwh.facts DISABLE ROW LEVEL SECURITY;
SQL

#
# Settings
#
$node->safe_psql('w', <<'SQL');
CREATE TABLE dwh.settings (worker integer, name text, value text);
GRANT INSERT ON dwh.settings TO etl;
ALTER ROLE etl SET work_mem = '7MB';
ALTER ROLE etl IN DATABASE w SET lock_timeout = '77s';
ALTER DATABASE w SET temp_buffers = '9MB';
ALTER ROLE mallory SET work_mem = '3MB';
SQL
reset_warehouse($node, 'w', 6, map {
	$_ => q(INSERT INTO dwh.settings SELECT pg_backend_pid(), name, setting FROM pg_settings
			WHERE name IN ('work_mem', 'lock_timeout', 'temp_buffers', 'jit', 'plan_cache_mode', 'DateStyle', 'search_path', 'transaction_isolation')
			UNION ALL SELECT pg_backend_pid(), 'my.own', current_setting('my.own'))
} 1 .. 6);
is((run_psql($node, 'w', [ q(SET my.own = 'mine'), q(SET DateStyle = 'SQL, DMY'), q(SET search_path = dwh, public),
		q(SET jit = on), q(SET plan_cache_mode = force_custom_plan), q(SET default_transaction_isolation = 'read uncommitted'), $run ], user => 'etl'))[1],
	'completed|6|6|0', 'a cycle with settings');
is( $node->safe_psql('w', q(SELECT DISTINCT name || '=' || value FROM dwh.settings ORDER BY 1)), join("\n",
		'DateStyle=SQL, DMY', 'jit=off', 'lock_timeout=77000', 'my.own=mine', 'plan_cache_mode=force_generic_plan',
		'search_path=dwh, public', 'temp_buffers=1152', 'transaction_isolation=repeatable read', 'work_mem=7168'),
	'those of role, database and session reach every worker, worker_settings go over them');

# Nobody gets a setting by way of a cycle that he could not set himself.
(undef, undef, $stderr) = run_psql($node, 'w', [ 'LOAD \'datamart_users\'', q(SET datamart_users.worker_settings = 'session_replication_role = replica'), $run ], user => 'etl');
isnt(sqlstate($stderr), '', 'worker_settings with a setting for superusers');
for my $name ('role', 'session_authorization')
{
	(undef, undef, $stderr) = run_psql($node, 'w', [ "SET datamart_users.worker_settings = '$name = postgres'", $run ], user => 'etl');
	isnt(sqlstate($stderr), '', "worker_settings with $name");
}

#
# No way back up: a superuser has become keeper or etl, and the procedure is
# one that would like to know more.
#
my @climbs = (
	'RESET ROLE', 'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION',
	"SELECT set_config('role', 'postgres', false)", 'SET LOCAL ROLE NONE');
for (
	[ 'SET ROLE keeper', 'keeper' ],
	[ 'SET SESSION AUTHORIZATION etl', 'etl' ],
	[ 'SET ROLE postgres', 'postgres' ])
{
	my ($become, $role) = @$_;
	my $id = 0;

	reset_warehouse($node, 'w', 8, map { ++$id => $_ } @climbs, 'RESET ALL');
	is((run_psql($node, 'w', [ $become, $run ]))[1], 'completed|8|2|6', "$become: no refresh may change its role");
	is(failed_with(), '1:42501 2:42501 3:42501 4:42501 5:42501 6:42501', 'each is refused');
	is(refreshed_by(), "$role 2", 'and those after it are who they were');
}

#
# Hostile objects in the caller's search_path.  The procedure protects itself,
# everything else is up to the extension.
#
$node->safe_psql('w', <<'SQL');
ALTER PROCEDURE dwh.update_datamart_user SET search_path = pg_catalog, pg_temp;
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE TABLE evil.touched (what text, who name DEFAULT current_user);
GRANT INSERT ON evil.touched TO PUBLIC;
DO $do$
DECLARE
	t text[] := ARRAY['int2', 'int4', 'int8', 'text', 'date', 'timestamp', 'timestamptz', 'interval', 'bool', 'name', 'oid'];
	a text; b text; o text;
BEGIN
	FOREACH a IN ARRAY t LOOP
		FOREACH b IN ARRAY t LOOP
			EXECUTE format($f$CREATE FUNCTION evil.compare(pg_catalog.%1$s, pg_catalog.%2$s) RETURNS pg_catalog.bool LANGUAGE plpgsql AS
				'BEGIN INSERT INTO evil.touched VALUES (''operator %1$s %2$s''); RETURN FALSE; END'$f$, a, b);
			FOREACH o IN ARRAY ARRAY['=', '<>', '<', '<=', '>', '>='] LOOP
				EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = pg_catalog.%s, RIGHTARG = pg_catalog.%s, FUNCTION = evil.compare)', o, a, b);
			END LOOP;
		END LOOP;
		EXECUTE format($f$CREATE FUNCTION evil.step_%1$s(pg_catalog.%1$s, pg_catalog.%1$s) RETURNS pg_catalog.%1$s LANGUAGE plpgsql AS
			'BEGIN INSERT INTO evil.touched VALUES (''aggregate''); RETURN NULL; END'$f$, a);
		EXECUTE format('CREATE AGGREGATE evil.max(pg_catalog.%1$s) (SFUNC = evil.step_%1$s, STYPE = pg_catalog.%1$s)', a);
		EXECUTE format('CREATE AGGREGATE evil.min(pg_catalog.%1$s) (SFUNC = evil.step_%1$s, STYPE = pg_catalog.%1$s)', a);
		EXECUTE format('CREATE DOMAIN evil.%1$s AS pg_catalog.%1$s CHECK (FALSE)', a);
	END LOOP;
	FOREACH o IN ARRAY ARRAY['+', '-', '*'] LOOP
		EXECUTE format($f$CREATE OPERATOR evil.%s (LEFTARG = pg_catalog.date, RIGHTARG = pg_catalog.int4, FUNCTION = evil.compare)$f$, o);
	END LOOP;
END;
$do$;
CREATE FUNCTION evil.step(pg_catalog.int8) RETURNS pg_catalog.int8 LANGUAGE plpgsql AS
	'BEGIN INSERT INTO evil.touched VALUES (''count''); RETURN -1; END';
CREATE FUNCTION evil.step(pg_catalog.int8, anyelement) RETURNS pg_catalog.int8 LANGUAGE plpgsql AS
	'BEGIN INSERT INTO evil.touched VALUES (''count''); RETURN -1; END';
CREATE AGGREGATE evil.count(*) (SFUNC = evil.step, STYPE = pg_catalog.int8);
CREATE AGGREGATE evil.count(anyelement) (SFUNC = evil.step, STYPE = pg_catalog.int8);
CREATE FUNCTION evil.now() RETURNS pg_catalog.timestamptz LANGUAGE plpgsql AS
	'BEGIN INSERT INTO evil.touched VALUES (''now''); RETURN NULL; END';
CREATE FUNCTION evil.clock_timestamp() RETURNS pg_catalog.timestamptz LANGUAGE plpgsql AS
	'BEGIN INSERT INTO evil.touched VALUES (''now''); RETURN NULL; END';
CREATE FUNCTION evil.make_interval(secs pg_catalog.float8) RETURNS pg_catalog.interval LANGUAGE plpgsql AS
	'BEGIN INSERT INTO evil.touched VALUES (''make_interval''); RETURN NULL; END';
CREATE TABLE evil.datamart_users_cycles (LIKE public.datamart_users_cycles);
CREATE TABLE evil.datamart_users_failures (LIKE public.datamart_users_failures);
CREATE TABLE evil.datamart_users_suspects (LIKE public.datamart_users_suspects);
CREATE TABLE evil.pg_stat_activity (backend_type pg_catalog.text, backend_start pg_catalog.timestamptz);
CREATE FUNCTION evil.datamart_users_run_cycle() RETURNS pg_catalog.text LANGUAGE sql AS 'SELECT ''evil''';
SQL
for my $user (undef, 'etl')
{
	my $who = $user // 'a superuser';

	reset_warehouse($node, 'w', 6, 3 => q(DO 'BEGIN RAISE division_by_zero; END'));
	$node->safe_psql('w', q(INSERT INTO datamart_users_failures SELECT 5, 1, now(), now(), now(), '22012', 'earlier', NULL, 1, 'dwh.dimension_users'::regclass, 'dwh.dimension_users'));
	my $queue = $node->safe_psql('w', 'SELECT * FROM public.datamart_users_queue()');
	(undef, $stdout, $stderr) = run_psql($node, 'w', [
		'SET search_path = evil, public, pg_catalog',
		'SELECT * FROM public.datamart_users_queue()',
		'SELECT status, found, processed, failed FROM public.datamart_users_run_cycle(NULL, 2)' ], user => $user);
	is($stdout, "$queue\ncompleted|6|5|1", "hostile search_path of $who: queue and cycle are what they are") or diag($stderr);
	is(failed_with(), '3:22012', 'the failure is in the right table, and the other one is cleared');
	is($node->safe_psql('w', 'SELECT DISTINCT what, who FROM evil.touched'), '', 'nothing of it has run');
	is($node->safe_psql('w', 'SELECT (SELECT count(*) FROM evil.datamart_users_cycles) + (SELECT count(*) FROM evil.datamart_users_failures)'), 0, 'and nothing is in its tables');
	check_sane($node, 'w', "hostile search_path of $who");
}

# It is a trap that does shut.
(undef, $stdout) = run_psql($node, 'w', [ 'SET search_path = evil, public, pg_catalog', 'SELECT count(*) FROM public.datamart_users_cycles WHERE cycle_id = 1' ]);
isnt($node->safe_psql('w', 'SELECT count(*) FROM evil.touched'), 0, 'plain SQL would have run it');

# A temporary table of the extension's names is no better.
reset_warehouse($node, 'w', 6);
(undef, $stdout, $stderr) = run_psql($node, 'w', [
	'CREATE TEMP TABLE datamart_users_cycles (cycle_id bigint)',
	'CREATE TEMP TABLE datamart_users_failures (dimension_user_id bigint)',
	$run, 'SELECT count(*) FROM datamart_users_cycles' ], user => 'etl');
is($stdout, "completed|6|6|0\n0", 'temporary tables of the same names');

#
# Hostile names in settings
#
$node->safe_psql('w', 'CREATE TABLE y (); CREATE SCHEMA "we""ird; DROP TABLE y"');
for (
	[ 'users_table', '"x; DROP TABLE y"', '42P01' ],
	[ 'users_table', 'x; DROP TABLE y', '22023' ],
	[ 'users_table', 'dwh.dimension_users WHERE false --', '22023' ],
	[ 'facts_table', '"dwh.facts"', '42P01' ],
	[ 'facts_table', '(SELECT 1)', '22023' ],
	[ 'procedure', '"x(integer); DROP TABLE y"', '42883' ],
	[ 'procedure', 'dwh.update_datamart_user(integer); DROP TABLE y', '22023' ],
	[ 'procedure', 'dwh.update_datamart_user(1); DROP TABLE y --(integer)', '22023' ])
{
	my ($setting, $value, $sqlstate) = @$_;
	(undef, undef, $stderr) = run_psql($node, 'w', [ q(LOAD 'datamart_users'), "SET datamart_users.$setting = \$v\$$value\$v\$", 'SELECT datamart_users_run_cycle()' ]);
	is(sqlstate($stderr), $sqlstate, "$setting = $value");
}
$node->safe_psql('w', <<'SQL');
CREATE TABLE "we""ird; DROP TABLE y"."us""ers; DROP TABLE y" AS TABLE dwh.dimension_users;
CREATE VIEW "we""ird; DROP TABLE y"."fa.cts' DROP TABLE y" AS TABLE dwh.facts;
UPDATE "we""ird; DROP TABLE y"."us""ers; DROP TABLE y" SET modified = TRUE;
CREATE TABLE seen (id integer);
CREATE PROCEDURE "we""ird; DROP TABLE y"."pr%soc($1); DROP TABLE y"(integer) LANGUAGE sql AS 'INSERT INTO public.seen VALUES ($1)';
SQL
(undef, $stdout, $stderr) = run_psql($node, 'w', [
	q(SET datamart_users.users_table = '"we""ird; DROP TABLE y"."us""ers; DROP TABLE y"'),
	q(SET datamart_users.facts_table = '"we""ird; DROP TABLE y"."fa.cts'' DROP TABLE y"'),
	q(SET datamart_users.procedure = '"we""ird; DROP TABLE y"."pr%soc($1); DROP TABLE y"(integer)'),
	$run ]);
is($stdout, 'completed|6|6|0', 'objects that are really called so') or diag($stderr);
is($node->safe_psql('w', 'SELECT count(*) FROM seen'), 6, 'are used');
is($node->safe_psql('w', q(SELECT to_regclass('public.y'))), 'y', 'and nothing else happens');

#
# Triggers of somebody with fewer rights on tables that a refresh writes
#
$node->safe_psql('w', <<'SQL');
CREATE SCHEMA trap AUTHORIZATION mallory;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
SQL
run_psql($node, 'w', <<'SQL', user => 'mallory');
CREATE TABLE trap.log (id integer);
CREATE TABLE trap.deferred (id integer);
CREATE TABLE trap.result (what text, who name DEFAULT current_user, sqlstate text);
GRANT INSERT ON trap.log, trap.deferred, trap.result TO PUBLIC;
CREATE FUNCTION trap.spring() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	attempt text;
BEGIN
	FOREACH attempt IN ARRAY ARRAY[
		'RESET ROLE', 'RESET SESSION AUTHORIZATION', 'SET ROLE postgres', 'ALTER ROLE mallory SUPERUSER',
		'DELETE FROM public.datamart_users_cycles', 'INSERT INTO public.datamart_users_suspects VALUES (1, 1, 1, 1, 1)'] LOOP
		BEGIN
			EXECUTE attempt;
			INSERT INTO trap.result VALUES (TG_TABLE_NAME || ' ' || attempt, current_user, NULL);
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO trap.result VALUES (TG_TABLE_NAME, current_user, SQLSTATE);
		END;
	END LOOP;
	RETURN NEW;
END;
$$;
CREATE TRIGGER spring BEFORE INSERT ON trap.log FOR EACH ROW EXECUTE FUNCTION trap.spring();
CREATE CONSTRAINT TRIGGER spring AFTER INSERT ON trap.deferred DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION trap.spring();
SQL
reset_warehouse($node, 'w', 6, map { $_ => "INSERT INTO trap.log VALUES ($_); INSERT INTO trap.deferred VALUES ($_)" } 1 .. 6);
# With a failure to clear, SQL of the extension's owner runs in between.
$node->safe_psql('w', q(INSERT INTO datamart_users_failures SELECT i, 1, now(), now(), now(), '22012', 'earlier', NULL, 1, 'dwh.dimension_users'::regclass, 'dwh.dimension_users' FROM generate_series(1, 6) i));
for (
	[ 'etl', [$run] ],
	[ undef, [ 'SET ROLE etl', $run ] ],
	[ undef, [ 'SET SESSION AUTHORIZATION etl', $run ] ])
{
	my ($user, $sql) = @$_;
	$node->safe_psql('w', 'TRUNCATE trap.result; UPDATE dwh.dimension_users SET modified = TRUE');
	is((run_psql($node, 'w', $sql, user => $user))[1], 'completed|6|6|0', 'a cycle through a trap');
	is($node->safe_psql('w', q(SELECT what, who, sqlstate, count(*) FROM trap.result GROUP BY 1, 2, 3 ORDER BY 1)),
		"deferred|etl|42501|36\nlog|etl|42501|36", 'the triggers run as the caller, and are refused all else');
}
is($node->safe_psql('w', q(SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory')), 'f', 'nobody was promoted');
check_sane($node, 'w', 'triggers');

$node->stop;
done_testing();
