# A cycle that is not wanted any more: by its caller, who may be gone, or by
# somebody else who may say so.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# Far more than it takes, far less than anything that would go by by itself.
use constant PROMPTLY => 30;

# A refresh that cannot be cancelled, but by the end of its process; of any
# worker, or of worker 2 alone.
my $swallow = <<'SQL';
DO $do$
BEGIN
	LOOP
		BEGIN
			PERFORM pg_sleep(0.05);
		EXCEPTION WHEN query_canceled THEN
			NULL;
		END;
	END LOOP;
END;
$do$
SQL

(my $swallow_in_2 = $swallow) =~
  s/\bLOOP\b/WHILE current_setting('application_name') LIKE '% worker 2' LOOP/;

my $run = 'SELECT * FROM datamart_users_run_cycle(NULL, 2)';
my $columns = 'cycle_id, status, found, processed, failed, workers';
my $node = new_node('cancel');
my ($gate, $caller, $start, $status, $stdout, $stderr, $cycle);

add_warehouse($node, 'w', 4);

# Refreshes that were rolled back left nothing behind.
sub check_nothing_done
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $node->safe_psql('w', <<'SQL'), '4|0|0', "$what: all rolled back, none failed");
SELECT (SELECT count(*) FROM dwh.dimension_users WHERE modified),
	   (SELECT count(*) FROM dwh.datamartusers),
	   (SELECT count(*) FROM datamart_users_failures)
SQL
	check_sane($node, 'w', $what);
	return;
}

#
# The waiting caller goes, in one way or another, while both workers are in
# the midst of a refresh.
#
sub test_caller
{
	my ($what, $settings, $act, $sqlstate) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$gate = hold_gate($node, 'w');
	$caller = start_psql($node, 'w', [ @$settings, $run ]);
	wait_for_gate($node, 'w', 2);
	$start = time;
	$act->();
	wait_for_idle($node);
	cmp_ok(time - $start, '<', PROMPTLY, "$what: stops promptly");
	(undef, undef, $stderr) = finish($caller);
	is(sqlstate($stderr), $sqlstate, "$what: what the client gets");
	$cycle++;
	is(last_cycle($node, 'w', $columns),
		"$cycle|cancelled|4|0|0|2", "$what: history");
	open_gate($gate);
	check_nothing_done($what);
	return;
}

sub signal_caller
{
	my ($function) = @_;

	return sub {
		$node->safe_psql('postgres',
			"SELECT $function(" . backend_pid($node, 'caller') . ')');
	};
}

test_caller('cancelled caller', [], signal_caller('pg_cancel_backend'),
	'57014');
test_caller('Ctrl-C', [], sub { kill 'INT', $caller->{pid} }, '57014');
test_caller('terminated caller', [], signal_caller('pg_terminate_backend'),
	'57P01');
test_caller('statement_timeout', [q(SET statement_timeout = '2s')],
	sub { }, '57014');
test_caller('vanished client', [q(SET datamart_users.progress_interval = '1s')],
	sub { kill 'KILL', $caller->{pid} }, '');
test_caller('vanished client without progress',
	[q(SET datamart_users.progress_interval = 0)],
	sub { kill 'KILL', $caller->{pid} }, '');

# Before there is anything to roll back: while the cycle is prioritised.
my $locker = $node->background_psql('w');
$locker->query_safe('BEGIN');
$locker->query_safe('LOCK TABLE dwh.facts IN ACCESS EXCLUSIVE MODE');
$caller = start_psql($node, 'w', $run);
wait_for_sql($node, 'w',
	"SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND pid IN (@{[pids_sql('coordinator')]})",
	'the coordinator waits');
signal_caller('pg_cancel_backend')->();
(undef, undef, $stderr) = finish($caller);
is(sqlstate($stderr), '57014', 'cancelled in the prioritisation');
wait_for_idle($node);
$cycle++;
is(last_cycle($node, 'w', 'cycle_id, status, found IS NULL, processed'),
	"$cycle|cancelled|t|0", 'cancelled in the prioritisation: history');
$locker->quit;
check_nothing_done('cancelled in the prioritisation');

#
# datamart_users_cancel_cycle()
#
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'),
	'f', 'nothing to cancel');

$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', $run);
wait_for_gate($node, 'w', 2);
is($node->safe_psql('postgres', 'CREATE EXTENSION datamart_users; SELECT datamart_users_cancel_cycle()'),
	'f', 'another database has nothing to cancel');
is(worker_user($node, 1) > 0, 1, 'and stops nothing');
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'),
	't', 'cancelled by another session');
($status, $stdout, $stderr) = finish($caller);
$cycle++;
like($stdout, qr/^$cycle\|cancelled\|4\|4\|0\|0\|0\|0\|2\|/,
	'the caller gets the row of the cancelled cycle');
is($status, 0, 'and no error');
is(last_cycle($node, 'w', $columns),
	"$cycle|cancelled|4|0|0|2", 'history');
open_gate($gate);
check_nothing_done('cancel_cycle');

