# What a straggler costs at the end of a cycle: the time for which the other
# workers had nothing left to do, and whom they waited for.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('idle');
my $client;

add_warehouse($node, 'w', 6);
$node->safe_psql('w', 'INSERT INTO dwh.facts SELECT 1, now() FROM generate_series(1, 1233)');
$node->safe_psql('w', 'CREATE ROLE guest LOGIN; GRANT EXECUTE ON FUNCTION datamart_users_report(bigint) TO guest');

sub report { return $node->safe_psql('w', 'SELECT datamart_users_report()', extra_params => [ '-U', $_[0] // $node->safe_psql('w', 'SELECT current_user') ]) }

# Of the newest cycle; what is left of the conditions for its figures.
sub figures
{
	my ($columns) = @_;
	return $node->safe_psql('w', "SELECT $columns FROM datamart_users_cycle_profiles p JOIN datamart_users_cycles c USING (cycle_id) ORDER BY cycle_id DESC LIMIT 1");
}

# Until all workers but that one have had nothing to do for a twentieth of the
# cycle.
sub wait_until_idle
{
	my ($worker, $others) = @_;
	wait_for_sql($node, 'w', "SELECT count(*) = $others FROM datamart_users_workers w, datamart_users_progress p WHERE w.worker <> $worker AND w.state IN ('done', 'idle') AND 20 * (clock_timestamp() - w.since) > clock_timestamp() - p.started_at",
		'the others have nothing to do');
	return;
}

# The first one of the queue is the last one to be done.
my $gate = hold_gate($node, 'w', 1);
$client = start_psql($node, 'w', 'SELECT status FROM datamart_users_run_cycle(6, 3)');
wait_for_gate($node, 'w', 1);
wait_for_sql($node, 'w', 'SELECT count(*) = 5 FROM dwh.dimension_users WHERE NOT modified', 'the other datamart users are done');
my $worker = $node->safe_psql('w', "SELECT worker FROM datamart_users_workers WHERE state = 'refreshing' AND dimension_user_id = 1");
wait_until_idle($worker, 2);
open_gate($gate);
finish($client);
wait_for_idle($node);
is(figures('c.status, c.workers, last_worker, last_user_id, last_priority, last_actions'), "completed|3|$worker|1|critical|1234", 'who was the last');
is(figures("idle_time > '0', 60 * idle_time > work_time, idle_time < work_time, work_time <= 3 * (c.elapsed - c.prioritisation_time), last_elapsed <= c.elapsed, 2 * last_elapsed >= idle_time"), 't|t|t|t|t|t',
	'and for how long the others waited');
like(report(), qr/^  workers idle at the end: [\d.]+ m?s of [\d.]+ m?s, while worker $worker was at\n  datamart user 1 \(critical, 1,234 actions, [\d.]+ m?s\)$/m, 'the report says so');
like(report('guest'), qr/^  datamart user - \(critical, 1,234 actions, /m, 'without the id to whom may not see it');
is($node->safe_psql('w', q(SELECT max(length(line)) <= 80 FROM string_to_table(datamart_users_report(), E'\n') AS line)), 't', 'no line is too wide');

# Alone nobody waits.
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
is($node->safe_psql('w', 'SELECT status FROM datamart_users_run_cycle(6, 1)'), 'completed', 'a cycle with one worker');
is(figures("idle_time, work_time > '0', work_time <= c.elapsed, last_worker, last_user_id"), '00:00:00|t|t|1|6', 'has no idle time');
unlike(report(), qr/idle at/, 'and the report does not mention it');

# The second turn is work, too: that of the coordinator, for whom the others
# would have to wait.
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
behave($node, 'w', 2, q(DO 'BEGIN IF NOT EXISTS (SELECT FROM pg_locks WHERE locktype = ''advisory'' AND classid = 7 AND objid = 7) THEN RAISE serialization_failure; END IF; END'));
$gate = hold_gate($node, 'w', 1);
$client = start_psql($node, 'w', 'SELECT deferred FROM datamart_users_run_cycle(6, 2)');
wait_for_gate($node, 'w', 1);
wait_for_sql($node, 'w', 'SELECT count(*) = 4 FROM dwh.dimension_users WHERE NOT modified', 'all others are done or put off');
my $holder = start_psql($node, 'w', "SELECT pg_advisory_lock(7, 7);\nSELECT pg_sleep(600);");
wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 7 AND granted", 'the second turn will do');
open_gate($gate);
finish($client);
wait_for_idle($node);
is(figures('c.deferred, last_worker, last_user_id'), '0|1|2', 'who had a second turn was the last');
$node->safe_psql('w', "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7");
finish($holder);

# A cycle that is stopped has no end of work.
reset_warehouse($node, 'w', 6);
$gate = hold_gate($node, 'w', 1);
$client = start_psql($node, 'w', 'SELECT status FROM datamart_users_run_cycle(6, 2)');
wait_for_gate($node, 'w', 1);
wait_for_sql($node, 'w', 'SELECT count(*) = 5 FROM dwh.dimension_users WHERE NOT modified', 'the others are done');
$node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()');
finish($client);
open_gate($gate);
wait_for_idle($node);
is(figures('c.status, idle_time, last_user_id'), 'cancelled||', 'a cycle that was canceled');
unlike(report(), qr/idle at/, 'whose report says nothing');

# One that has found nobody.
is($node->safe_psql('w', 'SELECT status FROM datamart_users_run_cycle()'), 'completed', 'the rest');
is($node->safe_psql('w', 'SELECT found FROM datamart_users_run_cycle()'), '0', 'and a cycle without any');
unlike(report(), qr/idle at/, 'nobody worked, so nobody was idle');

check_sane($node, 'w', 'at the end');
$node->stop;
done_testing();
