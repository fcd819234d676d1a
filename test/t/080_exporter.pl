# What the exporter for Prometheus makes of monitoring/queries.yaml: before,
# during and after a cycle, as a role that has what doc/monitoring.md says.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use HTTP::Tiny;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

my ($program) = grep { -x $_ }
  map { ("$_/prometheus-postgres-exporter", "$_/postgres_exporter") }
  split /:/, $ENV{PATH};
plan skip_all => 'prometheus-postgres-exporter is not installed'
  unless defined $program;

my $source = "$FindBin::Bin/../..";
my $exporter;
my $url;

END
{
	my $status = $?;
	$exporter->kill_kill(grace => 5) if defined $exporter;
	$? = $status;
}

# The file without the caches, because the test looks again at once.
sub uncached_queries
{
	my $path = PostgreSQL::Test::Utils::tempdir() . '/queries.yaml';
	my $queries = slurp_file("$source/monitoring/queries.yaml");

	$queries =~ s/^  cache_seconds: \d+\n//mg;
	append_to_file($path, $queries);
	return $path;
}

# Options for metrics of ours only, since the exporter's own change with its
# version: no collector that can be turned off, whichever it has.
sub only_our_metrics
{
	my $help = '';

	IPC::Run::run([ $program, '--help' ], '<', \undef, '>&', \$help);
	my %collectors = map { $_ => 1 }
	  $help =~ /^\s*--(?:\[no-\])?collector\.(\w+)(?![.=\w])/mg;
	return (
		(map { "--no-collector.$_" } sort keys %collectors),
		(grep { $help =~ /\Q$_\E\b/ }
			  ('--disable-default-metrics', '--disable-settings-metrics')));
}

sub start_exporter
{
	my ($node, $database, $role) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $log = "$PostgreSQL::Test::Utils::log_path/080_exporter_program.log";

	local $ENV{DATA_SOURCE_NAME} =
	  sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable",
		$node->host, $node->port, $role, $database);
	$exporter = IPC::Run::start(
		[
			$program, "--web.listen-address=127.0.0.1:$port",
			'--extend.query-path=' . uncached_queries(),
			only_our_metrics()
		],
		'<', \undef, '>', $log, '2>&1');
	$url = "http://127.0.0.1:$port/metrics";
	return $log;
}

# All that is exported now: values by name and labels but those that are the
# same everywhere.  Waits for the exporter to answer.
sub scrape
{
	my $http = HTTP::Tiny->new(timeout => 30);
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my ($response, %metrics);

	while (1)
	{
		$response = $http->get($url);
		last if $response->{success} || time > $deadline;
		usleep(50_000);
	}
	die "the exporter does not answer: $response->{status} $response->{content}"
	  unless $response->{success};

	foreach my $line (split /\n/, $response->{content})
	{
		next unless $line =~ /^(\w+)(?:\{(.*)\})? (\S+)$/;
		my ($name, $labels, $value) = ($1, $2 // '', $3);
		my @labels = grep { !/^(?:server|datname)=/ } $labels =~ /\w+="(?:[^"\\]|\\.)*"/g;
		$metrics{ $name . (@labels ? '{' . join(',', @labels) . '}' : '') } =
		  $value;
	}
	return \%metrics;
}

# The name of a metric of a datamart: its label is the last one, by alphabet.
sub metric_of
{
	my ($metric, $users_table) = @_;
	my $label = 'users_table="' . ($users_table // 'dwh.dimension_users') . '"';

	return 'datamart_users_'
	  . ($metric =~ /\}$/ ? $metric =~ s/\}$/,$label}/r : "$metric\{$label}");
}

# Those that the test knows the value of.
sub metrics_are
{
	my ($metrics, $expected, $what, $users_table) = @_;
	my %got = map { $_ => $metrics->{ metric_of($_, $users_table) } } keys %$expected;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply(\%got, $expected, $what);
	is($metrics->{pg_exporter_last_scrape_error},
		'0', "$what: without errors");
	return;
}

my $node = new_node('exporter', init => { extra => [ '--encoding=UTF8', '--no-locale' ] });
my ($gate, $client, $metrics);

