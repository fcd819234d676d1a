# What is known of a cycle that nobody came to end: its counts are written down
# every few seconds while it runs, and stay.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('saved');
my ($client, $coordinator, $at_work, $stdout, $stderr);

my $counts = 'status, backlog, found, processed, failed, skipped, deferred, workers, max_users, counted_at IS NOT NULL';

add_warehouse($node, 'w', 5);
behave($node, 'w', 2, q(DO 'BEGIN RAISE ''bad data''; END'));

# A cycle whose coordinator waits for worker 2, which is at the gate; until the
# history has what the others came to.
sub start_cycle
{
	my %gates = map { $_ => hold_gate($node, 'w', $_) } 1, 3;

	$client = start_psql($node, 'w', 'SELECT status FROM datamart_users_run_cycle(4, 2)');
	wait_for_gate($node, 'w', 2);
	$coordinator = worker_pid($node, 1);
	$at_work = worker_user($node, 2);
	open_gate($gates{ worker_user($node, 1) });
	wait_for_sql($node, 'w', 'SELECT processed + failed = 3 FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 1',
		'the counts are written down');
	return (values %gates);
}

# The coordinator is terminated: it writes no end.
my @gates = start_cycle();
is(last_cycle($node, 'w', $counts), 'running|5|4|2|1|0|0|2|4|t', 'a running cycle has its counts in the history');
is($node->safe_psql('w', 'SELECT sum(found), sum(processed), sum(failed) FROM datamart_users_cycle_priorities'), '4|2|1', 'by priority, too');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_metrics'), '0', 'which are no metrics yet');
$node->safe_psql('w', "SELECT pg_terminate_backend($coordinator)");
finish($client);
open_gate($_) for @gates;
wait_for_idle($node);
is($node->safe_psql('w', "SELECT refreshes FROM dwh.datamartusers WHERE dimension_user_id = $at_work"), '', 'who was at work rolled back');
like($node->safe_psql('w', 'SELECT datamart_users_report()'), qr/\ACycle 1: left running when it died.*\n +5 +4 +2 +1 +0 +0\n/s, 'the report of what it left');
is($node->safe_psql('w', 'SELECT status, found FROM datamart_users_run_cycle(1, 1)'), 'completed|1', 'the next cycle');
is($node->safe_psql('w', "SELECT $counts FROM datamart_users_cycles WHERE cycle_id = 1"), 'aborted|5|4|2|1|0|0|2|4|t', 'marks it as aborted, with its counts');
like($node->safe_psql('w', 'SELECT datamart_users_report(1)'), qr/\ACycle 1: aborted, its counts are those after [\d.]+ s\n/, 'and its report says of when they are');
is($node->safe_psql('w', "SELECT m.processed, m.elapsed = c.counted_at - c.started_at FROM datamart_users_metrics m JOIN datamart_users_cycles c USING (cycle_id) WHERE cycle_id = 1 AND priority IS NULL"),
	'2|t', 'the metrics know them');
is($node->safe_psql('w', "SELECT p.backlog, p.came FROM (SELECT backlog, inflow AS came FROM datamart_users_drain WHERE period = 'hour') p"), '2|0', 'and the drain');

# So after a crash of the server.
reset_warehouse($node, 'w', 5, 2 => q(DO 'BEGIN RAISE ''bad data''; END'));
@gates = start_cycle();

# Nobody waits for these commits to reach the disk; this one does, and takes
# them along.
$node->safe_psql('w', 'CREATE TABLE dwh.flushed ()');
$node->stop('immediate');
finish($client);
open_gate($_) for @gates;
$node->start;
is($node->safe_psql('w', 'SELECT status FROM datamart_users_run_cycle(1, 1)'), 'completed', 'a cycle after the crash');
is($node->safe_psql('w', "SELECT $counts FROM datamart_users_cycles WHERE status = 'aborted' ORDER BY cycle_id DESC LIMIT 1"), 'aborted|5|4|2|1|0|0|2|4|t', 'leaves the one before with its counts');

# One that ends has those of its end, once.
reset_warehouse($node, 'w', 5, 2 => q(DO 'BEGIN RAISE ''bad data''; END'));
@gates = start_cycle();
open_gate($_) for @gates;
is((finish($client))[1], 'completed', 'a cycle that ends');
is(last_cycle($node, 'w', $counts), 'completed|5|4|3|1|0|0|2|4|t', 'with the counts of its end');
is(last_cycle($node, 'w', 'counted_at = finished_at'), 't', 'which are of that time');
is($node->safe_psql('w', 'SELECT p.found, p.processed, p.failed, p.p50 IS NOT NULL FROM datamart_users_cycle_priorities p ORDER BY cycle_id DESC LIMIT 1'), '4|3|1|t', 'by priority, too');

# Who keeps a lock on its row is not waited for on the way.
reset_warehouse($node, 'w', 5);
my $gate = hold_gate($node, 'w', 1);
$client = start_psql($node, 'w', 'SELECT status FROM datamart_users_run_cycle(4, 1)');
wait_for_gate($node, 'w', 1);
my $holder = $node->background_psql('w');
$holder->query_safe('BEGIN; SELECT FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 1 FOR UPDATE');
my $logged = -s $node->logfile;
my $started = $node->safe_psql('w', 'SELECT extract(epoch FROM started_at)::integer + 10 FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 1');
wait_for_sql($node, 'w', "SELECT clock_timestamp() > to_timestamp($started)", 'it is time to write them down');
open_gate($gate);
$node->wait_for_log(qr/WARNING:  datamart_users cycle \d+ in database "\w+": could not write down how far it is and who waits: canceling statement due to lock timeout/, $logged);
wait_for_sql($node, 'w', 'SELECT count(*) = 4 FROM dwh.datamartusers', 'the cycle goes on');
$holder->quit;
is((finish($client))[1], 'completed', 'and ends');

$node->stop;
done_testing();
