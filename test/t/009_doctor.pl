# The doctor beside other sessions: what keeps them still does not keep him,
# and what he says of processes does not depend on who asks.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('doctor');
my ($stdout, $stderr, $holder, $client);

add_warehouse($node, 'w', 4);
$node->safe_psql('w', <<'SQL');
CREATE ROLE etl LOGIN;
GRANT EXECUTE ON FUNCTION datamart_users_check, datamart_users_report TO etl;
CREATE ROLE owner LOGIN;
SQL

# What the doctor says of an item, to a role.
sub status_of
{
	my ($item, $user) = @_;

	(undef, $stdout, $stderr) = run_psql($node, 'w',
		"SELECT status, detail FROM datamart_users_check() WHERE item = '$item'", user => $user);
	return $stdout;
}

#
# Both tables are locked by somebody who does not go on.
#
$holder = $node->background_psql('w');
$holder->query_safe('BEGIN');
$holder->query_safe('LOCK TABLE dwh.facts, dwh.dimension_users');
(undef, $stdout, $stderr) = run_psql($node, 'w',
	q{SELECT string_agg(item, ', ') FILTER (WHERE status <> 'ok'), count(*) FROM datamart_users_check()});
is($stdout, 'statistics|23', 'a locked table costs one item');
like(status_of('statistics'), qr/^warning\|canceling statement due to lock timeout$/, 'which says why');

# A cancel is no finding.
(undef, undef, $stderr) = run_psql($node, 'w',
	[ "SET statement_timeout = '500ms'", 'SELECT * FROM datamart_users_check()' ]);
is(sqlstate($stderr), '57014', 'a doctor who waits can be canceled');
$holder->query_safe('ROLLBACK');
$holder->quit;
is(status_of('statistics'), 'ok|up to date for 2 tables and partitions', 'afterwards all is well');

#
# Workers that wait for a lock, and all background workers, as roles see them
# that may not look into pg_stat_activity.
#
my $gate = hold_gate($node, 'w');
$client = start_psql($node, 'w', 'SELECT status FROM datamart_users_run_cycle(NULL, 2)');
wait_for_gate($node, 'w', 2);
my $pid = $node->safe_psql('w',
	q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted AND classid = }
	  . DatamartUsersTest::GATE);
for my $user (undef, 'etl')
{
	my $who = $user // 'a superuser';

	is(status_of('locks', $user), "warning|2 workers wait for locks of process $pid", "who holds the workers up, to $who");
	like(status_of('worker slots', $user), qr/^ok\|15 of 16 slots are free/, "slots, to $who");
}
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION datamart_users');
like(
	$node->safe_psql('other', q{SELECT detail FROM datamart_users_check() WHERE item = 'worker slots'}),
	qr/^13 of 16 slots are free/,
	'elsewhere they are taken');
open_gate($gate);
is((finish($client))[1], 'completed', 'the cycle ends');

#
# The owner of the database may create in the extension's schema, and says what
# search_path everybody starts with.  Nothing of his is run by others.
#
$node->safe_psql('w', 'ALTER DATABASE w OWNER TO owner');
$node->safe_psql('w', <<'SQL', extra_params => [ '-U', 'owner' ]);
ALTER DATABASE w SET search_path = public, pg_catalog;
CREATE FUNCTION public.trap() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CREATE TABLE IF NOT EXISTS public.trapped (by name);
	INSERT INTO public.trapped VALUES (current_user);
	EXECUTE 'ALTER ROLE owner SUPERUSER';
END;
$$;
DO $$
DECLARE
	types regtype[] := '{integer,bigint,numeric,double precision,text,name,"char",oid,interval,timestamptz,text[],bigint[]}';
	made record;
BEGIN
	FOR made IN
		SELECT o.name, l, r
		  FROM unnest('{+,-,*,/,=,<>,<,>,<=,>=,||,~,<@}'::text[]) AS o (name), unnest(types) AS l, unnest(types) AS r
	LOOP
		EXECUTE format('CREATE OR REPLACE FUNCTION public.operate(%1$s, %2$s) RETURNS %1$s LANGUAGE sql AS ''SELECT public.trap(); SELECT $1''',
					   made.l, made.r);
		EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.operate)',
					   made.name, made.l, made.r);
	END LOOP;
	FOR made IN
		SELECT f.name, a.args
		  FROM unnest('{count,max,min,format,concat,quote_ident,round,trunc,to_char,array_agg,string_agg,unnest,
						pg_partition_tree,pg_relation_size,pg_blocking_pids,datamart_users_report_line,
						datamart_users_report_duration,datamart_users_check_find_relation,
						datamart_users_check_find_index,datamart_users_check,
						datamart_users_report}'::text[]) AS f (name),
			   unnest('{name,text,bigint,integer,numeric,oid,regclass,interval,"name, integer, boolean",
						"text, text","text, name[]","regclass, text, text","numeric, integer"}'::text[]) AS a (args)
		 WHERE NOT (f.name LIKE 'datamart\_users\_%' AND to_regprocedure(format('public.%I(%s)', f.name, a.args)) IS NOT NULL)
	LOOP
		EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS text LANGUAGE sql AS ''SELECT public.trap(); SELECT NULL::text''',
					   made.name, made.args);
	END LOOP;
END;
$$;
SQL
for my $query (
	'SELECT public.datamart_users_report(NULL::bigint)',
	map { "TABLE public.datamart_users_$_" }
	qw(metrics cycle_priority_rates progress workers backlog cycles failures))
{
	my ($status) = run_psql($node, 'w', $query);
	is($status, 0, "runs: $query");
}
(undef, $stdout, $stderr) = run_psql($node, 'w', 'SELECT item, status, detail FROM public.datamart_users_check(NULL::name)');
unlike($stdout . $stderr, qr/ERROR|column|function|operator/, 'the doctor finds what he is looking for');
is(scalar(() = $stdout =~ /\n/g), 22, 'all of it');
is($node->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'owner'}), 'f', 'the owner is not promoted');
is($node->safe_psql('w', q{SELECT pg_catalog.to_regclass('public.trapped') IS NULL}), 't', 'nothing of his was run');

# Settings in files that the server will not take, as the files are now.
$node->append_conf('postgresql.conf', "datamart_users.retry_delay = 'soon'\n");
$node->append_conf('postgresql.auto.conf', "datamart_users.max_wrokers = 4\ndatamart_users.max_workers = 'many'\n");
(undef, $stdout) = run_psql($node, 'w', q(SELECT status, detail, hint FROM public.datamart_users_check(NULL::name) WHERE item OPERATOR(pg_catalog.=) 'settings'::text));
like($stdout, qr/^error\|.*datamart_users\.retry_delay does not take the value 'soon', which is set in \S+postgresql\.conf, line \d+/, 'postgresql.conf');
like($stdout, qr/there is no setting datamart_users\.max_wrokers, which is set in \S+postgresql\.auto\.conf, line \d+ \(datamart_users\.max_workers is meant\?\)/, 'ALTER SYSTEM');
like($stdout, qr/^(?:.*\|)?-- correct line \d+ of \S+postgresql\.conf$/m, 'what to do about the one');
like($stdout, qr/^(?:.*\|)?-- correct line \d+ of \S+postgresql\.auto\.conf$/m, 'and the other');
like($stdout, qr/^(?:.*\|)?ALTER SYSTEM RESET datamart_users\.max_workers;$/m, 'where a statement helps, it is that');

$node->stop;
done_testing();
