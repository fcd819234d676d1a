# A worker of a service that is at rest holds nothing that anybody could wait for,
# also where it was woken and another one was quicker.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('rest');

add_warehouse($node, 'w', 4);

sub held
{
	return $node->safe_psql('w', <<"SQL");
SELECT count(*) FROM pg_locks
WHERE locktype = 'object' AND classid = 'pg_extension'::regclass
  AND pid IN (@{[pids_sql('worker')]})
SQL
}

# Four workers, with their plans.
my $gate = hold_gate($node, 'w');
is($node->safe_psql('w', "SELECT datamart_users_start_service(4, '10 ms')"), 't', 'a service with four workers');
wait_for_gate($node, 'w', 4);
open_gate($gate);
wait_for_sql($node, 'w', "SELECT count(*) = 0 FROM dwh.dimension_users WHERE modified", 'all are refreshed');

# There is one to claim for all four.  The others come too late for it while it is
# held, and go on with their rest; whoever was slower than that, the next time.
for my $round (1 .. 20)
{
	$gate = hold_gate($node, 'w', 1);
	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 1');
	wait_for_gate($node, 'w', 1);
	open_gate($gate);
	wait_for_sql($node, 'w', "SELECT count(*) = 0 FROM dwh.dimension_users WHERE modified", 'it is refreshed');
}
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it has nothing to do');
is($node->safe_psql('w', 'SELECT workers FROM datamart_users_service'), '4', 'all four are there');
is(held(), '0', 'and none holds the extension');
$node->safe_psql('w', "SET lock_timeout = '10s'; DROP EXTENSION datamart_users");
wait_for_idle($node);
pass('which can be dropped');

$node->stop;
done_testing();
