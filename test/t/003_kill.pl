# Processes and servers that are shot in the midst of a cycle.  Nothing that
# was reported is lost, nobody is left over, and the next cycle goes on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use POSIX ();
use Time::HiRes qw(time);

use constant PROMPTLY => 30;

# Their numbers make a jump in a crash, as a sequence does.
my $run = 'SELECT status, found, processed, failed, workers FROM datamart_users_run_cycle(NULL, 2)';
my $columns = 'status, found, processed, failed, workers';

# Asynchronous commits stay in memory until somebody flushes them.
my $node = new_node('kill', conf => <<'CONF');
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
CONF
my ($gate, $caller, $start, $stdout, $stderr, $pid, $id);

add_warehouse($node, 'w', 6);
my $cycle;

# Two workers in the midst of a refresh of six.
sub begin
{
	my (%behaviour) = @_;

	reset_warehouse($node, 'w', 6, %behaviour);
	$gate = hold_gate($node, 'w');
	$caller = start_psql($node, 'w', $run);
	wait_for_gate($node, 'w', 2);
	$cycle = last_cycle($node, 'w', 'cycle_id');
	$start = time;
	return;
}

sub signal_sql
{
	my ($function, $pid) = @_;

	is($node->safe_psql('postgres', "SELECT $function($pid)"), 't', "$function($pid)");
	return;
}

sub modified
{
	return $node->safe_psql('w',
		q(SELECT string_agg(dimension_user_id::text, ',' ORDER BY 1) FROM dwh.dimension_users WHERE modified));
}

# The cycle after one that did not get to its end.
sub check_next
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	open_gate($gate);
	is( $node->safe_psql('w',
			'SELECT status, processed = backlog, failed FROM datamart_users_run_cycle(NULL, 2)'),
		"completed|t|0", "$what: the next cycle does what is left");
	is( $node->safe_psql('w',
			'SELECT status, finished_at IS NOT NULL, message IS NOT NULL FROM datamart_users_cycles WHERE cycle_id = '
			  . $cycle),
		'aborted|t|t', "$what: history");
	is(modified(), '', "$what: nobody is left");
	is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_suspects'),
		0, "$what: nobody is suspected");
	check_sane($node, 'w', $what);
	return;
}

#
# A worker
#
for my $function ('pg_cancel_backend', 'pg_terminate_backend')
{
	my $cancel = $function eq 'pg_cancel_backend';

	begin();
	$id = worker_user($node, 2);
	$pid = worker_pid($node, 2);
	signal_sql($function, $pid);
	if ($cancel)
	{
		wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM datamart_users_attempts WHERE outcome = 'deferred'", 'it is written down');
		wait_for_gate($node, 'w', 2);
		is(worker_pid($node, 2), $pid, 'the cancelled worker goes on');
	}
	else
	{
		wait_for_sql($node, 'w', 'SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ' . $pid, 'the worker has gone');
	}
	open_gate($gate);
	(undef, $stdout, $stderr) = finish($caller);
	my $failed = $cancel ? 0 : 1;
	is($stdout, "completed|6|5|$failed|2", "$function of a worker costs one datamart user");
	is(last_cycle($node, 'w', $columns), "completed|6|5|$failed|2", 'history');
	is(modified(), $id, 'the one that it was at');
	is( $node->safe_psql('w', 'SELECT dimension_user_id, attempts, sqlstate, cycle_id, next_attempt_at > now() FROM datamart_users_failures'),
		$cancel ? '' : "$id|1|57P01|$cycle|t", 'failures');
	check_sane($node, 'w', "$function of a worker");
}

# Every worker but the coordinator goes; it does the rest by itself.
begin();
signal_sql('pg_terminate_backend', worker_pid($node, 2));
wait_for_sql($node, 'w', "SELECT (" . workers_sql() . ") = 1", 'the worker has gone');
is(modified(), '1,2,3,4,5,6', 'nothing is done yet');
open_gate($gate);
(undef, $stdout) = finish($caller);
is($stdout, "completed|6|5|1|2", 'the coordinator alone does the rest');
is($node->safe_psql('w', 'SELECT datamart_users_retry()'), 1, 'the failure is lifted');
is($node->safe_psql('w', $run), "completed|1|1|0|1", 'and the next cycle succeeds');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), 0, 'which clears it');

#
# The coordinator
#
begin();
signal_sql('pg_cancel_backend', worker_pid($node, 1));
(undef, undef, $stderr) = finish($caller);
is(sqlstate($stderr), '57014', 'coordinator cancelled: the caller is told');
wait_for_idle($node);
cmp_ok(time - $start, '<', PROMPTLY, 'coordinator cancelled: promptly');
is(last_cycle($node, 'w', $columns), "aborted|6|0|0|2", 'coordinator cancelled: history');
is(modified(), '1,2,3,4,5,6', 'coordinator cancelled: all rolled back');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), 0, 'coordinator cancelled: nobody failed');
check_next('coordinator cancelled');

begin();
signal_sql('pg_terminate_backend', worker_pid($node, 1));
(undef, undef, $stderr) = finish($caller);
is(sqlstate($stderr), '57P01', 'coordinator terminated: the caller is told');
wait_for_idle($node);
cmp_ok(time - $start, '<', PROMPTLY, 'coordinator terminated: promptly');
is(modified(), '1,2,3,4,5,6', 'coordinator terminated: all rolled back');
check_next('coordinator terminated');

