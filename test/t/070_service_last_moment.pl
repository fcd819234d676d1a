# Whoever is claimed at the moment when a cycle of a service has waited long enough
# for more, belongs to it: it does not end before that one has.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('last_moment');

add_warehouse($node, 'w', 2);
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'a service with one worker');
wait_for_sql($node, 'w', "SELECT count(*) = 0 FROM dwh.dimension_users WHERE modified", 'all are refreshed');
wait_for_sql($node, 'w', "SELECT state = 'working' FROM datamart_users_service", 'the cycle waits for more');

# Both processes stand still until that is over.  The coordinator looks then, and
# writes down how far it is, for which it waits a moment; in which the worker goes
# on, too.
my $coordinator = $node->safe_psql('w', 'SELECT pid FROM datamart_users_service');
my $worker = $node->safe_psql('w', pids_sql('worker'));
kill 'STOP', $coordinator, $worker;
my $stopped = $node->safe_psql('w', 'SELECT clock_timestamp()');
my $gate = hold_gate($node, 'w', 2);
my $lock = $node->background_psql('w');
$lock->query_safe('BEGIN');
$lock->query_safe('LOCK datamart_users_cycles IN SHARE MODE');
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 2');
wait_for_sql($node, 'w', "SELECT clock_timestamp() > '$stopped'::timestamptz + interval '6 seconds'", 'it has waited long enough');
kill 'CONT', $coordinator;
for my $try (1 .. 1000)
{
	last if $lock->query_safe("SELECT count(*) FROM pg_locks WHERE pid = $coordinator AND NOT granted") > 0;
}
kill 'CONT', $worker;
wait_for_gate($node, 'w', 1);
$lock->quit;
my $looks = $node->safe_psql('w', 'SELECT looks FROM datamart_users_service');
wait_for_sql($node, 'w', "SELECT looks > $looks + 10 FROM datamart_users_service", 'it goes round');
is($node->safe_psql('w', 'SELECT status, failed FROM datamart_users_cycles'), 'running|0', 'the cycle goes on');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), '0', 'nobody has failed');
open_gate($gate);
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
is(last_cycle($node, 'w', 'cycle_id, status, processed, failed'), '1|completed|3|0', 'as a cycle that has refreshed him');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), '0', 'nobody is held back');
check_sane($node, 'w', 'the last moment');

$node->stop;
done_testing();
