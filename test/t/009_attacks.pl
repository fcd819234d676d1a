# A role with few rights, the owner of a database and the owner of a schema try
# to get at the rights or the rows of others.  The loops go over whatever the
# extension has: its members, its settings, its tables.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('attacks');
my ($stdout, $stderr);

# What the extension consists of.
my $members = <<'SQL';
SET search_path = pg_catalog, pg_temp;
CREATE VIEW pg_temp.members AS
SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'datamart_users'
SQL

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE low LOGIN;
CREATE ROLE dbo LOGIN;
CREATE ROLE etl LOGIN;
CREATE ROLE keeper LOGIN;
CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
SQL

sub nobody_was_promoted
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('postgres', q(SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolsuper)),
		$node->safe_psql('postgres', 'SELECT current_user'), "$what: nobody was promoted");
	return;
}

# Only a superuser may LOAD it; others get it by calling one of its functions.
my $load = 'CALL public.load_library()';

sub add_load_library
{
	my ($database) = @_;

	$node->safe_psql($database, <<'SQL');
CREATE PROCEDURE public.load_library() LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN LOAD 'datamart_users'; END $$;
SQL
	return;
}

# The error that a statement of a role ends with, '' if it has none.
sub error_of
{
	my ($database, $user, @sql) = @_;

	(undef, $stdout, $stderr) = run_psql($node, $database, \@sql, defined $user ? (user => $user) : ());
	return sqlstate($stderr);
}

#
# Before CREATE EXTENSION: operators that would fit better than the server's
#
$node->safe_psql('postgres', 'CREATE DATABASE ops OWNER dbo');
run_psql($node, 'ops', <<'SQL', user => 'dbo');
CREATE TABLE public.touched (what text, who name DEFAULT current_user);
GRANT INSERT ON public.touched TO PUBLIC;
DO $do$
DECLARE
	t text[] := ARRAY['int2', 'int4', 'int8', 'numeric', 'float8', 'text', 'name', 'oid', 'bool', 'date', 'timestamptz', 'interval',
					  'text[]', 'name[]', 'int4[]', 'int8[]', 'interval[]', 'regclass', '"char"'];
	a text; b text; o text;
BEGIN
	FOREACH a IN ARRAY t LOOP
		FOREACH b IN ARRAY t LOOP
			EXECUTE format($f$CREATE FUNCTION public.spring(pg_catalog.%1$s, pg_catalog.%2$s) RETURNS pg_catalog.bool LANGUAGE plpgsql AS
				'BEGIN INSERT INTO public.touched VALUES (''operator %1$s %2$s''); EXECUTE ''ALTER ROLE dbo SUPERUSER''; RETURN FALSE; END'$f$, a, b);
			FOR o IN SELECT DISTINCT oprname FROM pg_operator
					  WHERE oprname IN ('=', '<>', '<', '<=', '>', '>=', '+', '-', '*', '/', '%', '||', '~', '!~', '~~', '!~~', '@>', '&&') LOOP
				EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = pg_catalog.%s, RIGHTARG = pg_catalog.%s, FUNCTION = public.spring)', o, a, b);
			END LOOP;
		END LOOP;
	END LOOP;
END;
$do$;
SQL
cmp_ok($node->safe_psql('ops', q(SELECT count(*) FROM pg_operator WHERE oprnamespace = 'public'::regnamespace)), '>', 6000,
	'the owner of the database can make operators');
add_warehouse($node, 'ops', 6);

# What it depends on and what is no member: all that is pinned is the server's.
sub dependencies
{
	my ($database) = @_;

	return $node->safe_psql($database, <<"SQL");
$members;
WITH dependents AS (
	SELECT classid, objid FROM pg_temp.members
	UNION SELECT 'pg_rewrite'::regclass, r.oid FROM pg_rewrite r JOIN pg_temp.members m ON m.objid = r.ev_class AND m.classid = 'pg_class'::regclass
	UNION SELECT 'pg_attrdef'::regclass, a.oid FROM pg_attrdef a JOIN pg_temp.members m ON m.objid = a.adrelid AND m.classid = 'pg_class'::regclass
	UNION SELECT 'pg_constraint'::regclass, c.oid FROM pg_constraint c JOIN pg_temp.members m ON m.objid = c.conrelid AND m.classid = 'pg_class'::regclass
	UNION SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index i JOIN pg_temp.members m ON m.objid = i.indrelid AND m.classid = 'pg_class'::regclass)
SELECT DISTINCT pg_describe_object(d.classid, d.objid, 0) || ' uses ' || pg_describe_object(d.refclassid, d.refobjid, 0)
FROM pg_depend d JOIN dependents USING (classid, objid)
WHERE d.refclassid IN ('pg_operator'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass, 'pg_cast'::regclass,
					   'pg_opclass'::regclass, 'pg_opfamily'::regclass, 'pg_collation'::regclass, 'pg_class'::regclass)
  AND d.deptype NOT IN ('i', 'a')
  AND (d.refclassid, d.refobjid) NOT IN (SELECT classid, objid FROM pg_temp.members)
  AND (d.refclassid, d.refobjid) NOT IN (SELECT 'pg_type'::regclass, t.oid FROM pg_type t JOIN pg_temp.members m
										 ON m.objid = t.typrelid AND m.classid = 'pg_class'::regclass)
  AND NOT (d.refclassid = 'pg_class'::regclass
		   AND ((SELECT relnamespace FROM pg_class WHERE oid = d.refobjid) = 'pg_catalog'::regnamespace
				OR d.refobjid IN (SELECT objid FROM dependents WHERE classid = 'pg_class'::regclass)))
SQL
}
is(dependencies('ops'), '', 'no member depends on anything outside pg_catalog and the extension');

# It is a net that does hold.
$node->safe_psql('ops', 'CREATE VIEW public.leak AS SELECT 1.5 * 2 AS x; ALTER EXTENSION datamart_users ADD VIEW public.leak');
like(dependencies('ops'), qr/uses operator public\.\*\(numeric,integer\)/, 'a member that did would be seen');
$node->safe_psql('ops', 'ALTER EXTENSION datamart_users DROP VIEW public.leak; DROP VIEW public.leak');