# The same for a cycle that nobody waits for.
reset_warehouse($node, 'w', 6);
$gate = hold_gate($node, 'w');
$cycle = $node->safe_psql('w', 'SELECT datamart_users_start_cycle(NULL, 2)');
wait_for_gate($node, 'w', 2);
my $waiter = start_psql($node, 'w', "SELECT status, processed FROM datamart_users_wait_cycle($cycle)");
wait_for_sql($node, 'w',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'caller' AND wait_event = 'Extension'",
	'somebody waits for it');
signal_sql('pg_terminate_backend', worker_pid($node, 1));
(undef, $stdout) = finish($waiter);
is($stdout, 'aborted|0', 'who waits for it is told');
wait_for_idle($node);
check_next('coordinator of its own terminated');

#
# All of them at once, again and again: a process on its way out must not take
# the server with it, whatever comes in between.  So that something may come in
# between they are slowed down: they get what others leave of the processors.
#
my $offset = -s $node->logfile;

sub has_crashed
{
	return slurp_file($node->logfile, $offset) =~ /terminating any other active server processes/;
}

reset_warehouse($node, 'w', 12);
$gate = hold_gate($node, 'w');
my @busy;
for (1 .. 4)
{
	my $child = fork // die "fork: $!";
	if ($child == 0)
	{
		my $end = time + 60;
		1 while time < $end && getppid() != 1;
		POSIX::_exit(0);
	}
	push @busy, $child;
}
for (1 .. 12)
{
	$node->safe_psql('w', 'SELECT datamart_users_start_cycle(NULL, 12)');
	wait_for_gate($node, 'w', 12);
	setpriority(0, $_, 19) for split /\n/, $node->safe_psql('postgres', pids_sql());
	$node->safe_psql('postgres', "SELECT count(pg_terminate_backend(pid)) FROM (@{[pids_sql()]}) p");
	wait_for_idle($node);
	last if has_crashed();
}
kill 'KILL', @busy;
waitpid $_, 0 for @busy;
ok(!has_crashed(), '144 terminated processes: the server did not crash');
$cycle = last_cycle($node, 'w', 'cycle_id');
check_next('all terminated');

#
# kill -9: the server restarts
#
for my $whom ('worker', 'coordinator', 'caller')
{
	begin();
	$pid = $whom eq 'caller' ? backend_pid($node, 'caller') :
	  worker_pid($node, $whom eq 'worker' ? 2 : 1);
	my $postmaster = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
	my $offset = -s $node->logfile;
	kill 'KILL', $pid;
	(undef, undef, $stderr) = finish($caller);
	isnt($stderr, '', "kill -9 of the $whom: the caller is told");
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
	wait_for_server($node);
	is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $postmaster, 'it was a crash of the server, not of the postmaster');
	check_next("kill -9 of the $whom");
}

#
# Immediate stop
#
begin();
$node->stop('immediate');
finish($caller);
open_gate($gate);
$node->start;
check_next('immediate stop');

# What a returned cycle has reported, is there: with the caller's own commits
# asynchronous, and with every worker's.
for my $setting ('on', 'off')
{
	reset_warehouse($node, 'w', 300);
	$node->safe_psql('w', 'CHECKPOINT');
	(undef, $stdout) = run_psql($node, 'w', [ "SET synchronous_commit = $setting", $run ]);
	$node->stop('immediate');
	$node->start;
	is($stdout, "completed|300|300|0|2", 'a cycle of 300');
	is(modified(), '', "survives an immediate stop with synchronous_commit = $setting");
	is(last_cycle($node, 'w', $columns), "completed|300|300|0|2", 'so does its history');
	is($node->safe_psql('w', 'SELECT count(*) FROM dwh.datamartusers'), 300, 'and its work');
	check_sane($node, 'w', 'after an immediate stop');
}

#
# A datamart user that takes the server down
#
my $poison = q(COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID');

reset_warehouse($node, 'w', 6, 3 => $poison);
for my $attempt (1, 2)
{
	my $offset = -s $node->logfile;

	(undef, $stdout, $stderr) = run_psql($node, 'w',
		'SELECT status FROM datamart_users_run_cycle(NULL, 1)');
	isnt($stderr, '', "poison: cycle $attempt takes the server down");
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
	wait_for_server($node);
}
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), 0, 'poison: nobody has failed yet');
is($node->safe_psql('w', 'SELECT status, processed = backlog - 1 FROM datamart_users_run_cycle(NULL, 1)'),
	"completed|t",
	'poison: the third cycle completes for the others')
  or diag($node->safe_psql('w', 'TABLE datamart_users_cycles'));
is(modified(), '3', 'poison: it alone is left');
is( $node->safe_psql('w', 'SELECT dimension_user_id, attempts, sqlstate, next_attempt_at > now() FROM datamart_users_failures'),
	'3|1|57P02|t', 'poison: it has failed');
is( $node->safe_psql('w', "SELECT string_agg(status, ',' ORDER BY cycle_id) FROM (SELECT * FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 3) c"),
	'aborted,aborted,completed', 'poison: history');
check_sane($node, 'w', 'poison');

# It is tried again when its time has come: one crash costs one cycle then.
$node->safe_psql('w', 'SELECT datamart_users_retry(3)');
$node->safe_psql('w', 'DELETE FROM dwh.behaviour');
is($node->safe_psql('w', $run), "completed|1|1|0|1", 'poison: cured');
check_sane($node, 'w', 'cured');

$node->stop;
done_testing();
