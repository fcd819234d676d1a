# Every wait of a cycle has a way out: behind whoever drops or locks something
# at any time of it, and for a standby that is away.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node('waits', init => { allows_streaming => 1 });
my ($caller, $dropper, $locker, $gate, $stdout, $stderr, $status, $start);

add_warehouse($node, 'w', 4);

my $run = 'SELECT status, processed, failed FROM datamart_users_run_cycle(NULL, 2)';

# What the warehouse was, with the extension again.
sub recover
{
	my $users = shift // 4;

	$node->safe_psql('w', 'CREATE EXTENSION IF NOT EXISTS datamart_users');
	reset_warehouse($node, 'w', $users);
	return;
}

# A session in the midst of a transaction.
sub hold_locks
{
	my @statements = @_;
	my $session = $node->background_psql('w');

	$session->query_safe($_) for 'BEGIN', @statements;
	return $session;
}

sub wait_until_blocked
{
	my ($name) = @_;

	wait_for_sql($node, 'w',
		"SELECT count(*) > 0 FROM pg_locks JOIN pg_stat_activity USING (pid)"
		  . " WHERE NOT granted AND application_name LIKE '$name'", "$name waits for a lock");
	return;
}

sub has_extension
{
	return $node->safe_psql('w', "SELECT count(*) FROM pg_extension WHERE extname = 'datamart_users'");
}

#
# DROP EXTENSION, and what comes to the same
#

# While it prioritises: the others are started behind the one who drops.
for my $drop ('DROP EXTENSION datamart_users', 'DROP EXTENSION datamart_users CASCADE')
{
	recover();
	$locker = hold_locks('LOCK TABLE dwh.facts IN ACCESS EXCLUSIVE MODE');
	$caller = start_psql($node, 'w', $run);
	wait_until_blocked('datamart_users cycle % worker 1');
	$dropper = start_psql($node, 'w', $drop, name => 'dropper');
	wait_until_blocked('dropper');
	$locker->quit;
	(undef, $stdout, $stderr) = finish($caller);
	is($stdout, 'completed|4|0', "$drop in the prioritisation: the coordinator does it all");
	(undef, undef, $stderr) = finish($dropper);
	is(sqlstate($stderr), '', 'and it is dropped afterwards');
	is(has_extension(), 0, 'and gone');
	wait_for_idle($node);
}

# While they work.
recover();
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', $run);
wait_for_gate($node, 'w', 2);
$dropper = start_psql($node, 'w', 'DROP EXTENSION datamart_users', name => 'dropper');
wait_until_blocked('dropper');
open_gate($gate);
(undef, $stdout, $stderr) = finish($caller);
is($stdout, 'completed|4|0', 'DROP EXTENSION while they work: waits for the cycle');
is((finish($dropper))[0], 0, 'and drops it then');
is(has_extension(), 0, 'it is gone');

# Its client gives up: nothing is dropped.
recover();
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', $run);
wait_for_gate($node, 'w', 2);
$dropper = start_psql($node, 'w', [ q(SET statement_timeout = '300ms'), 'DROP EXTENSION datamart_users' ]);
(undef, undef, $stderr) = finish($dropper);
is(sqlstate($stderr), '57014', 'it gives up');
open_gate($gate);
is((finish($caller))[1], 'completed|4|0', 'and the cycle is as if it had not been there');

# An error takes the lock from a worker that is alone.
recover();
behave($node, 'w', 1, 'SELECT 1 / 0');
$gate = hold_gate($node, 'w', 2);
my $second = hold_gate($node, 'w', 3);
$caller = start_psql($node, 'w', $run =~ s/2\)/1)/r);
wait_for_gate($node, 'w', 1);
is(has_extension(), 1, 'one that works alone');
$node->safe_psql('w', q(INSERT INTO dwh.behaviour VALUES (3, 'SELECT 1 / 0')));
$dropper = start_psql($node, 'w', 'BEGIN; DROP EXTENSION datamart_users; COMMIT', name => 'dropper');
wait_until_blocked('dropper');
open_gate($gate);
open_gate($second);
(undef, $stdout, $stderr) = finish($caller);
like(sqlstate($stderr), qr/^55000$/, 'an error lets DROP EXTENSION in, and that ends the cycle with an error');
like($stderr, qr/is being dropped|is not installed/, 'which says so');
is((finish($dropper))[0], 0, 'which is done');
wait_for_idle($node);

# One who has locked what a worker wants, and waits for the coordinator, which
# waits for the worker: the server sees two of these waits.
for my $what ('dwh.dimension_users', 'dwh.datamartusers', 'pg_catalog.pg_authid', 'pg_catalog.pg_extension', 'pg_catalog.pg_proc')
{
	recover();
	$gate = hold_gate($node, 'w', 1);
	$caller = start_psql($node, 'w', $run);
	wait_for_gate($node, 'w', 1);
	wait_for_sql($node, 'w', 'SELECT count(*) = 3 FROM dwh.dimension_users WHERE NOT modified', 'one is through');
	$dropper = start_psql($node, 'w',
		[ q(SET deadlock_timeout = '100ms'), "BEGIN; LOCK TABLE $what; DROP EXTENSION datamart_users; COMMIT" ],
		name => 'dropper');
	wait_for_sql($node, 'w', q(SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'dropper' AND wait_event_type = 'Lock'),
		'the dropper waits') unless $what =~ /pg_/;
	open_gate($gate);
	($status, $stdout, $stderr) = finish($caller);
	finish($dropper);
	wait_for_idle($node);
	ok($stdout =~ /^completed\|/ || sqlstate($stderr) =~ /^(?:40P01|55P03|55000|42P01)$/,
		"LOCK TABLE $what; DROP EXTENSION: all of them go on")
	  or diag("$stdout\n$stderr");
}