# Everything that a superuser may look at or call, with exact types.
sub use_everything
{
	my ($database) = @_;
	my $views = $node->safe_psql($database, <<"SQL");
$members;
SELECT string_agg(format('SELECT count(v) FROM %s v', c.oid::regclass), ';' ORDER BY c.oid)
FROM pg_class c JOIN pg_temp.members m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass WHERE c.relkind IN ('r', 'v')
SQL

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	# One by one, so that an error does not keep the others from being tried.
	my $errors = join "\n", grep { $_ ne '' } map { error_of($database, undef, $_) eq '' ? '' : "$_: $stderr" }
	  q(UPDATE dwh.dimension_users SET modified = TRUE),
	  q(SELECT public.datamart_users_run_cycle(6, 2, interval '1 hour')),
	  (map { "SELECT $_" } 'count(*) FROM public.datamart_users_check(role_name => current_user)', 'length(public.datamart_users_report(cycle_id => NULL))',
		'count(*) FROM public.datamart_users_queue(6)', 'length(public.datamart_users_priority_query(6))', 'public.datamart_users_retry(1::bigint)'),
	  split /;/, $views;
	is($errors, '', 'a superuser uses all of it');
	return;
}
$node->safe_psql('ops', q(INSERT INTO dwh.behaviour VALUES (3, $$DO 'BEGIN RAISE division_by_zero; END'$$)));
(undef, $stdout, $stderr) = run_psql($node, 'ops', 'SELECT processed, failed FROM datamart_users_run_cycle(6, 2)');
is($stdout, '5|1', 'a cycle among such operators') or diag($stderr);
for my $call ('SELECT count(*) > 0 FROM datamart_users_check()', 'SELECT length(datamart_users_report()) > 0')
{
	is((run_psql($node, 'ops', $call))[1], 't', $call);
}
use_everything('ops');
is($node->safe_psql('ops', 'SELECT DISTINCT what, who FROM public.touched'), '', 'none of the operators has run');
nobody_was_promoted('operators');

#
# Before CREATE EXTENSION: objects that are there already
#
$node->safe_psql('postgres', 'CREATE DATABASE early OWNER dbo');
for my $create (
	[ 'TABLE public.datamart_users_cycles (cycle_id bigint)', 'TABLE public.datamart_users_cycles' ],
	[ 'VIEW public.datamart_users_anything AS SELECT 1 AS x', 'VIEW public.datamart_users_anything' ],
	[ 'SEQUENCE public.datamart_users_sequence', 'SEQUENCE public.datamart_users_sequence' ],
	[ 'MATERIALIZED VIEW public.datamart_users_progress AS SELECT 1 AS x', 'MATERIALIZED VIEW public.datamart_users_progress' ],
	[ 'TYPE public.datamart_users_enum AS ENUM (\'a\')', 'TYPE public.datamart_users_enum' ],
	[ 'DOMAIN public.datamart_users_domain AS text', 'DOMAIN public.datamart_users_domain' ],
	[ 'FUNCTION public.datamart_users_report_line(name, int, bool) RETURNS text LANGUAGE sql AS \'SELECT NULL::text\'', 'FUNCTION public.datamart_users_report_line' ],
	[ 'FUNCTION public.datamart_users_run_cycle(numeric) RETURNS text LANGUAGE sql AS \'SELECT NULL::text\'', 'FUNCTION public.datamart_users_run_cycle' ],
	[ 'FUNCTION public.datamart_users_refuse_existing() RETURNS void LANGUAGE sql AS \'\'', 'FUNCTION public.datamart_users_refuse_existing' ],
	[ 'PROCEDURE public.datamart_users_retry() LANGUAGE sql AS \'\'', 'PROCEDURE public.datamart_users_retry' ],
	[ 'AGGREGATE public.datamart_users_sum(int4) (SFUNC = pg_catalog.int4pl, STYPE = int4)', 'AGGREGATE public.datamart_users_sum(int4)' ])
{
	my ($what, $drop) = @$create;

	is(error_of('early', 'dbo', "CREATE $what"), '', "CREATE $drop") or diag($stderr);
	is(error_of('early', undef, 'CREATE EXTENSION datamart_users'), '42710', 'is refused');
	like($stderr, qr/HINT:  Find out who made it/, 'with a hint');
	# Nor may what runs before the look fall for a search_path.
	is(error_of('early', undef, 'SET search_path = public, pg_catalog', 'CREATE EXTENSION datamart_users'), '42710', 'whatever the search_path');
	is(error_of('early', 'dbo', "DROP $drop"), '', 'and can be dropped') or diag($stderr);
}
$node->safe_psql('early', <<'SQL');
CREATE SCHEMA elsewhere CREATE TABLE datamart_users_cycles (x int);
CREATE TABLE public.datamart_users (x int);
CREATE TABLE public.datamartxusersx (x int);
SQL
is(error_of('early', undef, 'CREATE EXTENSION datamart_users'), '', 'other names and other schemas are none of our business') or diag($stderr);
is($node->safe_psql('early', q(SELECT count(*) FROM pg_proc WHERE proname IN ('datamart_users_refuse_existing', 'datamart_users_revoke_all'))), 0,
	'the functions of the script are gone');
$node->safe_psql('early', 'DROP EXTENSION datamart_users; DROP EXTENSION plpgsql; CREATE TYPE datamart_users_t AS (x int)');
is(error_of('early', undef, 'CREATE EXTENSION datamart_users'), '42710', 'without PL/pgSQL, too');

#
# Before CREATE EXTENSION: default privileges
#
my $acls = <<"SQL";
$members;
SELECT m.kind, coalesce(a.grantee::regrole::text, 'PUBLIC'), a.privilege_type, a.is_grantable, m.name
FROM (SELECT 'relation' AS kind, c.oid::regclass::text AS name, c.relowner AS owner, coalesce(c.relacl, acldefault('r', c.relowner)) AS acl
	  FROM pg_class c JOIN pg_temp.members m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass
	  UNION ALL
	  SELECT 'function', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
	  FROM pg_proc p JOIN pg_temp.members m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass) m, aclexplode(m.acl) a