# What was committed before the cancel stays.
$gate = hold_gate($node, 'w', 3);
$caller = start_psql($node, 'w', 'SELECT * FROM datamart_users_run_cycle(NULL, 1)');
wait_for_gate($node, 'w', 1);
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', 'cancelled halfway');
($status, $stdout) = finish($caller);
$cycle++;
like($stdout, qr/^$cycle\|cancelled\|4\|4\|2\|0\|0\|0\|1\|/, 'halfway: the row');
open_gate($gate);
is( $node->safe_psql('w',
		'SELECT string_agg(dimension_user_id::text, \',\' ORDER BY 1) FROM dwh.dimension_users WHERE modified'),
	'3,4', 'halfway: who is left');
is( $node->safe_psql('w', "SELECT sum(processed) FROM datamart_users_cycle_priorities WHERE cycle_id = $cycle"),
	'2', 'halfway: history by priority');
check_sane($node, 'w', 'halfway');

#
# Who may cancel
#
$node->safe_psql('w', <<'SQL');
CREATE ROLE etl LOGIN;
CREATE ROLE member LOGIN IN ROLE etl;
CREATE ROLE signaller LOGIN IN ROLE pg_signal_backend;
CREATE ROLE other LOGIN;
CREATE ROLE boss LOGIN SUPERUSER;
GRANT USAGE ON SCHEMA dwh TO etl;
GRANT ALL ON ALL TABLES IN SCHEMA dwh TO etl;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO etl, signaller, other;
SQL
$gate = hold_gate($node, 'w');
for (
	[ 'etl', 'etl', '' ],
	[ 'etl', 'member', '' ],
	[ 'etl', 'signaller', '' ],
	[ 'etl', 'boss', '' ],
	[ 'etl', 'other', '42501' ],
	[ 'boss', 'boss', '' ],
	[ 'boss', 'signaller', '42501' ],
	[ 'boss', 'etl', '42501' ])
{
	my ($owner, $role, $expected) = @$_;
	reset_warehouse($node, 'w', 4);
	$cycle++;
	is( (run_psql($node, 'w', 'SELECT datamart_users_start_cycle(NULL, 2)', user => $owner))[1],
		$cycle, "$owner starts a cycle");
	wait_for_gate($node, 'w', 2);
	(undef, $stdout, $stderr) =
	  run_psql($node, 'w', 'SELECT datamart_users_cancel_cycle()', user => $role);
	is(sqlstate($stderr), $expected, "$role cancels it");
	is($stdout, $expected ? '' : 't', 'and it says so');
	if ($expected)
	{
		is(last_cycle($node, 'w', 'status'), 'running', 'it goes on');
		is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', 'until a superuser stops it');
	}
	is(last_cycle($node, 'w', 'cycle_id, status'), "$cycle|cancelled", 'it is cancelled');
	check_nothing_done("$owner by $role");
}
open_gate($gate);

#
# A cycle of its own, and waiting for it from elsewhere
#
reset_warehouse($node, 'w', 4);
$gate = hold_gate($node, 'w');
$cycle++;
is($node->safe_psql('w', 'SELECT datamart_users_start_cycle(NULL, 2)'),
	$cycle, 'start_cycle returns the number');
wait_for_gate($node, 'w', 2);
like($node->safe_psql('w', "SELECT * FROM datamart_users_wait_cycle($cycle, '200ms')"),
	qr/^$cycle\|running\|4\|4\|0\|0\|0\|0\|2\|/,
	'its session has ended, it has not');
$caller = start_psql($node, 'w', "SELECT * FROM datamart_users_wait_cycle($cycle)", name => 'waiter');
wait_for_sql($node, 'w',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'waiter' AND wait_event = 'Extension'",
	'somebody waits for the cycle');
# Who waits for a cycle that is not his own does not take it with him.
my $second = start_psql($node, 'w', ["SET statement_timeout = '1s'", "SELECT * FROM datamart_users_wait_cycle($cycle)"]);
(undef, undef, $stderr) = finish($second);
is(sqlstate($stderr), '57014', 'one who waits gives up');
is(last_cycle($node, 'w', 'status'), 'running', 'and the cycle goes on');
open_gate($gate);
($status, $stdout) = finish($caller);
like($stdout, qr/^$cycle\|completed\|4\|4\|4\|0\|0\|0\|2\|/, 'until it completes');
like($node->safe_psql('w', "SELECT * FROM datamart_users_wait_cycle($cycle)"),
	qr/^$cycle\|completed\|4\|4\|4\|0\|0\|0\|2\|/, 'a cycle that has ended is told at once');
(undef, undef, $stderr) = run_psql($node, 'w', 'SELECT * FROM datamart_users_wait_cycle(999)');
is(sqlstate($stderr), '22023', 'one that never was, is an error');
check_sane($node, 'w', 'start_cycle');

#
# A refresh that swallows query_canceled
#
sub wait_for_sleep
{
	my ($number) = @_;
	wait_for_sql($node, 'w',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name ~ 'worker $number\$' AND wait_event = 'PgSleep'",
		"worker $number sleeps");
	return;
}

