# Processes that start slowly, and one that does not end: whatever the order in
# which postmaster, coordinator and workers come to their turn, one cycle runs
# at a time, and everybody can tell that it does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A root without mounts has none.
plan skip_all => 'needs /proc to see that a process has stopped' unless -r '/proc/self/stat';
use Time::HiRes qw(usleep time);

# Stops the postmaster just after it has forked a process, or that process,
# whenever the file of that name is there; a machine that is busy does the same.
my $fork = <<'C';
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static int
take(const char *name)
{
	char		path[1024];

	snprintf(path, sizeof(path), "%s/%s", getenv("FORK_TOKENS"), name);
	return unlink(path) == 0;
}

pid_t
fork(void)
{
	pid_t		(*real_fork) (void) = (pid_t (*) (void)) dlsym(RTLD_NEXT, "fork");
	int			hold_child = take("child");
	int			hold_parent = take("parent");
	pid_t		pid = real_fork();

	if (pid == 0 ? hold_child : hold_parent)
		raise(SIGSTOP);
	return pid;
}
C

my $tokens = PostgreSQL::Test::Utils::tempdir;
my $library = "$tokens/fork.so";
append_to_file("$tokens/fork.c", $fork);
plan skip_all => 'no C compiler for a fork that can be held'
  if system_log('cc', '-shared', '-fPIC', '-o', $library, "$tokens/fork.c", '-ldl') != 0;

my $node = new_node('slow_start', stopped => 1);
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{FORK_TOKENS} = $tokens;
	$node->start;
}
add_warehouse($node, 'w', 4);

my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];

# A connection from before, as nobody can connect while the postmaster stands.
my $one = $node->background_psql('w', on_error_stop => 0);
my ($gate, $cycle, $next, $pid, $offset, $locker);

# The next process that is forked does not get on, or the postmaster does not.
sub hold_next
{
	append_to_file("$tokens/$_[0]", '');
	return;
}

# What /proc says of a process, '' if it has gone.
sub stat_of
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/stat" or return '';
	return <$file> // '';
}

# A stopped process shows a T.
sub wait_for_stop
{
	my ($pid, $what) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	while (stat_of($pid) !~ /\) T /)
	{
		die "$what does not stop" if time > $deadline;
		usleep(10_000);
	}
	return;
}

# As wait_for_sql(), in a session that is there already.
sub wait_in
{
	my ($session, $sql, $what) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	while ($session->query($sql) ne 't')
	{
		die "timed out waiting until $what" if time > $deadline;
		usleep(20_000);
	}
	return;
}

sub at_gate_sql
{
	my ($workers) = @_;

	return "SELECT count(*) = $workers FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = "
	  . DatamartUsersTest::GATE;
}

sub child_of_postmaster
{
	my ($child) = grep { stat_of($_) =~ /\) T $postmaster / }
	  map { m{/proc/(\d+)/stat$} } glob '/proc/[0-9]*/stat';

	return $child;
}

# What the tests of this kind must not go by.
my $unknown = 'SELECT count(*) FILTER (WHERE backend_type IS NULL), '
  . q(count(*) FILTER (WHERE backend_type LIKE 'datamart_users %') FROM pg_stat_activity);

