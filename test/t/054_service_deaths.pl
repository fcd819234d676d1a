# Processes of a service that die, in whatever way: nothing is left behind, and
# nothing lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('deaths');

add_warehouse($node, 'w', 6);

sub pid_of
{
	my ($kind) = @_;

	return $node->safe_psql('w', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'datamart_users $kind'");
}

# A worker at work is terminated: its datamart user has failed, and another
# worker comes in its place.
my $gate = hold_gate($node, 'w', 1);
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'a service with one worker');
wait_for_gate($node, 'w', 1);
my $worker = pid_of('worker');
$node->safe_psql('w', "SELECT pg_terminate_backend($worker)");
wait_for_sql($node, 'w', 'SELECT count(*) = 5 FROM dwh.datamartusers', 'the others are refreshed');
is($node->safe_psql('w', 'SELECT dimension_user_id, sqlstate FROM datamart_users_failures'), '1|57P01', 'that one has failed');
open_gate($gate);
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it goes on, and comes to rest');
is(last_cycle($node, 'w', 'status, found, processed, failed'), 'completed|6|5|1', 'with all of them counted');

# A worker is canceled: that datamart user is deferred.
$gate = hold_gate($node, 'w', 2);
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 2');
wait_for_gate($node, 'w', 1);
$worker = pid_of('worker');
$node->safe_psql('w', "SELECT pg_cancel_backend($worker)");
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it comes to rest');
is(last_cycle($node, 'w', 'status, found, processed, deferred'), 'completed|1|0|1', 'who was at work is deferred');
is(pid_of('worker'), $worker, 'the worker stays');
open_gate($gate);
wait_for_sql($node, 'w', 'SELECT NOT modified FROM dwh.dimension_users WHERE dimension_user_id = 2', 'and it comes again, later');

# An idle worker is terminated.
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it comes to rest');
$worker = pid_of('worker');
$node->safe_psql('w', "SELECT pg_terminate_backend($worker)");
wait_for_sql($node, 'w', "SELECT workers = 0 FROM datamart_users_service", 'it has no worker');
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 3');
wait_for_sql($node, 'w', 'SELECT NOT modified FROM dwh.dimension_users WHERE dimension_user_id = 3', 'another one comes when it is needed');

# The coordinator is terminated, in the midst of a cycle.
$gate = hold_gate($node, 'w', 4);
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 4');
wait_for_gate($node, 'w', 1);
my $cycle = last_cycle($node, 'w', 'cycle_id');
$node->safe_psql('w', "SELECT pg_terminate_backend(@{[pid_of('service')]})");
open_gate($gate);
check_sane($node, 'w', 'coordinator terminated');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_service'), '0', 'the service has gone');
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'it is started again');
wait_for_sql($node, 'w', 'SELECT NOT modified FROM dwh.dimension_users WHERE dimension_user_id = 4', 'it does what was left');
is($node->safe_psql('w', "SELECT status FROM datamart_users_cycles WHERE cycle_id = $cycle"), 'aborted', 'the cycle that came to no end is marked');

# The same by a cancel.
$gate = hold_gate($node, 'w', 5);
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 5');
wait_for_gate($node, 'w', 1);
$node->safe_psql('w', "SELECT pg_cancel_backend(@{[pid_of('service')]})");
open_gate($gate);
check_sane($node, 'w', 'coordinator canceled');
is(last_cycle($node, 'w', 'status'), 'aborted', 'its cycle is aborted');
like(last_cycle($node, 'w', 'message'), qr/coordinator was canceled/, 'and the history tells by whom');

# Crash of the server; nothing starts by itself.
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'once more');
$gate = hold_gate($node, 'w', 6);
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
wait_for_gate($node, 'w', 1);
$cycle = last_cycle($node, 'w', 'cycle_id');
kill 'KILL', pid_of('worker');
open_gate($gate);
wait_for_sql($node, 'w', "SELECT pg_postmaster_start_time() IS NOT NULL AND count(*) = 0 FROM datamart_users_service", 'the server is back');
check_sane($node, 'w', 'crash');
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'it is started again');
wait_for_sql($node, 'w', 'SELECT count(*) = 0 FROM dwh.dimension_users WHERE modified AND dimension_user_id <> 1', 'it does what was left');
is($node->safe_psql('w', "SELECT status FROM datamart_users_cycles WHERE cycle_id = $cycle"), 'aborted', 'the cycle is marked');

# No process is free: the coordinator works itself.
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
$node->restart;
is($node->safe_psql('w', "SELECT datamart_users_start_service(3, '50 ms')"), 't', 'a service without a worker');
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
wait_for_sql($node, 'w', 'SELECT count(*) = 0 FROM dwh.dimension_users WHERE modified AND dimension_user_id <> 1', 'does its work');
is($node->safe_psql('w', 'SELECT workers FROM datamart_users_service'), '0', 'by itself');
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it comes to rest');
my $count = () = slurp_file($node->logfile) =~ /service goes on with 0 workers, of 3/g;
is($count, 1, 'and says so once');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
check_sane($node, 'w', 'short of processes');

$node->stop;
done_testing();
