# A cycle from end to end: what it does, what it says, and that it leaves a
# history which survives dump and restore.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $fixture = "$FindBin::Bin/../fixtures/warehouse.sql";
my $run = 'SELECT * FROM datamart_users_run_cycle';
my $node = new_node('basic');
my ($offset, $log, $status, $stdout, $stderr);

sub log_since
{
	my ($offset) = @_;
	return slurp_file($node->logfile, $offset);
}

#
# The fixture warehouse: heavy refreshes, one that fails.
#
$node->safe_psql('postgres', 'CREATE DATABASE w');
$node->command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-v', 'users=40',
		'-v', 'facts=1500', '-d', $node->connstr('w'), '-f', $fixture
	],
	'fixture warehouse');
$node->safe_psql('w', <<'SQL');
CREATE EXTENSION datamart_users;
UPDATE dwh.dimension_users SET modified = TRUE;
SELECT dwh.etl_rename_user((SELECT min(dimension_user_id) FROM dwh.dimension_users));
SQL
my $found = $node->safe_psql('w',
	'SELECT count(*) FROM dwh.dimension_users WHERE modified');
my $poison = $node->safe_psql('w',
	'SELECT dimension_user_id FROM dwh.dimension_users WHERE NOT is_current');

$offset = -s $node->logfile;
($status, $stdout, $stderr) = run_psql(
	$node, 'w',
	[
		'SET datamart_users.progress_interval = \'100ms\'',
		'SET datamart_users.log_every_users = 10',
		"$run(1000, 2)"
	]);
is($status, 0, 'cycle returns');
my ($cycle, @row) = split /\|/, $stdout;
my $processed = $found - 1;
is(join('|', @row[0 .. 7]),
	"completed|$found|$found|$processed|1|0|0|2", 'its row');
like($row[8], qr/^\d\d:\d\d:\d\d\.\d+$/, 'and the time it took');
like(
	$stderr,
	qr/NOTICE:\s+00000: datamart_users cycle $cycle: \d+\/$found datamart users \(\d+%\), \d+\.\d per second, (?:\d+ s|\d+:\d\d min|unknown time) left/,
	'progress goes to the waiting caller');

is($node->safe_psql('w', 'SELECT count(*) FROM dwh.stale_datamart_users()'),
	'0', 'every datamart user without the flag is up to date');
is($node->safe_psql('w', 'SELECT count(*) FROM dwh.torn_datamart_users()'),
	'0', 'and no row is torn');
is( $node->safe_psql('w',
		'SELECT dimension_user_id FROM dwh.dimension_users WHERE modified'),
	$poison, 'the one that failed stays modified');

$log = log_since($offset);
like($log,
	qr/LOG:  datamart_users cycle $cycle in database "w": found $found datamart users to process \(prioritised by relevance\)/,
	'log: found');
like($log,
	qr/LOG:  datamart_users cycle $cycle in database "w": using 2 workers for datamart users/,
	'log: workers');
my @progress = $log =~
  /LOG:  datamart_users cycle \d+ in database "w", worker (\d): processed (\d+) datamart users? \(current: datamart user \d+\)/g;