#
# The postmaster stands since it has forked the coordinator.
#
for my $end ('go', 'cancel')
{
	reset_warehouse($node, 'w', 4);
	$gate = hold_gate($node, 'w');
	hold_next('parent');
	$cycle = $one->query('SELECT datamart_users_start_cycle(NULL, 1)');
	like($cycle, qr/^\d+$/, 'a cycle starts without the postmaster');
	wait_for_stop($postmaster, 'the postmaster');
	wait_in($one, at_gate_sql(1), 'the coordinator is at the gate');
	is($one->query($unknown), '1|0', 'pg_stat_activity does not know whose the process is');
	is($one->query(workers_sql()), '1', 'its locks tell');
	is($one->query('SELECT cycle_id, done FROM datamart_users_progress'), "$cycle|0", 'and it is found');
	is($one->query("SELECT status FROM datamart_users_wait_cycle($cycle, '0')"), 'running', 'by its id, too');
	is($one->query("SELECT datamart_users_start_cycle();\n\\echo :SQLSTATE"), '55006', 'no second one');
	if ($end eq 'go')
	{
		$gate->query('SELECT pg_advisory_unlock_all()');
		is($one->query("SELECT status, processed FROM datamart_users_wait_cycle($cycle)"), 'completed|4', 'it completes');
	}
	else
	{
		is($one->query('SELECT datamart_users_cancel_cycle()'), 't', 'it is cancelled');
		is($one->query("SELECT status, processed FROM datamart_users_wait_cycle($cycle)"), 'cancelled|0', 'and ends');
	}
	is($one->query(pids_sql()), '', 'its locks are gone');
	kill 'CONT', $postmaster;
	open_gate($gate);
	check_sane($node, 'w', "postmaster stopped at the coordinator, $end");
}

#
# It stands since it has forked a worker; the coordinator is terminated.
#
sub start_with_held
{
	my ($whom) = @_;

	reset_warehouse($node, 'w', 4);
	$gate = hold_gate($node, 'w');
	$locker = $node->background_psql('w');
	$locker->query_safe('BEGIN');
	$locker->query_safe('LOCK TABLE dwh.facts IN ACCESS EXCLUSIVE MODE');
	$cycle = $one->query('SELECT datamart_users_start_cycle(NULL, 2)');
	wait_in($one, "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND pid IN (@{[pids_sql('coordinator')]})", 'the coordinator waits');
	hold_next($whom);
	$locker->query_safe('COMMIT');
	return;
}

start_with_held('parent');
wait_for_stop($postmaster, 'the postmaster');
wait_in($one, at_gate_sql(2), 'both workers are at the gate');
is($one->query($unknown), '1|1', 'pg_stat_activity does not know the worker');
is($one->query(workers_sql()), '2', 'its locks tell');
is($one->query("SELECT string_agg(worker || ' ' || state, ',' ORDER BY worker) FROM datamart_users_workers"),
	'1 refreshing,2 refreshing', 'it is shown at work');
is($one->query("SELECT pg_terminate_backend(pid) FROM (@{[pids_sql('coordinator')]}) p"), 't', 'the coordinator is terminated');
wait_in($one, "SELECT (@{[workers_sql()]}) = 0", 'both have gone');
kill 'CONT', $postmaster;
$locker->quit;
open_gate($gate);
is($node->safe_psql('w', 'SELECT status, processed FROM datamart_users_run_cycle(NULL, 2)'), 'completed|4', 'the next cycle does it all');
check_sane($node, 'w', 'postmaster stopped at a worker');

#
# A worker that was forked, but comes to nothing until its coordinator has died
# and the next cycle is at work.
#
start_with_held('child');
wait_in($one, at_gate_sql(1), 'the coordinator is at the gate');
my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
usleep(10_000) until defined($pid = child_of_postmaster()) || time > $deadline;
is($one->query("SELECT pg_terminate_backend(pid) FROM (@{[pids_sql('coordinator')]}) p"), 't', 'the coordinator is terminated');
wait_in($one, "SELECT count(*) = 0 FROM (@{[pids_sql()]}) p", 'its locks are gone');
$next = $one->query('SELECT datamart_users_start_cycle(NULL, 1)');
cmp_ok($next, '>', $cycle, 'the next cycle begins');
wait_in($one, at_gate_sql(1), 'it is at work');
kill 'CONT', $pid;
$deadline = time + $PostgreSQL::Test::Utils::timeout_default;
usleep(10_000) while -e "/proc/$pid" && time < $deadline;
ok(!-e "/proc/$pid", 'the worker of the cycle before ends at once');
is($one->query(at_gate_sql(1)), 't', 'and has done nothing');
is($one->query('SELECT cycle_id FROM datamart_users_progress'), $next, 'the cycle does not notice');
$locker->quit;
open_gate($gate);
is($one->query("SELECT status, processed FROM datamart_users_wait_cycle($next)"), 'completed|4', 'it does it all');
is($node->safe_psql('w', 'SELECT count(*), max(refreshes) FROM dwh.datamartusers'), '4|1', 'and each once');
check_sane($node, 'w', 'worker too late');