# In worker 2, while the coordinator is held at the gate.
reset_warehouse($node, 'w', 4, map { $_ => $swallow_in_2 } 1 .. 4);
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', $run);
wait_for_gate($node, 'w', 1);
wait_for_sleep(2);
$start = time;
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', 'cancel swallowed');
cmp_ok(time - $start, '<', PROMPTLY, 'cancel swallowed: the process is terminated');
($status, $stdout) = finish($caller);
$cycle++;
like($stdout, qr/^$cycle\|cancelled\|4\|4\|0\|0\|0\|0\|2\|/, 'cancel swallowed: the row');
is(last_cycle($node, 'w', $columns), "$cycle|cancelled|4|0|0|2", 'cancel swallowed: history');
open_gate($gate);
check_nothing_done('cancel swallowed');

reset_warehouse($node, 'w', 4, map { $_ => $swallow_in_2 } 1 .. 4);
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', $run);
wait_for_gate($node, 'w', 1);
wait_for_sleep(2);
$start = time;
signal_caller('pg_cancel_backend')->();
(undef, undef, $stderr) = finish($caller);
is(sqlstate($stderr), '57014', 'caller cancelled, worker not: the error');
wait_for_idle($node);
cmp_ok(time - $start, '<', PROMPTLY, 'caller cancelled, worker not: the process is terminated');
$cycle++;
is(last_cycle($node, 'w', $columns), "$cycle|cancelled|4|0|0|2", 'caller cancelled, worker not: history');
open_gate($gate);
check_nothing_done('caller cancelled, worker not');

# The coordinator itself: nobody is left to write the end of the cycle.
reset_warehouse($node, 'w', 4, 1 => $swallow);
$caller = start_psql($node, 'w', 'SELECT * FROM datamart_users_run_cycle(NULL, 1)');
wait_for_sleep(1);
$start = time;
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', 'coordinator swallows the cancel');
wait_for_idle($node);
cmp_ok(time - $start, '<', PROMPTLY, 'coordinator swallows the cancel: it is terminated');
(undef, undef, $stderr) = finish($caller);
is(sqlstate($stderr), '57P01', 'coordinator swallows the cancel: the caller is told');
$cycle++;
$node->safe_psql('w', 'DELETE FROM dwh.behaviour; UPDATE dwh.dimension_users SET modified = FALSE WHERE dimension_user_id > 4');
is($node->safe_psql('w', 'SELECT status, processed FROM datamart_users_run_cycle()'), 'completed|4', 'the next cycle goes well');
like($node->safe_psql('w', "SELECT status, finished_at IS NOT NULL FROM datamart_users_cycles WHERE cycle_id = $cycle"),
	qr/^(?:cancelled|aborted)\|t$/, 'and the history tells of the one before');
$cycle++;
check_sane($node, 'w', 'coordinator swallows the cancel');

#
# user_timeout
#
reset_warehouse($node, 'w', 4, 2 => 'SELECT pg_sleep(600)');
(undef, $stdout, $stderr) = run_psql($node, 'w', [
	q(SET datamart_users.user_timeout = '500ms'),
	'SELECT status, processed, failed FROM datamart_users_run_cycle(NULL, 1)' ]);
$cycle++;
is($stdout, 'completed|3|1', 'user_timeout costs one datamart user');
like($node->safe_psql('w', 'SELECT dimension_user_id, sqlstate, message FROM datamart_users_failures'),
	qr/^2\|57014\|.*datamart_users\.user_timeout/, 'and says so');

for my $workers (2, 1)
{
	my $what = "user_timeout swallowed, $workers workers";

	reset_warehouse($node, 'w', 4, 2 => $swallow);
	$start = time;
	(undef, $stdout, $stderr) = run_psql($node, 'w', [
		q(SET datamart_users.user_timeout = '500ms'),
		"SELECT status, processed, failed FROM datamart_users_run_cycle(NULL, $workers)" ]);
	wait_for_idle($node);
	cmp_ok(time - $start, '<', PROMPTLY, "$what: the process is terminated");
	$cycle++;

	# If it was the coordinator, the cycle went with it; but the next one is
	# not to stumble over the same datamart user.
	(undef, $stdout, $stderr) = run_psql($node, 'w', [
		q(SET datamart_users.user_timeout = '500ms'),
		"SELECT status, failed FROM datamart_users_run_cycle(NULL, $workers)" ]);
	$cycle++;
	is($stdout, 'completed|0', "$what: the next cycle completes");
	is($node->safe_psql('w', 'SELECT dimension_user_id FROM dwh.dimension_users WHERE modified'), '2', "$what: the others are done");
	is($node->safe_psql('w', 'SELECT dimension_user_id, attempts FROM datamart_users_failures'),
		'2|1', "$what: it is a failure of that datamart user");
	check_sane($node, 'w', $what);
}

$node->stop;
done_testing();