add_warehouse($node, 'w', 5);
behave($node, 'w', 3, 'DO $do$ BEGIN RAISE \'bad data\' USING ERRCODE = \'DM001\'; END $do$');
$node->safe_psql('w', <<'SQL');
CREATE ROLE prometheus LOGIN IN ROLE pg_monitor;
ALTER ROLE prometheus SET datamart_users.freshness_objective = 'critical = 1h';
GRANT USAGE ON SCHEMA dwh TO prometheus;
GRANT SELECT (action_dimension_id_user, action_at) ON dwh.facts TO prometheus;
GRANT SELECT (dimension_user_id, modified) ON dwh.dimension_users TO prometheus;
SQL
my $log = start_exporter($node, 'w', 'prometheus');

#
# Before: it waits, and nothing else is known.
#
$metrics = scrape();
metrics_are(
	$metrics,
	{
		'running_cycles' => undef,
		'backlog_waiting{priority="critical"}' => 5,
		'backlog_waiting{priority="lowest"}' => 0,
		'backlog_held{priority="critical"}' => 0,
		'backlog_oldest_age_seconds{priority="critical"}' => 0,
		'backlog_objective_seconds{priority="critical"}' => 3600,
		'backlog_objective_seconds{priority="high"}' => 'NaN',
		'backlog_overdue{priority="critical"}' => 0,
		'backlog_overdue{priority="high"}' => 0,
		'last_cycle_id' => undef,
		'today_cycles' => undef,
		'failures_users' => undef,
		'check_status{item="server"}' => 0,
		'check_status{item="facts index"}' => 0,
		'check_status{item="last cycle"}' => 0,
		'check_status{item="privileges"}' => 2,
	},
	'before');

#
# During: two workers are at the gate, which is a lock.
#
$gate = hold_gate($node, 'w');
$client = start_psql($node, 'w', 'SELECT status FROM datamart_users_run_cycle(NULL, 2)');
wait_for_gate($node, 'w', 2);
$metrics = scrape();
metrics_are(
	$metrics,
	{
		'running_cycles' => 1,
		'running_found' => 5,
		'running_done' => 0,
		'running_workers' => 2,
		'running_blocked_workers' => 2,
		'last_cycle_id' => undef,
		'today_cycles' => 0,
		'failures_users' => 0,
		'backlog_waiting{priority="critical"}' => 5,
		'check_status{item="locks"}' => 1,
		'check_status{item="last cycle"}' => 0,
		'check_status{item="privileges"}' => 0,
	},
	'during');
cmp_ok($metrics->{metric_of('running_longest_refresh_seconds')},
	'>', 0, 'a refresh is under way');
cmp_ok($metrics->{metric_of('running_elapsed_seconds')},
	'>=', $metrics->{metric_of('running_longest_refresh_seconds')},
	'for no longer than the cycle');

# The report of a cycle that is running.
like(
	$node->safe_psql('w', 'SELECT datamart_users_report()'),
	qr/\ACycle 1: working since [\d.]+ m?s
  started [\d :+-]+ by \w+
  called by application caller
  users table dwh.dimension_users
  asked for 2 workers

  \[(?:\xe2\x96\x91){46}\] 0 %

    backlog      found  processed     failed    skipped   deferred
          5          5          0          0          0          0
  5 of the backlog still wait; held by back-off now: 0

Workers .*
     1 +\d+  refreshing +[12]  critical +[\d.]+ m?s  process \d+
     2 +\d+  refreshing +[12]  critical +[\d.]+ m?s  process \d+\z/,
	'report of a running cycle');
is( $node->safe_psql('w', "SELECT detail FROM datamart_users_check() WHERE item = 'locks'"),
	'2 workers wait for locks of process '
	  . $node->safe_psql('w',
		'SELECT pid FROM pg_locks WHERE locktype = \'advisory\' AND mode = \'ExclusiveLock\' AND granted AND classid = '
		  . DatamartUsersTest::GATE),
	'the doctor names who holds the workers up');