WHERE a.grantee <> m.owner ORDER BY 1, 2, 3, 4, 5
SQL
$node->safe_psql('postgres', 'CREATE DATABASE plain; CREATE DATABASE generous');
$node->safe_psql('plain', 'CREATE EXTENSION datamart_users');
$node->safe_psql('generous', <<'SQL');
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO low, pg_monitor WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO low, pg_monitor;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO low, pg_monitor;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT TRIGGER, INSERT ON TABLES TO low;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO PUBLIC;
CREATE EXTENSION datamart_users;
SQL
is($node->safe_psql('generous', $acls), $node->safe_psql('plain', $acls), 'default privileges give nothing away');
isnt($node->safe_psql('plain', $acls), '', 'while pg_monitor has what it should');
is($node->safe_psql('generous', <<'SQL'), "t|t", 'nor take the owner his own');
SELECT has_table_privilege('datamart_users_cycles', 'INSERT, UPDATE, DELETE'), has_function_privilege('datamart_users_retry(bigint)', 'EXECUTE')
SQL

#
# Afterwards: functions beside those of the extension, for inexact types
#
$node->safe_psql('postgres', 'CREATE DATABASE beside OWNER dbo');
add_warehouse($node, 'beside', 6);
$node->safe_psql('beside', q(INSERT INTO dwh.behaviour VALUES (3, $$DO 'BEGIN RAISE division_by_zero; END'$$)));
run_psql($node, 'beside', <<"SQL", user => 'dbo');
CREATE TABLE public.touched (what text, who name DEFAULT current_user);
GRANT INSERT ON public.touched TO PUBLIC;
DO \$do\$
DECLARE
	f record; t text; types text[]; n int := 0;
BEGIN
	FOR f IN SELECT p.proname, p.pronargs, p.proretset, p.prorettype, p.prokind = 'p' AS is_procedure,
					ARRAY(SELECT format_type(x, NULL) FROM unnest(p.proargtypes) x) AS args
			   FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
			   JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'datamart_users' WHERE p.pronargs > 0
	LOOP
		FOREACH t IN ARRAY ARRAY['smallint', 'integer', 'bigint', 'numeric', 'double precision', 'text', 'name', 'character varying', 'boolean', 'interval', 'regclass', 'oid']
		LOOP
			FOR i IN 0 .. f.pronargs LOOP
				types := CASE WHEN i = 0 THEN array_fill(t, ARRAY[f.pronargs]) ELSE f.args END;
				IF i > 0 THEN types[i] := t; END IF;
				BEGIN
					EXECUTE format('CREATE %s public.%I(%s) %s%s%s LANGUAGE plpgsql AS %L', CASE WHEN f.is_procedure THEN 'PROCEDURE' ELSE 'FUNCTION' END, f.proname, array_to_string(types, ', '),
								   CASE WHEN NOT f.is_procedure THEN 'RETURNS ' END, CASE WHEN f.proretset THEN 'SETOF ' END,
								   CASE WHEN f.is_procedure THEN '' WHEN f.prorettype = 'record'::regtype THEN 'text' ELSE format_type(f.prorettype, NULL) END,
								   format('BEGIN INSERT INTO public.touched VALUES (%L); EXECUTE ''ALTER ROLE dbo SUPERUSER''; RETURN %s; END', f.proname,
										  CASE WHEN f.proretset OR f.is_procedure THEN '' ELSE 'NULL' END));
					n := n + 1;
				EXCEPTION WHEN duplicate_function THEN NULL;
				END;
			END LOOP;
		END LOOP;
	END LOOP;
	IF n < 100 THEN RAISE 'made only % functions', n; END IF;
END;
\$do\$;
SQL
cmp_ok($node->safe_psql('beside', q(SELECT count(*) FROM pg_proc WHERE proowner = 'dbo'::regrole)), '>', 100, 'the owner of the schema can make functions');
run_psql($node, 'beside', q(SELECT public.datamart_users_run_cycle(6, 2, interval '1 hour')));
run_psql($node, 'beside', q(CALL public.datamart_users_run(6, 2, interval '1 hour')));
use_everything('beside');
$node->safe_psql('beside', 'GRANT USAGE ON SCHEMA dwh TO pg_monitor; GRANT SELECT ON ALL TABLES IN SCHEMA dwh TO pg_monitor');
for my $call ('count(*) FROM public.datamart_users_check(role_name => current_user)', 'public.datamart_users_report(cycle_id => NULL)')
{
	is(error_of('beside', 'watcher', "SELECT $call"), '', "pg_monitor: $call") or diag($stderr);
}
is($node->safe_psql('beside', 'SELECT DISTINCT what, who FROM public.touched'), '', 'none of them has run');
nobody_was_promoted('functions');

