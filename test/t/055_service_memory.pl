# A worker of a service that has grown gives its place to another process.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('memory');

add_warehouse($node, 'w', 4);

sub pids
{
	return $node->safe_psql('w', "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity WHERE backend_type = 'datamart_users worker'");
}

# Any process has more than that.
is($node->safe_psql('w', "SET datamart_users.worker_memory_limit = '64kB'; SELECT datamart_users_start_service(1, '50 ms')"), 't', 'a service with a low limit');
wait_for_sql($node, 'w', 'SELECT count(*) = 4 FROM dwh.datamartusers', 'it works');
$node->wait_for_log(qr/, worker 2: leaves to another process, because it has \d+ kB of memory/);
pass('its worker leaves');
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
wait_for_sql($node, 'w', 'SELECT count(*) = 4 FROM dwh.datamartusers WHERE refreshes = 2', 'another one goes on');
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it comes to rest');
is($node->safe_psql('w', 'SELECT sum(found), sum(processed), sum(failed) FROM datamart_users_cycles'), '8|8|0', 'and nobody is lost by that');
is($node->safe_psql('w', "SELECT datamart_users_stop_service(), datamart_users_start_service(1, '50 ms')"), 't|t', 'a service is started anew');

# Within its limit it stays.
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
wait_for_sql($node, 'w', "SELECT state = 'idle' AND workers = 1 FROM datamart_users_service", 'its worker is idle');
my $before = pids();
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
wait_for_sql($node, 'w', 'SELECT count(*) = 4 FROM dwh.datamartusers WHERE refreshes = 4', 'it works again');
is(pids(), $before, 'in the same process');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
check_sane($node, 'w', 'a service whose workers leave');

$node->stop;
done_testing();
