# Where no process can come in the place of a worker that has left, the service goes
# on with those that it has, its coordinator if need be, and tries again later.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('no_successor');

add_warehouse($node, 'w', 6);

# What its session names is gone when the next process takes over its settings.
$node->safe_psql('w', 'CREATE TEXT SEARCH CONFIGURATION public.going (COPY = simple)');
my $gate = hold_gate($node, 'w', 1);
is($node->safe_psql('w', <<'SQL'), 't', 'a service with one worker, which leaves after each');
SET default_text_search_config = 'public.going';
SET datamart_users.worker_memory_limit = '64kB';
SELECT datamart_users_start_service(1, '50 ms');
SQL
wait_for_gate($node, 'w', 1);
$node->safe_psql('w', 'DROP TEXT SEARCH CONFIGURATION public.going');
my $offset = -s $node->logfile;
open_gate($gate);
wait_for_sql($node, 'w', 'SELECT count(*) = 0 FROM dwh.dimension_users WHERE modified', 'all are refreshed');
my $log = substr(slurp_file($node->logfile), $offset);
like($log, qr/service goes on with 0 workers, of 1 that it may have\s.*DETAIL: .*going/s, 'and the log tells why none comes');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
is(last_cycle($node, 'w', 'status, processed, failed, workers'), 'completed|6|0|2', 'the history has him who left, too');
check_sane($node, 'w', 'no successor');

$node->stop;
done_testing();