#
# After.
#
open_gate($gate);
is((finish($client))[1], 'completed', 'cycle ends');
$metrics = scrape();
metrics_are(
	$metrics,
	{
		'running_cycles' => 0,
		'running_done' => 0,
		'running_time_left_seconds' => 'NaN',
		'running_blocked_workers' => 0,
		'last_cycle_id' => 1,
		'last_cycle_found' => 5,
		'last_cycle_processed' => 4,
		'last_cycle_failed' => 1,
		'last_cycle_workers' => 2,
		'last_cycle_status_current{status="completed"}' => 1,
		'last_cycle_status_current{status="failed"}' => 0,
		'drain_backlog{period="day"}' => 1,
		'drain_inflow{period="day"}' => 0,
		'drain_outflow{period="day"}' => 0,
		'drain_failing{period="day"}' => 1,
		'drain_drained_in_seconds{period="day"}' => 0,
		'last_cycle_priority_found{priority="critical"}' => 5,
		'last_cycle_priority_processed{priority="critical"}' => 4,
		'today_cycles' => 1,
		'today_processed' => 4,
		'today_failed' => 1,
		'backlog_waiting{priority="critical"}' => 1,
		'backlog_held{priority="critical"}' => 1,
		'failures_users' => 1,
		'failures_held' => 1,
		'failures_max_attempts' => 1,
		'failures_by_sqlstate_users{sqlstate="DM001"}' => 1,
		'check_status{item="locks"}' => 0,
		'check_status{item="failures"}' => 0,
	},
	'after');
cmp_ok($metrics->{metric_of('last_cycle_elapsed_seconds')},
	'>', 0, 'it took its time');
cmp_ok($metrics->{metric_of('last_cycle_p99_seconds')},
	'>=', $metrics->{metric_of('last_cycle_p50_seconds')},
	'percentiles are in order');
cmp_ok($metrics->{metric_of('last_cycle_priority_p99_seconds{priority="critical"}')},
	'>=', $metrics->{metric_of('last_cycle_priority_p50_seconds{priority="critical"}')},
	'those of a priority, too');
is( $node->safe_psql('w', <<'SQL'), '5|t|t|t', 'the histogram of a priority has all of its refreshes');
SELECT (SELECT sum(n) FROM unnest(p.bucket_count) AS n), p.bucket_count = a.bucket_count, (p.p50, p.p95, p.p99) = (a.p50, a.p95, a.p99), p.p99 <= p.max_time
  FROM datamart_users_cycle_priorities p
  JOIN datamart_users_cycle_profiles a USING (cycle_id)
SQL
cmp_ok(
	abs($metrics->{metric_of('last_cycle_finished_timestamp_seconds')} - time),
	'<', 600, 'it has just ended');

#
# Who has waited for too long.  The one that failed is held, and no reason to
# wake anybody.
#
$node->safe_psql('w', "UPDATE dwh.dimension_users SET modified = true; UPDATE datamart_users_failures SET next_attempt_at = now() + interval '1 day'");
$node->safe_psql('w', 'SELECT FROM datamart_users_run_cycle(1, 1)');
$node->safe_psql('w', "UPDATE datamart_users_seen SET first_seen_at = first_seen_at - dimension_user_id * interval '1200 s'");
$metrics = scrape();
metrics_are($metrics, { 'backlog_waiting{priority="critical"}' => 4, 'backlog_held{priority="critical"}' => 1, 'backlog_overdue{priority="critical"}' => 2 }, 'overdue');
cmp_ok(int($metrics->{ metric_of("backlog_${_}_seconds{priority=\"critical\"}") } / 1200), '==', { oldest_age => 5, p50_age => 4, p95_age => 5 }->{$_}, $_)
  for qw(oldest_age p50_age p95_age);
$node->safe_psql('w', 'SELECT FROM datamart_users_run_cycle(4, 1)');
$node->safe_psql('w', 'DELETE FROM datamart_users_cycles WHERE cycle_id > 1; ALTER TABLE datamart_users_cycles ALTER cycle_id RESTART WITH 2');

