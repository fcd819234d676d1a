# An idle service writes nothing and is in nobody's way.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# At this level of WAL the server writes none by itself.
my $node = new_node('idle', conf => <<'CONF');
wal_level = minimal
max_wal_senders = 0
checkpoint_timeout = 1d
CONF

my $pids = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'datamart_users %'";

sub wait_for_looks
{
	my ($count) = @_;
	my $looks = $node->safe_psql('w', 'SELECT looks FROM datamart_users_service');

	wait_for_sql($node, 'w', "SELECT looks >= $looks + $count FROM datamart_users_service", 'it has looked');
	return;
}

add_warehouse($node, 'w', 3);
is($node->safe_psql('w', "SELECT datamart_users_start_service(2, '100 ms')"), 't', 'a service');
wait_for_sql($node, 'w', "SELECT state = 'idle' AND workers > 0 FROM datamart_users_service", 'it is idle, and keeps a worker');

my $lsn = $node->safe_psql('w', 'SELECT pg_current_wal_insert_lsn()');
wait_for_looks(20);
is($node->safe_psql('w', 'SELECT pg_current_wal_insert_lsn()'), $lsn, 'no WAL in twenty looks');
wait_for_sql($node, 'w', "SELECT count(*) = 0 FROM pg_locks WHERE locktype NOT IN ('advisory') AND pid IN ($pids)", 'it holds no lock from look to look');
wait_for_sql($node, 'w', "SELECT count(*) = 0 FROM pg_stat_activity WHERE (xact_start IS NOT NULL OR backend_xmin IS NOT NULL) AND pid IN ($pids)", 'and no snapshot');
wait_for_sql($node, 'w', "SELECT n_tup_upd = 3 FROM pg_stat_user_tables WHERE relname = 'dimension_users'", 'the statistics of its work are there');

# Those who would wait for a lock or a snapshot.
$node->safe_psql('w', $_)
  for "SET lock_timeout = '10s'; ALTER TABLE dwh.facts ADD COLUMN more integer",
  "SET lock_timeout = '10s'; VACUUM FULL dwh.dimension_users",
  'CREATE INDEX CONCURRENTLY ON dwh.facts (more)';
pass('nobody waits for it');
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
wait_for_sql($node, 'w', 'SELECT count(*) = 3 FROM dwh.datamartusers WHERE refreshes = 2', 'it goes on afterwards');
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'and is idle again');

# Nobody is held by back-off for its sake: who failed is not looked at again
# before its time, and that is no work.
behave($node, 'w', 1, q(DO 'BEGIN RAISE ''bad data''; END'));
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 1');
wait_for_sql($node, 'w', 'SELECT count(*) = 1 FROM datamart_users_failures', 'one fails');
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it is idle with that');
my $cycles = $node->safe_psql('w', 'SELECT cycles FROM datamart_users_service');
wait_for_looks(10);
is($node->safe_psql('w', 'SELECT cycles FROM datamart_users_service'), $cycles, 'and stays so');
$node->safe_psql('w', 'DELETE FROM dwh.behaviour; SELECT datamart_users_retry(1)');
wait_for_sql($node, 'w', 'SELECT NOT modified FROM dwh.dimension_users WHERE dimension_user_id = 1', 'until the back-off is lifted');

is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
check_sane($node, 'w', 'an idle service');

# Invalidations: more than the server keeps for those who lag behind.  An
# idle worker that lost them would say so when it begins to work again.
is($node->safe_psql('w', "SET log_min_messages = debug4; SELECT datamart_users_start_service(1, '100 ms')"), 't', 'a service that logs much');
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
wait_for_sql($node, 'w', "SELECT state = 'idle' AND workers > 0 FROM datamart_users_service", 'its worker is idle');
my $logged = -s $node->logfile;
$node->safe_psql('w', join(';', ('CREATE TABLE dwh.gone (a integer PRIMARY KEY); DROP TABLE dwh.gone') x 50)) for 1 .. 10;
my $worker = $node->safe_psql('w', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'datamart_users worker'");
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 2');
wait_for_sql($node, 'w', 'SELECT NOT modified FROM dwh.dimension_users WHERE dimension_user_id = 2', 'it works again');
my $log = substr(slurp_file($node->logfile), $logged);
unlike($log, qr/cache state reset/, 'and has not lost any');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');

$node->stop;
done_testing();