# The same where an error has taken the extension from the worker, so that the
# server sees only one of the three waits: worker 2 waits for the one who drops,
# he for the coordinator, and that one for worker 2.
recover(2);
$node->safe_psql('w', 'CREATE SEQUENCE dwh.attempts');
behave($node, 'w', $_, <<'SQL') for 1, 2;
DO $do$
BEGIN
	IF current_setting('application_name') LIKE '% worker 2' THEN
		IF nextval('dwh.attempts') = 1 THEN
			RAISE EXCEPTION 'once more' USING ERRCODE = '40001';
		END IF;
		PERFORM pg_advisory_xact_lock(77);
	END IF;
END $do$
SQL
$gate = hold_gate($node, 'w');
$dropper = hold_locks('SELECT pg_advisory_xact_lock(77)');
$caller = start_psql($node, 'w', $run);
wait_for_gate($node, 'w', 1);
wait_until_blocked('datamart_users cycle % worker 2');
my $log = -s $node->logfile;
$dropper->query_until(qr/dropping/, "\\echo dropping\nDROP EXTENSION datamart_users;\nCOMMIT;\n");
wait_for_sql($node, 'w', q(SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'object' AND NOT granted), 'somebody wants to drop the extension');
open_gate($gate);
(undef, $stdout, $stderr) = finish($caller);
is(sqlstate($stderr), '55000', 'an invisible deadlock with the coordinator: the cycle ends with an error');
wait_for_idle($node);
wait_for_sql($node, 'w', q(SELECT count(*) = 0 FROM pg_extension WHERE extname = 'datamart_users'), 'the extension is dropped');
like(slurp_file($node->logfile, $log), qr/lets somebody drop the extension/, 'because the coordinator has got out of the way');
is($node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), '0', 'what was at work is committed');
$dropper->quit;

# When it ends.
recover();
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', $run);
wait_for_gate($node, 'w', 2);
$locker = hold_locks('LOCK TABLE datamart_users_cycle_priorities IN ACCESS EXCLUSIVE MODE');
open_gate($gate);
wait_until_blocked('datamart_users cycle % worker 1');
$dropper = start_psql($node, 'w', 'DROP EXTENSION datamart_users', name => 'dropper');
wait_until_blocked('dropper');
$locker->quit;
is((finish($caller))[1], 'completed|4|0', 'DROP EXTENSION at the end: the history is written first');
is((finish($dropper))[0], 0, 'then it is dropped');
wait_for_idle($node);

# DROP SCHEMA CASCADE of the schema that everything is in.
recover();
$node->safe_psql('w', 'DROP EXTENSION datamart_users; CREATE EXTENSION datamart_users SCHEMA dwh');
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', $run =~ s/datamart_users_run/dwh.datamart_users_run/r);
wait_for_gate($node, 'w', 2);
$dropper = start_psql($node, 'w', 'DROP SCHEMA dwh CASCADE', name => 'dropper');
wait_until_blocked('dropper');
open_gate($gate);
(undef, $stdout, $stderr) = finish($caller);
finish($dropper);
ok($stdout =~ /^completed/ || sqlstate($stderr) =~ /^(?:40P01|55P03|55000|42P01|3F000)$/, 'DROP SCHEMA CASCADE: all of them go on')
  or diag("$stdout\n$stderr");
wait_for_idle($node);
$node->safe_psql('w', 'DROP SCHEMA IF EXISTS dwh CASCADE; DROP EXTENSION IF EXISTS datamart_users CASCADE');
add_warehouse($node, 'w', 4);

# What does not want the extension away does not wait.
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', $run);
wait_for_gate($node, 'w', 2);
for my $sql ('ALTER EXTENSION datamart_users ADD FUNCTION dwh.f()',
	'ALTER EXTENSION datamart_users DROP FUNCTION dwh.f()',
	q(COMMENT ON EXTENSION datamart_users IS 'x'),
	'VACUUM FULL datamart_users_failures', 'VACUUM FULL datamart_users_cycles',
	'REINDEX TABLE datamart_users_cycles')
{
	$node->safe_psql('w', 'CREATE OR REPLACE FUNCTION dwh.f() RETURNS integer LANGUAGE sql AS $$SELECT 1$$') if $sql =~ /ADD/;
	is((run_psql($node, 'w', [ q(SET statement_timeout = '30s'), $sql ]))[0], 0, "$sql in the midst of a cycle");
}
open_gate($gate);
is((finish($caller))[1], 'completed|4|0', 'which goes on');

