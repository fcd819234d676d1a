# A worker of a service that ends takes nobody with it but whom it was at: not him
# whom it has refreshed last, when another worker is at him again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('same_one');

add_warehouse($node, 'w', 2);

# Two workers: one has refreshed 1 and rests, the other one is at 2.
my %gates = map { $_ => hold_gate($node, 'w', $_) } 1, 2;
is($node->safe_psql('w', "SELECT datamart_users_start_service(2, '100 ms')"), 't', 'a service with two workers');
wait_for_gate($node, 'w', 2);
my %at = map { worker_user($node, $_) => $_ } 2, 3;
my $first = worker_pid($node, $at{1});
open_gate($gates{1});
wait_for_sql($node, 'w', "SELECT NOT modified FROM dwh.dimension_users WHERE dimension_user_id = 1", 'the first one is refreshed');
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $first", 'and its worker rests');

# It stands still while the other one takes up 1 again, and ends then.
kill 'STOP', $first;
$gates{1} = hold_gate($node, 'w', 1);
open_gate($gates{2});
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 1');
wait_for_sql($node, 'w', "SELECT dimension_user_id = 1 FROM datamart_users_workers WHERE worker = @{[5 - $at{1}]}", 'the other one is at 1');
wait_for_gate($node, 'w', 1);
kill 'TERM', $first;
kill 'CONT', $first;
wait_for_sql($node, 'w', 'SELECT workers = 1 FROM datamart_users_service', 'the first worker has gone');

# For longer than a cycle with nobody at work waits for more.
my $looks = $node->safe_psql('w', 'SELECT looks FROM datamart_users_service');
wait_for_sql($node, 'w', "SELECT looks > $looks + 80 FROM datamart_users_service", 'time goes by');
is($node->safe_psql('w', 'SELECT status, failed FROM datamart_users_cycles'), 'running|0', 'the cycle goes on');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), '0', 'nobody has failed');
open_gate($gates{1});
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
is(last_cycle($node, 'w', 'cycle_id, status, found, processed, failed'), '1|completed|3|3|0', 'as a cycle that has refreshed him twice');
check_sane($node, 'w', 'the same one');

$node->stop;
done_testing();
