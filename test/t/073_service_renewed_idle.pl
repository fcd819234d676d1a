# A coordinator that has worked itself prepares for that anew when settings have
# changed; a service with nothing to do holds the extension no longer than that.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('renewed_idle', conf => "max_worker_processes = 2\n");

# The service, and the launcher of logical replication.
add_warehouse($node, 'w', 2);
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'a service that has no worker');
wait_for_sql($node, 'w', "SELECT state = 'idle' AND cycles = 1 FROM datamart_users_service", 'it has nothing more to do');
is($node->safe_psql('w', 'SELECT workers FROM datamart_users_service'), '0', 'its coordinator did it');
my $offset = -s $node->logfile;
$node->safe_psql('w', "ALTER DATABASE w SET work_mem = '5MB'");
$node->wait_for_log(qr/takes over changed settings/, $offset);
my $looks = $node->safe_psql('w', 'SELECT looks FROM datamart_users_service');
wait_for_sql($node, 'w', "SELECT looks > $looks + 1 FROM datamart_users_service", 'it goes on looking');
is($node->safe_psql('w', <<'SQL'), '0', 'and holds nothing of the extension');
SELECT count(*) FROM pg_locks JOIN datamart_users_service USING (pid)
WHERE locktype = 'object' AND classid = 'pg_extension'::regclass
SQL
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
check_sane($node, 'w', 'renewed while idle');

$node->stop;
done_testing();