cmp_ok(scalar @progress, '>=', 4, 'log: progress');
is( scalar(grep { $progress[ 2 * $_ + 1 ] % 10 != 0 } 0 .. $#progress / 2),
	0, 'log: at every tenth datamart user of a worker');
like($log,
	qr/WARNING:  datamart_users cycle \d+ in database "w", worker [12]: failed to process datamart user $poison: /,
	'log: the failure');
my %completed = $log =~
  /LOG:  datamart_users cycle \d+ in database "w", worker (\d): (completed (?:successfully|with failures)) \(\d+ datamart users? processed/g;
is(join(',', sort keys %completed), '1,2', 'log: the end of each worker');
is(scalar(grep { $_ eq 'completed with failures' } values %completed),
	1, 'log: one of them had a failure');
my $done = 0;
$done += $_
  for $log =~
  /LOG:  datamart_users cycle \d+ in database "w", worker \d: completed [a-z ]+ \((\d+) datamart users? processed/g;
is($done, $processed, 'log: which adds up');
like(
	$log,
	qr/LOG:  datamart_users cycle $cycle in database "w": completed, processed $processed of $found datamart users \(1 failed, 0 skipped, 0 deferred\) with 2 workers in \d+\.\d seconds/,
	'log: summary');

is( last_cycle(
		$node, 'w',
		'cycle_id, status, role_name = current_user, max_users, time_limit IS NULL, backlog, found, '
		  . 'processed, failed, skipped, deferred, workers_requested, workers, '
		  . 'elapsed = finished_at - started_at, prioritisation_time BETWEEN interval \'0\' AND elapsed, message IS NULL'
	),
	"$cycle|completed|t|1000|t|$found|$found|$processed|1|0|0|2|2|t|t|t",
	'history');
is( $node->safe_psql('w', <<"SQL"), 't|t|t', 'refresh times by priority');
SELECT count(*) > 1,
	   bool_and((SELECT sum(n) FROM unnest(bucket_count) AS n) IS NOT DISTINCT FROM nullif(processed + failed + deferred, 0)),
	   bool_and(p50 <= p95 AND p95 <= p99 AND p99 <= max_time)
  FROM datamart_users_cycle_priorities WHERE cycle_id = $cycle
SQL
is( $node->safe_psql('w', <<"SQL"), "$found|$processed|1|0|0|t",
SELECT sum(found), sum(processed), sum(failed), sum(skipped), sum(deferred), bool_and(max_time <= total_time)
FROM datamart_users_cycle_priorities WHERE cycle_id = $cycle
SQL
	'history by priority');
is( $node->safe_psql('w', <<"SQL"), "$poison|1|t|t|t",
SELECT dimension_user_id, attempts, sqlstate ~ '^[0-9A-Z]{5}\$', context ~ 'PL/pgSQL',
	   next_attempt_at = first_failed_at + interval '1 min'
FROM datamart_users_failures WHERE cycle_id = $cycle
SQL
	'failures');

# Nothing to do is no error.
is( $node->safe_psql('w',
		'SELECT status, backlog, found, processed, workers FROM datamart_users_run_cycle()'
	),
	'completed|1|0|0|1',
	'a cycle with nothing to do but one that is held');

#
# What other sessions see of it, in the small warehouse.
#
add_warehouse($node, 's', 3);
my $gate = hold_gate($node, 's');
my $caller = start_psql($node, 's',
	[ 'SET datamart_users.progress_interval = \'100ms\'', "$run(NULL, 2)" ]);
wait_for_gate($node, 's', 2);
wait_for_sql($node, 'postgres', 'SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type IS NULL',
	'the postmaster has noted down whom it started');
is( $node->safe_psql('postgres', <<'SQL'),
SELECT backend_type, application_name, regexp_replace(query, '\d', 'N'), state, datname, usename = current_user
FROM pg_stat_activity WHERE backend_type LIKE 'datamart_users%' ORDER BY 2
SQL
	"datamart_users coordinator|datamart_users cycle 1 worker 1|CALL dwh.update_datamart_user(N)|active|s|t\n"
	  . "datamart_users worker|datamart_users cycle 1 worker 2|CALL dwh.update_datamart_user(N)|active|s|t",
	'pg_stat_activity');
is(join(',', sort(worker_user($node, 1), worker_user($node, 2))),
	'1,2', 'the first two of the queue are at work');
is(control_segments($node), 1, 'there is a segment to be left over');
is(last_cycle($node, 's', 'status, finished_at IS NULL'),
	'running|t', 'history says that it runs');

# The gate holds them, so the notice tells that nothing is done.
$caller->{run}->pump until $caller->{stderr} =~ /left\n.*left\n/s;
like(
	$caller->{stderr},
	qr/datamart_users cycle 1: 0\/3 datamart users \(0%\), 0\.0 per second, unknown time left/,
	'notices while nothing moves');
open_gate($gate);
($status, $stdout) = finish($caller);
like($stdout, qr/^1\|completed\|3\|3\|3\|0\|0\|0\|2\|/, 'and it completes');
check_sane($node, 's', 'after a cycle');

#
# A bad value that is set before the library is loaded: the server has only a
# WARNING for it then, but a cycle must not run with the default.
#
my $cycles = $node->safe_psql('s', 'SELECT count(*) FROM datamart_users_cycles');
for my $setting ("recency_days = 'often'", 'max_users_per_cycle = -3')
{
	my $out = '';
	my $err = '';

	isnt(
		$node->psql(
			's', "SET datamart_users.$setting; SELECT datamart_users_run_cycle()",
			stdout => \$out, stderr => \$err),
		0, "$setting before the library is loaded");
	like($err, qr/ERROR:  .*(invalid value|outside the valid range)/,
		"$setting: the error of SET");
}
is($node->safe_psql('s', 'SELECT count(*) FROM datamart_users_cycles'),
	$cycles, 'and no cycle');

#
# Settings in postgresql.conf, without and with preloading.
#
$node->append_conf('postgresql.conf', <<'CONF');
datamart_users.max_users_per_cycle = 4
datamart_users.max_workers = 3
CONF
$node->reload;
for my $preload ('', 'datamart_users')
{
	my $title = $preload ? 'preloaded' : 'not preloaded';

	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = '$preload'");
	$node->restart;
	reset_warehouse($node, 's', 6);
	is( $node->safe_psql('s',
			'SELECT found, processed, workers FROM datamart_users_run_cycle()'),
		'4|4|3', "$title: settings in postgresql.conf");
	is( $node->safe_psql('s',
			'SELECT found, processed, workers FROM datamart_users_run_cycle(max_workers => 1)'
		),
		'2|2|1',
		"$title: an argument goes over a setting");
	is( $node->safe_psql('s', <<'SQL'), 'SET|1', "$title: so does SET");
SET datamart_users.max_users_per_cycle = 1;
UPDATE dwh.dimension_users SET modified = TRUE;
SELECT 'SET', found FROM datamart_users_run_cycle();
SQL
}
is($node->safe_psql('s', 'SHOW datamart_users.max_workers'),
	'3', 'preloaded: the settings are known before the first call');
check_sane($node, 's', 'preloaded');

#
# Dump and restore.
#
reset_warehouse($node, 's', 3, 2 => q(DO 'BEGIN RAISE division_by_zero; END'));
$node->safe_psql('s', 'SELECT datamart_users_run_cycle()');
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('s') ],
	'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d',
		$node->connstr('restored'), '-f', $dump
	],
	'restore');
my $everything = <<'SQL';
SELECT c FROM datamart_users_cycles c ORDER BY cycle_id;
SELECT p FROM datamart_users_cycle_priorities p ORDER BY cycle_id, priority;
SELECT f FROM datamart_users_failures f ORDER BY dimension_user_id;
SQL
my $before = $node->safe_psql('s', $everything);
like($before, qr/division_by_zero/, 'there is a failure to dump');
is($node->safe_psql('restored', $everything),
	$before, 'history and failures are restored');
is( $node->safe_psql('restored', <<'SQL'), '1|t',
UPDATE dwh.dimension_users SET modified = TRUE;
SELECT processed, cycle_id = (SELECT max(cycle_id) + 1 FROM datamart_users_cycles)
FROM datamart_users_run_cycle(1);
SQL
	'and the next cycle there has the next number');

$node->stop;
done_testing();
