# A service: start, stop, what others are told meanwhile, and what it leaves.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('service');

add_warehouse($node, 'w', 5);

# Who is there when it starts, and whoever comes.
is($node->safe_psql('w', "SELECT datamart_users_stop_service()"), 'f', 'there is none to stop');
is($node->safe_psql('w', "SELECT datamart_users_start_service(2, '50 ms')"), 't', 'it starts');
wait_for_sql($node, 'w', 'SELECT count(*) = 5 FROM dwh.datamartusers', 'all who wait are refreshed');
is($node->safe_psql('w', 'SELECT users_table, role_name = current_user, poll, max_workers FROM datamart_users_service'),
	'dwh.dimension_users|t|00:00:00.05|2', 'it is to be seen');
is($node->safe_psql('w', 'SELECT datamart_users_start_service()'), 'f', 'a second one is not started');
$node->safe_psql('w', 'INSERT INTO dwh.dimension_users VALUES (6)');
wait_for_sql($node, 'w', 'SELECT count(*) = 6 FROM dwh.datamartusers', 'and so is who comes later');
is($node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), '0', 'the flags are cleared');

# Others.
my $pid = $node->safe_psql('w', 'SELECT pid FROM datamart_users_service');
for my $call ('datamart_users_run_cycle()', 'datamart_users_start_cycle()')
{
	my ($status, $out, $err) = run_psql($node, 'w', "SELECT $call");
	is(sqlstate($err), '55006', "$call is refused");
	like($err, qr/the service of datamart_users is running.*process ID $pid.*datamart_users_stop_service/s, 'and told why');
}

# A stretch of work is a cycle.
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it becomes idle');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_progress'), '0', 'no cycle is running');
is(last_cycle($node, 'w', 'status, backlog, found, processed, workers_requested, finished_at IS NOT NULL'),
	'completed|5|6|6|2|t', 'the history has it');
is($node->safe_psql('w', 'SELECT sum(found), sum(processed), count(*) FROM datamart_users_cycle_priorities'), '6|6|2', 'by priority, too');
is($node->safe_psql('w', 'SELECT status, processed FROM datamart_users_wait_cycle(1)'), 'completed|6', 'and it can be waited for');
my $cycles = $node->safe_psql('w', 'SELECT count(*) FROM datamart_users_cycles');
my $looks = $node->safe_psql('w', 'SELECT looks FROM datamart_users_service');
wait_for_sql($node, 'w', "SELECT looks > $looks + 10 FROM datamart_users_service", 'it goes on looking');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_cycles'), $cycles, 'and leaves no trace of that');

# The next one begins at zero.
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id <= 2');
wait_for_sql($node, 'w', 'SELECT count(*) = 2 FROM dwh.datamartusers WHERE refreshes = 2', 'two more');
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'idle again');
is(last_cycle($node, 'w', 'cycle_id, status, backlog, found, processed'), '2|completed|2|2|2', 'are a cycle of their own');

# Whoever is at work is finished when it is stopped; who waits is not begun.
my $gate = hold_gate($node, 'w', 1);
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 1');
wait_for_gate($node, 'w', 1);
is($node->safe_psql('w', "SELECT phase, found, done FROM datamart_users_progress"), 'working|1|0', 'its progress');
is($node->safe_psql('w', "SELECT state, dimension_user_id FROM datamart_users_workers WHERE worker > 1 AND state = 'refreshing'"), 'refreshing|1', 'and its workers');
is($node->safe_psql('w', "SELECT datamart_users_stop_service('100 ms')"), 'f', 'it is stopped, and has not ended yet');
is($node->safe_psql('w', 'SELECT state FROM datamart_users_service'), 'stopping', 'which the view tells');
my $client = start_psql($node, 'w', 'SELECT datamart_users_stop_service()', name => 'stopper');
wait_for_sql($node, 'w', "SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE application_name = 'stopper'", 'it is waited for');
open_gate($gate);
is((finish($client))[1], 't', 'until it has ended');
is($node->safe_psql('w', workers_sql()), '0', 'no process is left');
is(last_cycle($node, 'w', 'status, found, processed'), 'completed|1|1', 'who was at work is finished');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_service'), '0', 'nothing to be seen of it');
like(slurp_file($node->logfile), qr/: service ended after 3 cycles\n.*stopped by datamart_users_stop_service\(\), called by /, 'the log tells why');

# A cancel ends it at once, and what was at work rolls back.
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'it starts again');
$gate = hold_gate($node, 'w', 2);
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 2');
wait_for_gate($node, 'w', 1);
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', 'it is canceled');
is($node->safe_psql('w', workers_sql()), '0', 'and no process is left');
is(last_cycle($node, 'w', 'status, found, processed'), 'cancelled|1|0', 'its cycle is cancelled');
is($node->safe_psql('w', 'SELECT modified FROM dwh.dimension_users WHERE dimension_user_id = 2'), 't', 'the flag stays');
open_gate($gate);

# An idle one, too.
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = FALSE');
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'one that has nothing to do');
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', 'can be canceled as well');
is($node->safe_psql('w', workers_sql()), '0', 'and goes');

# What keeps it from starting is its caller's error.
for my $case (
	[ "SELECT datamart_users_start_service(0)", '22023', qr/max_workers must be between 1/ ],
	[ "SELECT datamart_users_start_service(1, '1 ms')", '22023', qr/poll must be between/ ],
	[ "SET datamart_users.procedure = 'dwh.nope'; SELECT datamart_users_start_service()", '42883', qr/dwh.nope/ ],
	[ "BEGIN; SELECT txid_current(); SELECT datamart_users_start_service()", '25001', qr/already written/ ],
	[ "SELECT datamart_users_stop_service('-1 s')", '22023', qr/timeout must not be negative/ ])
{
	my ($sql, $sqlstate, $message) = @$case;
	my ($status, $out, $err) = run_psql($node, 'w', $sql);
	is(sqlstate($err), $sqlstate, "$sql is refused");
	like($err, $message, 'with a reason');
}

# Several sessions at once: one of them starts it, and the others need no error
# to be told; also while an earlier one is ending.
for my $round (1 .. 10)
{
	my @stopping = $round % 2 == 0 ? (start_psql($node, 'w', 'SELECT datamart_users_stop_service()')) : ();
	my @clients = map { start_psql($node, 'w', "SELECT datamart_users_start_service(1, '50 ms')") } 1 .. 6;
	my @results = map { join(' ', (finish($_))[1, 2]) =~ s/^\s+|\s+$//gr } @clients;
	my %seen;

	$seen{$_}++ for @results;
	# Those that come before the stop find the earlier one.
	is(join(' ', sort keys %seen), @stopping && !$seen{t} ? 'f' : 'f t', "round $round: they are told so");
	cmp_ok($seen{t} // 0, '<=', 1, 'one of several starts it');
	finish($_) for @stopping;
	$node->safe_psql('w', 'SELECT datamart_users_stop_service()') if $round % 2 == 0;
	wait_for_sql($node, 'w', "SELECT count(*) = ${\($round % 2)} FROM datamart_users_service", 'as it should be for the next round');
}
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 'f', 'none is left');

$node->stop;
done_testing();