#
# A second datamart: neither counts for the other.
#
$node->safe_psql('w', <<"SQL");
CREATE TABLE dwh."Länder" (dimension_user_id integer PRIMARY KEY, modified boolean);
INSERT INTO dwh."Länder" SELECT i, true FROM generate_series(1, 3) i;
SQL
my @countries = (q(SET datamart_users.users_table = 'dwh."Länder"'), q(SET datamart_users.procedure = 'dwh.update_datamart_user'));
my $label = 'dwh.\\"Länder\\"';
$gate = hold_gate($node, 'w');
$client = start_psql($node, 'w', [ @countries, 'SELECT status FROM datamart_users_run_cycle(NULL, 1)' ]);
wait_for_gate($node, 'w', 1);
$metrics = scrape();
metrics_are($metrics, { 'running_cycles' => 0, 'running_workers' => 0, 'running_blocked_workers' => 0, 'last_cycle_id' => 1 }, 'the first one');
metrics_are($metrics, { 'running_cycles' => 1, 'running_found' => 3, 'running_workers' => 1, 'running_blocked_workers' => 1, 'last_cycle_id' => undef }, 'the second one', $label);
open_gate($gate);
finish($client);
$metrics = scrape();
metrics_are(
	$metrics,
	{
		'last_cycle_id' => 1,
		'last_cycle_found' => 5,
		'today_cycles' => 1,
		'today_failed' => 1,
		'failures_users' => 1,
		'failures_by_sqlstate_users{sqlstate="DM001"}' => 1,
		'last_cycle_status_current{status="completed"}' => 1,
		'check_status{item="last cycle"}' => 0,
	},
	'the first one, afterwards');
metrics_are(
	$metrics,
	{
		'running_cycles' => 0,
		'last_cycle_id' => 2,
		'last_cycle_found' => 3,
		'last_cycle_status_current{status="completed"}' => 1,
		'last_cycle_priority_found{priority="critical"}' => 3,
		'today_cycles' => 1,
		'today_processed' => 2,
		'today_failed' => 1,
		'failures_users' => 1,
		'failures_by_sqlstate_users{sqlstate="DM001"}' => 1,
		'backlog_waiting{priority="critical"}' => undef,
	},
	'the second one, afterwards', $label);
$node->safe_psql('w', 'DROP TABLE dwh."Länder"');
$metrics = scrape();
metrics_are($metrics, { 'running_cycles' => undef, 'last_cycle_id' => undef, 'today_cycles' => undef, 'failures_users' => undef }, 'a datamart that has gone', $label);
is($metrics->{pg_exporter_last_scrape_error}, '0', 'whose history raises no error');

#
# Every metric of the file is exported, and explained in the documentation;
# every alert is about metrics that there are.
#
my %exported = map { s/\{.*//r => 1 } grep { /^datamart_users_/ } keys %$metrics;
my @defined;
foreach my $block (split /^(?=\w+:$)/m, slurp_file("$source/monitoring/queries.yaml"))
{
	next unless $block =~ /^(\w+):$/m;
	my $prefix = $1;
	while ($block =~ /^    - (\w+):\n        usage: "(\w+)"/mg)
	{
		push @defined, "${prefix}_$1" unless $2 eq 'LABEL';
	}
}
is_deeply([ sort keys %exported ], [ sort @defined ], 'all metrics are exported');

my $documentation = slurp_file("$source/doc/monitoring.md");
is_deeply([ grep { index($documentation, "`$_`") < 0 } @defined ],
	[], 'all metrics are documented');
my @used = grep { /^datamart_users_/ }
  map { /(\w+)/g } slurp_file("$source/monitoring/alerts.yaml") =~ /^ +expr: (.*)$/mg;
is_deeply([ grep { !$exported{$_} } @used ], [], 'all metrics of alerts exist');
cmp_ok(scalar @used, '>', 10, 'and they are many');

# A role without a look at the warehouse gets all the rest.
$node->safe_psql('w', 'REVOKE USAGE ON SCHEMA dwh FROM prometheus');
$metrics = scrape();
is($metrics->{metric_of('failures_users')}, 1, 'without the warehouse: the history');
is($metrics->{metric_of('backlog_waiting{priority="critical"}')},
	undef, 'and no backlog');

$node->stop;
done_testing();