#
# A worker that does not end with its coordinator: the next cycle waits for it,
# but not for ever.
#
for my $patience (1, 0)
{
	reset_warehouse($node, 'w', 4);
	$gate = hold_gate($node, 'w');
	$cycle = $one->query('SELECT datamart_users_start_cycle(NULL, 2)');
	wait_in($one, at_gate_sql(2), 'both workers are at the gate');
	$pid = $one->query(pids_sql('worker'));
	kill 'STOP', $pid;
	wait_for_stop($pid, 'the worker');
	is($one->query("SELECT pg_terminate_backend(pid) FROM (@{[pids_sql('coordinator')]}) p"), 't', 'the coordinator is terminated');
	wait_in($one, "SELECT count(*) = 1 FROM (@{[pids_sql()]}) p", 'the worker is left');
	$offset = -s $node->logfile;
	$next = $one->query('SELECT datamart_users_start_cycle(NULL, 2)');
	cmp_ok($next, '>', $cycle, 'the next cycle begins');
	is($one->query('SELECT phase FROM datamart_users_progress'), 'prioritising', 'and waits for the worker');
	is($one->query("SELECT status, message FROM datamart_users_cycles WHERE cycle_id = $cycle"),
		'aborted|The coordinator of the cycle was terminated.', 'the one before is over');
	if ($patience)
	{
		kill 'CONT', $pid;
		wait_in($one, at_gate_sql(2), 'both workers of the next cycle are at the gate');
		unlike(slurp_file($node->logfile, $offset), qr/have not ended within/, 'until that has ended');
	}
	else
	{
		$node->wait_for_log(qr/workers of an earlier cycle have not ended within \d+ seconds/, $offset);
		$node->wait_for_log(qr/cycle $next in database "\w+": using 2 workers/, $offset);
		pass('but not for ever');
		kill 'CONT', $pid;
	}
	open_gate($gate);
	is($one->query("SELECT status, processed FROM datamart_users_wait_cycle($next)"), 'completed|4', 'it completes');
	check_sane($node, 'w', 'worker that stays');
}

#
# That the server went down is known to an owner, too, who may not look at
# other sessions.
#
$node->safe_psql('w', <<'SQL');
CREATE ROLE low;
DO $$
DECLARE t regclass;
BEGIN
	FOR t IN SELECT c.oid FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
			  WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND c.relkind = 'r'
				AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'datamart_users')
	LOOP
		EXECUTE format('ALTER TABLE %s OWNER TO low', t);
	END LOOP;
END$$;
SQL
for my $what ('The coordinator of the cycle was terminated.', 'The server went down during the cycle.')
{
	reset_warehouse($node, 'w', 4);
	$gate = hold_gate($node, 'w');
	$cycle = $node->safe_psql('w', 'SELECT datamart_users_start_cycle(NULL, 2)');
	wait_for_gate($node, 'w', 2);
	$pid = $node->safe_psql('postgres', pids_sql('coordinator'));
	$offset = -s $node->logfile;
	kill $what =~ /server/ ? 'KILL' : 'TERM', $pid;
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset) if $what =~ /server/;
	wait_for_server($node);
	wait_for_idle($node);
	open_gate($gate);
	is($node->safe_psql('w', 'SELECT status FROM datamart_users_run_cycle()'), 'completed', 'the next cycle');
	is($node->safe_psql('w', "SELECT message FROM datamart_users_cycles WHERE cycle_id = $cycle"), $what, 'tells how the one before ended');
}

eval { $one->quit };
$node->stop;
done_testing();