#
# Lending rights: every source of every setting
#
$node->safe_psql('postgres', 'CREATE DATABASE lent OWNER dbo');
add_warehouse($node, 'lent', 6);
add_load_library('lent');
run_psql($node, 'lent', <<'SQL', user => 'dbo');
CREATE SCHEMA trap;
GRANT USAGE, CREATE ON SCHEMA trap TO PUBLIC;
CREATE TABLE trap.touched (who name DEFAULT current_user);
GRANT INSERT ON trap.touched TO PUBLIC;
CREATE TABLE trap.users (dimension_user_id int PRIMARY KEY, modified bool);
INSERT INTO trap.users VALUES (1, true);
CREATE TABLE trap.facts (action_dimension_id_user int, action_at timestamptz);
GRANT ALL ON trap.users, trap.facts TO PUBLIC;
CREATE PROCEDURE trap.refresh(int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO trap.touched DEFAULT VALUES;
	EXECUTE 'ALTER ROLE dbo SUPERUSER';
	EXECUTE 'ALTER ROLE low SUPERUSER';
END $$;
SQL
# Everybody in trap may do everything there; low has a function of his own.
$node->safe_psql('lent', <<'SQL');
CREATE FUNCTION public.lend() RETURNS text LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp AS 'SELECT status FROM public.datamart_users_run_cycle()';
CREATE FUNCTION public.lend_loosely() RETURNS text LANGUAGE sql SECURITY DEFINER
	AS 'SELECT status FROM public.datamart_users_run_cycle()';
CREATE FUNCTION public.lend_well() RETURNS text LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET datamart_users.facts_table = 'dwh.facts' SET datamart_users.users_table = 'dwh.dimension_users'
	SET datamart_users.procedure = 'dwh.update_datamart_user' SET datamart_users.worker_settings = 'jit = off'
	SET datamart_users.facts_user_column = 'action_dimension_id_user' SET datamart_users.facts_time_column = 'action_at'
	SET datamart_users.users_key_column = 'dimension_user_id' SET datamart_users.users_flag_column = 'modified'
	SET datamart_users.users_since_column = ''
	SET datamart_users.user_timeout = 0 SET datamart_users.retry_delay = '1min' SET datamart_users.retry_delay_max = '1d'
	AS 'SELECT status FROM public.datamart_users_run_cycle()';
SQL
is(error_of('lent', 'low', 'SELECT public.lend()'), '', 'rights can be lent') or diag($stderr);
is($stdout, 'completed', 'to run a cycle');

# A value of each that would be good for an attacker.
my %hostile = (
	'datamart_users.facts_table' => 'trap.facts',
	'datamart_users.users_table' => 'trap.users',
	'datamart_users.procedure' => 'trap.refresh',
	'datamart_users.facts_user_column' => 'trap',
	'datamart_users.facts_time_column' => 'trap',
	'datamart_users.users_key_column' => 'trap',
	'datamart_users.users_flag_column' => 'trap',
	'datamart_users.users_since_column' => 'trap',
	'datamart_users.worker_settings' => 'search_path = trap',
	'datamart_users.user_timeout' => '1ms',
	'datamart_users.retry_delay' => '2000000000s',
	'datamart_users.retry_delay_max' => '2000000000s',
	'search_path' => 'trap');

# These decide how fast a cycle is, how far it goes, in what order and how loudly.
my %harmless = map { ("datamart_users.$_" => 1) } qw(
  max_users_per_cycle max_workers worker_idle_timeout worker_memory_limit custom_plan_actions catchup_threshold catchup_max_users cycle_time_limit recency_days
  activity_thresholds progress_interval log_every_users error_on_failure freshness_objective);

# Is not a USERSET one.
my @reserved = split /\n/, $node->safe_psql('lent', q(LOAD 'datamart_users'; SELECT name FROM pg_settings WHERE name LIKE 'datamart\_users.%' AND context = 'superuser' ORDER BY 1));
cmp_ok(scalar @reserved, '>=', 2, 'some settings are for superusers');
for my $name (split /\n/, $node->safe_psql('lent', q(LOAD 'datamart_users'; SELECT name FROM pg_settings WHERE name LIKE 'datamart\_users.%' AND context = 'user' ORDER BY 1)))
{
	ok(exists $hostile{$name} || exists $harmless{$name}, "$name is known here");
}

my @sources = (
	# what, who sets it, how, how to undo it, how low calls
	[ 'ALTER DATABASE', 'dbo', 'ALTER DATABASE lent SET %s = %s', 'ALTER DATABASE lent RESET %s' ],
	[ 'ALTER ROLE ALL IN DATABASE', 'dbo', 'ALTER ROLE ALL IN DATABASE lent SET %s = %s', 'ALTER ROLE ALL IN DATABASE lent RESET %s' ],
	[ 'ALTER ROLE', 'low', 'ALTER ROLE low SET %s = %s', 'ALTER ROLE low RESET %s' ],
	[ 'ALTER ROLE IN DATABASE', 'low', 'ALTER ROLE low IN DATABASE lent SET %s = %s', 'ALTER ROLE low IN DATABASE lent RESET %s' ],
	[ 'SET', undef, undef, undef, 'SET %s = %s' ],
	[ 'SET SESSION CHARACTERISTICS of a function', 'low', q(CREATE FUNCTION trap.through(text) RETURNS text LANGUAGE sql SET %s = %s AS 'SELECT public.lend()'),
		'DROP FUNCTION trap.through(text)', undef, q(SELECT trap.through('x')) ],
	[ 'set_config', undef, undef, undef, q(SELECT set_config('%s', %s, false)) ],
	[ 'connection options', undef, undef, undef, undef ],
	[ 'ALTER SYSTEM', 'low', 'ALTER SYSTEM SET %s = %s', 'ALTER SYSTEM RESET %s' ]);

for my $name (sort keys %hostile)
{
	my $value = "'$hostile{$name}'";
	my $call = $name eq 'search_path' ? 'SELECT public.lend_loosely()' : 'SELECT public.lend()';
	my $decides_only = $name =~ /user_timeout|retry/;

	for my $source (@sources)
	{
		my ($what, $setter, $do, $undo, $in_session, $instead) = @$source;
		my @session = ($load);
		local $ENV{PGOPTIONS} = '';

		# For these the administration of the database has a say.
		next if $decides_only && $what =~ /DATABASE$|SYSTEM/ && $what !~ /^ALTER ROLE IN/;
		next if $name eq 'search_path' && $what =~ /function/;

		$node->safe_psql('lent', "LOAD 'datamart_users'; GRANT ALTER SYSTEM ON PARAMETER $name TO low; GRANT EXECUTE ON FUNCTION pg_reload_conf TO low") if $what eq 'ALTER SYSTEM';
		if (defined $do)
		{
			is(error_of('lent', $setter, $load, sprintf($do, $name, $value)), '', "$setter sets $name by $what") or diag($stderr);
		}
		if ($what eq 'ALTER SYSTEM')
		{
			$node->reload;
			wait_for_sql($node, 'lent', "SELECT coalesce(current_setting('$name', true) = $value, false)", 'the file is read');
		}
		push @session, sprintf($in_session, $name, $value) if defined $in_session;
		$ENV{PGOPTIONS} = "-c $name=" . ($hostile{$name} =~ s/ /\\ /gr) if $what eq 'connection options';

		is(error_of('lent', 'low', @session, $instead // $call), '42501', "$name by $what: refused") or diag("$stdout $stderr");
		like($stderr, qr/HINT:  .*ALTER FUNCTION .* SET $name|HINT:  .*ALTER ROLE/, 'with the way out');
		is(error_of('lent', 'low', @session, 'SELECT public.lend_well()'), '', "$name by $what: no matter where it is pinned") or diag($stderr);

		$ENV{PGOPTIONS} = '';
		is(error_of('lent', $setter, $load, sprintf($undo, $name)), '', 'undone') or diag($stderr) if defined $undo;
		if ($what eq 'ALTER SYSTEM')
		{
			$node->safe_psql('lent', "REVOKE ALTER SYSTEM ON PARAMETER $name FROM low");
			$node->reload;
			wait_for_sql($node, 'lent', "SELECT coalesce(current_setting('$name', true) <> $value, true)", 'the file is read');
		}
	}
}
is($node->safe_psql('lent', 'SELECT count(*) FROM trap.touched'), 0, 'nothing of it has run');
nobody_was_promoted('lending');

# Where nobody lends anything, the owner of a database has no say either.
$node->safe_psql('lent', 'GRANT EXECUTE ON FUNCTION datamart_users_run_cycle, datamart_users_queue, datamart_users_retry TO etl; GRANT USAGE ON SCHEMA dwh TO etl; GRANT ALL ON ALL TABLES IN SCHEMA dwh TO etl');
is(error_of('lent', 'dbo', $load, q(ALTER DATABASE lent SET datamart_users.procedure = 'trap.refresh')), '', 'the owner sets the procedure for all');
for my $user (undef, 'etl')
{
	for my $call ('datamart_users_run_cycle()', 'datamart_users_queue()', 'datamart_users_retry()', 'datamart_users_priority_query()')
	{
		next if defined $user && $call =~ /priority_query/;
		is(error_of('lent', $user, "SELECT $call"), '42501', "$call by " . ($user // 'a superuser'));
		like($stderr, qr/comes from role "dbo".*ALTER DATABASE.*ALTER ROLE/s, 'is told from whom it comes, and what to do');
	}
}
# And what his own is, is his.
$node->safe_psql('lent', 'GRANT EXECUTE ON FUNCTION datamart_users_run_cycle TO dbo');
(undef, $stdout, $stderr) = run_psql($node, 'lent', [ q(SET datamart_users.users_table = 'trap.users'), q(SET datamart_users.facts_table = 'trap.facts'),
	'SELECT status, failed FROM datamart_users_run_cycle()' ], user => 'dbo');
is($stdout, 'completed|1', 'with his own rights his procedure may run, and fail') or diag($stderr);
$node->safe_psql('lent', 'ALTER DATABASE lent RESET datamart_users.procedure');
# A superuser's own.
$node->safe_psql('lent', "LOAD 'datamart_users'; ALTER ROLE ALL SET datamart_users.worker_settings = 'jit = off'; ALTER ROLE low SET datamart_users.max_workers = 1");
is(error_of('lent', 'low', 'SELECT public.lend()'), '', 'ALTER ROLE ALL is for superusers') or diag($stderr);
$node->safe_psql('lent', 'ALTER ROLE ALL RESET datamart_users.worker_settings; ALTER ROLE low RESET ALL');
for my $name (sort keys %harmless)
{
	(undef, $stdout, $stderr) = run_psql($node, 'lent', [ $load, "SELECT set_config('$name', current_setting('$name'), false)", 'SELECT public.lend()' ], user => 'low');
	is(sqlstate($stderr), '', "$name is for everybody to set") or diag($stderr);
}
# What a setting does when it is looked at happens after the look at who set it.
is(error_of('lent', 'low', $load, q(SET datamart_users.worker_settings = 'default_tablespace = nowhere'), 'SELECT public.lend()'), '42501', 'a bad worker_settings of a stranger');
is(error_of('lent', 'low', $load, q(SET datamart_users.users_table = 'no.such'), 'SELECT public.lend()'), '42501', 'a users_table of a stranger that is not there');
SKIP:
{
	skip 'a membership without SET came with 16', 2 if $node->pg_version < 16;
	$node->safe_psql('lent', 'GRANT keeper TO low WITH SET FALSE, INHERIT TRUE; GRANT ALL ON ALL TABLES IN SCHEMA dwh TO keeper; GRANT USAGE ON SCHEMA dwh TO keeper;
		CREATE FUNCTION public.kept() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS \'SELECT status FROM public.datamart_users_run_cycle()\';
		ALTER FUNCTION public.kept() OWNER TO keeper; GRANT EXECUTE ON FUNCTION datamart_users_run_cycle TO keeper');
	my @sql = ($load, q(SET datamart_users.procedure = 'trap.refresh'), 'SELECT public.kept()');
	is(error_of('lent', 'low', @sql), '42501', 'a member without SET cannot become the role');
	$node->safe_psql('lent', 'GRANT keeper TO low WITH SET TRUE');
	is(error_of('lent', 'low', @sql), '', 'one with SET can') or diag($stderr);
	$node->safe_psql('lent', 'REVOKE keeper FROM low');
}

#
# Others' rows: low runs cycles of his own tables
#
$node->safe_psql('postgres', 'CREATE DATABASE rows');
add_warehouse($node, 'rows', 6);
add_load_library('rows');
$node->safe_psql('rows', <<'SQL');
CREATE SCHEMA low AUTHORIZATION low;
GRANT USAGE ON SCHEMA dwh TO etl, keeper;
GRANT ALL ON ALL TABLES IN SCHEMA dwh TO etl, keeper;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO low;
GRANT EXECUTE ON FUNCTION datamart_users_run_cycle, datamart_users_retry, datamart_users_queue TO etl, keeper;
INSERT INTO dwh.behaviour SELECT i, 'SELECT 1/0' FROM generate_series(1, 3) i;
SQL
run_psql($node, 'rows', <<'SQL', user => 'low');
CREATE TABLE low.dimension_users (dimension_user_id int PRIMARY KEY, modified bool NOT NULL DEFAULT true);
INSERT INTO low.dimension_users SELECT generate_series(1, 6);
CREATE TABLE low.facts (action_dimension_id_user int, action_at timestamptz);
CREATE PROCEDURE low.fails(int) LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
CREATE PROCEDURE low.works(int) LANGUAGE plpgsql AS 'BEGIN END';
SQL
(undef, $stdout, $stderr) = run_psql($node, 'rows', 'SELECT processed, failed FROM datamart_users_run_cycle()', user => 'etl');
is($stdout, '3|3', 'the real cycle');
$node->safe_psql('rows', <<'SQL');
UPDATE datamart_users_cycles SET started_at = now() - interval '10 days', finished_at = now() - interval '9 days';
INSERT INTO datamart_users_cycles (status, role_name, started_at, users_oid, users_table) SELECT 'running', 'etl', now() - interval '20 days', users_oid, users_table FROM datamart_users_cycles;
INSERT INTO datamart_users_suspects SELECT 1, 6, cycle_id, users_oid, users_table FROM datamart_users_cycles WHERE status = 'running';
SQL

# All that others have in any table of the extension.
my $others = <<"SQL";
$members;
SELECT string_agg(format('SELECT %L, count(*), md5(string_agg(r::text, chr(10) ORDER BY r::text)) FROM %s r WHERE %s', c.oid::regclass, c.oid::regclass,
	CASE WHEN EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'users_oid') THEN 'users_oid <> (SELECT to_regclass(''low.dimension_users'')::oid)'
		 ELSE 'cycle_id NOT IN (SELECT cycle_id FROM public.datamart_users_cycles WHERE users_oid = to_regclass(''low.dimension_users'')::oid)' END), ' UNION ALL ' ORDER BY c.oid)
FROM pg_class c JOIN pg_temp.members m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass WHERE c.relkind = 'r'
SQL
my $what_others_have = $node->safe_psql('rows', $others);
my $before = $node->safe_psql('rows', $what_others_have);
cmp_ok(scalar(() = $before =~ /^public\.datamart_users_/mg), '>=', 6, 'there is something to harm');
my @his = ($load, q(SET datamart_users.users_table = 'low.dimension_users'), q(SET datamart_users.facts_table = 'low.facts'));
for my $attack (
	[ 'a back-off for ever', q(SET datamart_users.retry_delay = '2000000000s'), q(SET datamart_users.retry_delay_max = '2000000000s'),
		q(SET datamart_users.procedure = 'low.fails'), 'SELECT failed FROM datamart_users_run_cycle()' ],
	[ 'lifting it', q(SET datamart_users.procedure = 'low.works'), 'SELECT datamart_users_retry()' ],
	[ 'lifting one', 'SELECT datamart_users_retry(1)' ],
	[ 'a success that forgets failures', q(SET datamart_users.procedure = 'low.works'), 'SELECT processed FROM datamart_users_run_cycle()' ],
	[ 'another cycle', 'UPDATE low.dimension_users SET modified = true', q(SET datamart_users.procedure = 'low.works'), 'SELECT processed FROM datamart_users_run_cycle(max_workers => 2)' ],
	[ 'a view on them', 'CREATE VIEW low.v AS TABLE low.dimension_users', q(SET datamart_users.users_table = 'low.v'), q(SET datamart_users.procedure = 'low.works'), 'SELECT processed FROM datamart_users_run_cycle()', ],
	[ 'a new table of the old name', 'DROP VIEW low.v', 'DROP TABLE low.dimension_users', 'CREATE TABLE low.dimension_users (dimension_user_id int PRIMARY KEY, modified bool NOT NULL DEFAULT true)',
		q(SET datamart_users.procedure = 'low.works'), 'SELECT found FROM datamart_users_run_cycle()' ],
	[ 'a name that looks like theirs', 'CREATE TABLE low."dwh.dimension_users" (dimension_user_id int PRIMARY KEY, modified bool NOT NULL DEFAULT true)',
		q(SET datamart_users.users_table = 'low."dwh.dimension_users"'), q(SET datamart_users.procedure = 'low.works'), 'SELECT found FROM datamart_users_run_cycle()', 'DROP TABLE low."dwh.dimension_users"' ])
{
	my ($what, @sql) = @$attack;

	is(error_of('rows', 'low', @his, @sql), '', $what) or diag($stderr);
	$node->safe_psql('rows', q(DELETE FROM datamart_users_cycles WHERE role_name = 'low'; DELETE FROM datamart_users_failures WHERE users_table LIKE 'low.%'; DELETE FROM datamart_users_attempts WHERE users_table LIKE 'low.%'; DELETE FROM datamart_users_counts WHERE users_oid NOT IN (SELECT oid FROM pg_class WHERE relnamespace <> 'low'::regnamespace)));
	is($node->safe_psql('rows', $what_others_have), $before, "$what: touches nobody else's rows");
}
is(error_of('rows', 'low', 'SELECT datamart_users_retry()'), '42501', 'low may not lift the back-off of others');
like($stderr, qr/HINT:  Run GRANT/, 'with the GRANT');
$node->safe_psql('rows', 'GRANT USAGE ON SCHEMA dwh TO low; GRANT SELECT ON dwh.dimension_users TO low');
is(error_of('rows', 'low', 'SELECT datamart_users_retry()'), '42501', 'nor if he may see the flag');
like($stderr, qr/HINT:  Run GRANT UPDATE \(modified\) ON dwh\.dimension_users TO low/, 'with the GRANT');
$node->safe_psql('rows', 'REVOKE ALL ON dwh.dimension_users FROM low');
is(error_of('rows', 'etl', 'BEGIN', 'SELECT datamart_users_retry()'), '', 'etl may');
is($stdout, '3', 'all three');
is(error_of('rows', 'etl', 'BEGIN READ ONLY', 'SELECT datamart_users_retry()'), '25006', 'but not in a read-only transaction');

# What decides over others' rows is not for him to set, in any way.
for my $name (@reserved)
{
	my $value = $name =~ /texts/ ? 'off' : '1s';
	my @cycle = (@his, q(SET datamart_users.procedure = 'low.works'), 'SELECT status FROM datamart_users_run_cycle()');

	is(error_of('rows', 'low', $load, "SET $name = '$value'"), '42501', "SET $name");
	is(error_of('rows', 'low', $load, "SELECT set_config('$name', '$value', false)"), '42501', "set_config $name");
	is(error_of('rows', 'low', "SET $name = '$value'", @cycle), '42501', "SET $name before the library is there");
	is(error_of('rows', 'low', "ALTER ROLE low SET $name = '$value'"), '42501', "ALTER ROLE SET $name before the library is there");
	is(error_of('rows', 'low', $load, "ALTER ROLE low SET $name = '$value'"), '42501', "ALTER ROLE SET $name");
	is(error_of('rows', 'low', "CREATE FUNCTION low.f() RETURNS int LANGUAGE sql SET $name = '$value' AS 'SELECT 1'"), '42501', "a function with SET $name");
	is(error_of('lent', 'dbo', "ALTER DATABASE lent SET $name = '$value'"), '42501', "the owner's ALTER DATABASE SET $name before the library is there");
	is(error_of('lent', 'dbo', $load, "ALTER DATABASE lent SET $name = '$value'"), '42501', "the owner's ALTER DATABASE SET $name");
	isnt(error_of('rows', 'low', $load, "SET datamart_users.worker_settings = '$name = $value'", @cycle), '', "$name in worker_settings");
	{
		local $ENV{PGOPTIONS} = "-c $name=$value";
		is(error_of('rows', 'low', @cycle), '42501', "$name in the connection options");
	}
	is($node->safe_psql('rows', $what_others_have), $before, "$name: touches nobody else's rows");
}
for my $role ('etl', 'keeper')
{
	# Others can be told to by a superuser, and then it reaches the workers.
	$node->safe_psql('rows', q(UPDATE datamart_users_cycles SET status = 'completed' WHERE status = 'running'));
	my $how = $role eq 'etl' ? 'ALTER ROLE etl SET' : 'GRANT SET ON PARAMETER';
	my @set = $role eq 'etl' ? () : q(SET datamart_users.history_retention = '1h');

	$node->safe_psql('rows', q(LOAD 'datamart_users'; ) . ($role eq 'etl' ? q(ALTER ROLE etl SET datamart_users.history_retention = '15d')
			: q(GRANT SET ON PARAMETER datamart_users.history_retention TO keeper)));
	is(error_of('rows', $role, $load, @set, 'SELECT status FROM datamart_users_run_cycle(1, 1)'), '', "$how: the cycle runs") or diag($stderr);
	is($node->safe_psql('rows', q(SELECT count(*) FROM datamart_users_cycles WHERE started_at < now() - interval '5 days')), $role eq 'etl' ? 1 : 0,
		"$how reaches the workers");
}

# The history of others stays, whoever removes his own.
$node->safe_psql('rows', q(UPDATE datamart_users_cycles SET started_at = '2001-01-01'; GRANT SET ON PARAMETER datamart_users.history_retention TO low));
$before = $node->safe_psql('rows', $what_others_have);
is(error_of('rows', 'low', @his, q(SET datamart_users.procedure = 'low.works'), q(SET datamart_users.history_retention = '1s'), 'SELECT status FROM datamart_users_run_cycle()'), '', 'low, granted the retention');
is($node->safe_psql('rows', $what_others_have), $before, 'removes nobody else\'s history');
$node->safe_psql('rows', q(REVOKE SET ON PARAMETER datamart_users.history_retention FROM low, keeper; ALTER ROLE etl RESET ALL));

#
# A trigger, given the privilege: on any table of the extension
#
$node->safe_psql('rows', 'CREATE TABLE public.touched (what text, who name DEFAULT current_user); GRANT INSERT ON public.touched TO PUBLIC');
run_psql($node, 'rows', q(CREATE FUNCTION low.spring() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.touched VALUES (TG_RELNAME); EXECUTE ''ALTER ROLE low SUPERUSER''; RETURN NULL; END'), user => 'low');
$node->safe_psql('rows', q(ALTER ROLE etl SET datamart_users.history_retention = '1s'; GRANT EXECUTE ON FUNCTION low.spring TO PUBLIC; GRANT USAGE ON SCHEMA low TO PUBLIC));
for my $table (split /\n/, $node->safe_psql('rows', "$members; SELECT c.relname FROM pg_class c JOIN pg_temp.members m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass WHERE c.relkind = 'r' ORDER BY 1"))
{
	# One with something to write, and something to remove, in every table.
	$node->safe_psql('rows', q(UPDATE datamart_users_cycles SET started_at = '2001-01-01'; UPDATE datamart_users_failures SET next_attempt_at = '2001-01-01'; UPDATE dwh.dimension_users SET modified = true));
	$node->safe_psql('rows', "GRANT TRIGGER ON public.$table TO low");
	for my $event ('AFTER INSERT OR UPDATE OR DELETE', 'BEFORE INSERT OR UPDATE OR DELETE')
	{
		for my $level ('ROW', 'STATEMENT')
		{
			is(error_of('rows', 'low', "CREATE TRIGGER spring $event ON public.$table FOR EACH $level EXECUTE FUNCTION low.spring()"), '', "a trigger $event on $table") or diag($stderr);
			# Who waits since when, and how many facts, is only a help: without it
			# cycles go on.
			my $needed = $table !~ /^datamart_users_(seen|counts)$/;

			is(error_of('rows', 'etl', 'SELECT datamart_users_run_cycle(6, 2)'), $needed ? '55000' : '', "keeps cycles from running, FOR EACH $level");
			like($stderr, qr/table public\.$table has a trigger.*HINT:  Drop or disable it/s, 'with a hint') if $needed;
			is($node->safe_psql('rows', 'SELECT what, who FROM public.touched'), '', 'and does not run');
			$node->safe_psql('rows', "DROP TRIGGER spring ON public.$table");
		}
	}
	$node->safe_psql('rows', "REVOKE TRIGGER ON public.$table FROM low");
}
$node->safe_psql('rows', 'CREATE RULE spring AS ON UPDATE TO public.datamart_users_failures DO ALSO INSERT INTO public.touched VALUES (\'rule\')');
is(error_of('rows', 'etl', 'SELECT datamart_users_retry()'), '55000', 'a rule keeps our SQL from running, too');
$node->safe_psql('rows', 'DROP RULE spring ON public.datamart_users_failures; CREATE TRIGGER spring AFTER INSERT ON public.datamart_users_cycles FOR EACH ROW EXECUTE FUNCTION low.spring(); ALTER TABLE public.datamart_users_cycles DISABLE TRIGGER spring');
is(error_of('rows', 'etl', 'SELECT status FROM datamart_users_run_cycle(6, 2)'), '', 'a disabled trigger does no harm') or diag($stderr);
is($node->safe_psql('rows', 'DROP TRIGGER spring ON public.datamart_users_cycles; SELECT what, who FROM public.touched'), '', 'nothing has run');
$node->safe_psql('rows', 'ALTER ROLE etl RESET ALL');
nobody_was_promoted('triggers');
check_sane($node, 'rows', 'after all that');

#
# What somebody is told of others
#
$node->safe_psql('postgres', 'CREATE DATABASE told');
add_warehouse($node, 'told', 999);
add_load_library('told');
$node->safe_psql('told', <<'SQL');
GRANT USAGE ON SCHEMA dwh TO etl;
GRANT ALL ON ALL TABLES IN SCHEMA dwh TO etl;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO etl;
GRANT SELECT ON datamart_users_backlog TO etl;
INSERT INTO dwh.behaviour SELECT i, 'SELECT 1/0' FROM generate_series(777, 888, 111) i;
SELECT datamart_users_run_cycle();
UPDATE dwh.dimension_users SET modified = true;
SQL
like((run_psql($node, 'told', 'SELECT datamart_users_priority_query(5)', user => 'etl'))[1], qr/\{777,888\}/, 'priority_query names those that are held');
$node->safe_psql('told', 'ALTER TABLE dwh.dimension_users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON dwh.dimension_users TO etl USING (dimension_user_id <> 777)');
(undef, $stdout) = run_psql($node, 'told', 'SELECT datamart_users_priority_query(5)', user => 'etl');
unlike($stdout, qr/777/, 'but not those that row-level security hides');
like($stdout, qr/888/, 'only those that the caller sees');
is((run_psql($node, 'told', 'SELECT held FROM datamart_users_backlog WHERE held > 0', user => 'etl'))[1], '1', 'and the backlog counts no others');
$node->safe_psql('told', 'DROP POLICY p ON dwh.dimension_users; ALTER TABLE dwh.dimension_users DISABLE ROW LEVEL SECURITY');
$node->safe_psql('told', 'CREATE VIEW dwh.some_users AS SELECT * FROM dwh.dimension_users WHERE dimension_user_id <> 777; GRANT ALL ON dwh.some_users TO etl; UPDATE datamart_users_failures SET users_oid = \'dwh.some_users\'::regclass');
unlike((run_psql($node, 'told', [ q(SET datamart_users.users_table = 'dwh.some_users'), 'SELECT datamart_users_priority_query(5)' ], user => 'etl'))[1], qr/777/, 'nor those that a view hides');

# Texts of errors, which may quote rows of the warehouse.
my $in_tables = $node->safe_psql('told', "$members; SELECT string_agg(format('SELECT %L FROM %s r WHERE r::text ~ ''4321-secret''', c.oid::regclass, c.oid::regclass), ' UNION ' ORDER BY c.oid)
	FROM pg_class c JOIN pg_temp.members m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass WHERE c.relkind = 'r'");
$node->safe_psql('told', <<'SQL');
TRUNCATE dwh.behaviour;
UPDATE datamart_users_failures SET next_attempt_at = '2001-01-01';
INSERT INTO dwh.behaviour VALUES (5, $$DO 'BEGIN RAISE EXCEPTION ''4321-secret'' USING DETAIL = ''4321-secret'', HINT = ''4321-secret''; END'$$);
CREATE FUNCTION dwh.spilling() RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''4321-secret''; END';
CREATE VIEW dwh.spilling_facts AS SELECT * FROM dwh.facts WHERE dwh.spilling();
SQL
for my $keep ('on', 'off')
{
	# One refresh fails by it, and one whole cycle.
	$node->safe_psql('told', 'DELETE FROM datamart_users_failures; DELETE FROM datamart_users_attempts; DELETE FROM datamart_users_cycles; UPDATE dwh.dimension_users SET modified = true');
	run_psql($node, 'told', [ $load, "SET datamart_users.failure_texts = $keep", 'SELECT datamart_users_run_cycle()' ]);
	run_psql($node, 'told', [ 'UPDATE dwh.dimension_users SET modified = true', $load, "SET datamart_users.failure_texts = $keep",
		q(SET datamart_users.facts_table = 'dwh.spilling_facts'), 'SELECT datamart_users_run_cycle()' ]);
	is($node->safe_psql('told', 'SELECT (SELECT count(*) FROM datamart_users_failures), (SELECT count(*) FROM datamart_users_cycles WHERE status = \'failed\')'), '1|1', "failure_texts = $keep: there are failures");
	is(join(',', sort split /\n/, $node->safe_psql('told', $in_tables)), $keep eq 'on' ? 'public.datamart_users_attempts,public.datamart_users_cycles,public.datamart_users_failures' : '', 'where their texts are');
}
is($node->safe_psql('told', 'SELECT dimension_user_id, sqlstate, message, context FROM datamart_users_failures'), '5|P0001|not kept, see datamart_users.failure_texts|', 'the SQLSTATE is there');
like(last_cycle($node, 'told', 'message'), qr/^SQLSTATE P0001/, 'also that of a cycle');

# Control characters that turn round what is beside them.
$node->safe_psql('told', q(UPDATE datamart_users_failures SET message = U&'a\202Eb\2066c\200Fd\061Ce', cycle_id = (SELECT max(cycle_id) FROM datamart_users_cycles)));
unlike($node->safe_psql('told', 'SELECT datamart_users_report()'), qr/\xE2\x80\xAE|\xE2\x81\xA6|\xE2\x80\x8F|\xD8\x9C/, 'the report lets no bidirectional control characters pass');

#
# The doctor and a relation that an attacker would like to be taken
#
$node->safe_psql('postgres', 'CREATE DATABASE ill');
$node->safe_psql('ill', 'CREATE SCHEMA bait AUTHORIZATION low; GRANT USAGE ON SCHEMA bait TO PUBLIC; CREATE EXTENSION datamart_users');
run_psql($node, 'ill', <<'SQL', user => 'low');
CREATE TABLE bait.facts (action_dimension_id_user int, action_at timestamptz);
CREATE TABLE bait.dimension_users (dimension_user_id int PRIMARY KEY, modified bool NOT NULL);
CREATE PROCEDURE bait.update_datamart_user(int) LANGUAGE sql AS '';
GRANT ALL ON ALL TABLES IN SCHEMA bait TO PUBLIC;
SQL
is($node->safe_psql('ill', q(SELECT item, line FROM datamart_users_check(), regexp_split_to_table(hint, '\n') line WHERE line ~ 'bait' AND line !~ '^\s*--')), '', 'the doctor has nothing of it to paste');

$node->stop;
done_testing();