#
# Locked catalogs: a cancel gets through, whatever waits
#
for my $what ('pg_extension', 'pg_authid', 'pg_proc', 'datamart_users_cycles', 'datamart_users_failures', 'dwh.dimension_users')
{
	recover();
	behave($node, 'w', 2, 'SELECT 1 / 0');
	$gate = hold_gate($node, 'w', 1);
	$caller = start_psql($node, 'w', $run, name => 'caller');
	wait_for_gate($node, 'w', 1);
	$locker = hold_locks("LOCK TABLE $what IN ACCESS EXCLUSIVE MODE");
	open_gate($gate);
	$start = time;
	kill 'INT', $caller->{pid};
	(undef, undef, $stderr) = finish($caller);
	like(sqlstate($stderr), qr/^(?:57014)?$/, "Ctrl-C while $what is locked: the error, unless it was through");
	cmp_ok(time - $start, '<', 60, 'and soon');
	$locker->quit;
	wait_for_idle($node);
	is($node->safe_psql('w', q(DELETE FROM dwh.behaviour; SELECT status FROM datamart_users_run_cycle())), 'completed', 'the next one goes well');
}

#
# cancel_cycle() does not wait without a limit
#
recover();
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', $run);
wait_for_gate($node, 'w', 2);
my $coordinator = worker_pid($node, 1);
kill 'STOP', $coordinator;
($status, $stdout, $stderr) = run_psql($node, 'w', 'SELECT datamart_users_cancel_cycle()');
kill 'CONT', $coordinator;
is($stdout, 't', 'a process that does not answer: the cycle is told');
like($stderr, qr/WARNING:.*has not stopped within/, 'and who asked is told, too');
finish($caller);
open_gate($gate);
wait_for_idle($node);
is(last_cycle($node, 'w', 'status'), 'cancelled', 'it is cancelled when the process goes on');

#
# A standby that is away
#
recover();
$node->append_conf('postgresql.conf', q(synchronous_standby_names = 'away'));
$node->reload;
wait_for_sql($node, 'w', q(SELECT current_setting('synchronous_standby_names') = 'away'), 'the setting is there');

sub wait_for_standby
{
	my ($what) = @_;

	wait_for_sql($node, 'w',
		q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type LIKE 'datamart_users %'),
		"$what waits for the standby");
	return;
}

my $sync = q(SET synchronous_commit = 'on');
my $async = q(SET synchronous_commit = 'off');

for my $how ('Ctrl-C', 'pg_terminate_backend', 'cancel_cycle')
{
	# In the first commit of the cycle, and in the last one.
	for my $last (0, 1)
	{
		my $what = $how . ($last ? ' at the end' : ' at the beginning');
		my ($kept, $expected);

		$node->safe_psql('w', "$async; UPDATE dwh.dimension_users SET modified = TRUE");
		if ($last)
		{
			# The running row is not to wait, the final one is.
			$node->safe_psql('postgres', q(ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()));
			wait_for_sql($node, 'w', q(SELECT current_setting('synchronous_standby_names') = ''), 'no standby');
			$gate = hold_gate($node, 'w');
		}
		$caller = start_psql($node, 'w', [ $sync, $run ], name => 'caller');
		if ($last)
		{
			wait_for_gate($node, 'w', 2);
			$node->safe_psql('postgres', q(SET synchronous_commit = 'off'; ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()));
			wait_for_sql($node, 'w', q(SELECT current_setting('synchronous_standby_names') = 'away'), 'the standby is wanted');
			usleep(200_000);
			open_gate($gate);
		}
		wait_for_standby($what);
		$start = time;
		if ($how eq 'Ctrl-C') { kill 'INT', $caller->{pid}; }
		elsif ($how eq 'cancel_cycle')
		{
			if (!$last)
			{
				# Nobody sees that one yet but its caller.
				$node->safe_psql('postgres', 'SELECT pg_cancel_backend(' . backend_pid($node, 'caller') . ')');
			}
			else
			{
				(undef, $stdout, $stderr) = run_psql($node, 'w', 'SELECT datamart_users_cancel_cycle()');
				is($stdout, 't', "$what: it says so");
				like($stderr, qr/WARNING:.*canceling wait for synchronous replication/, "$what: with the warning");
			}
		}
		else { $node->safe_psql('postgres', "SELECT $how(" . backend_pid($node, 'caller') . ')'); }
		(undef, $stdout, $stderr) = finish($caller);
		like($stderr, qr/canceling wait for synchronous replication/, "$what: the caller gets the warning")
		  unless $how eq 'pg_terminate_backend';
		wait_for_idle($node);
		cmp_ok(time - $start, '<', 30, "$what: it ends");
		is($node->safe_psql('w', "$async; SELECT status FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 1"),
			$last ? 'completed' : 'cancelled', "$what: history");
	}
}
$node->safe_psql('w', "$async; UPDATE dwh.dimension_users SET modified = TRUE");
is($node->safe_psql('w', "$async; $run"), 'completed|4|0', 'who does not wait for a standby is not in the way of it');

$node->stop('immediate');
done_testing();
