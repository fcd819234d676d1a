# A cycle and a standby: none on it, all of it there once it is promoted, and
# with a synchronous one what was reported has arrived.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $run = 'SELECT status, found, processed, failed, workers FROM datamart_users_run_cycle(NULL, 2)';
my ($stdout, $stderr);

# On the primary nobody sends WAL but who has to.
my $primary = new_node('primary', init => { allows_streaming => 1 }, conf => <<'CONF');
max_connections = 30
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
CONF
$primary->backup('backup');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

add_warehouse($primary, 'w', 50);
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

#
# A hot standby is read-only.
#
for my $call ('datamart_users_run_cycle()', 'datamart_users_start_cycle()')
{
	(undef, undef, $stderr) = run_psql($standby, 'w', "SELECT $call");
	is(sqlstate($stderr), '25006', "$call on a hot standby");
	like($stderr, qr/HINT:  .*primary/, 'with a hint');
}
is($standby->safe_psql('w', 'SELECT count(*) FROM datamart_users_queue()'), 50, 'the queue can be looked at there');
is($standby->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 'f', 'there is no cycle to cancel');
is( $standby->safe_psql('w', q{SELECT string_agg(item || ' ' || status, ', ') FROM datamart_users_check() WHERE status = 'error'}),
	'server error',
	'the doctor works there, and says why no cycle does');
is($standby->safe_psql('w', 'SELECT datamart_users_report()'), 'There was no cycle yet.', 'so does the report');
is($standby->safe_psql('postgres', workers_sql()), 0, 'and no process waits for a promotion');

(undef, undef, $stderr) = run_psql($primary, 'w', [ 'SET default_transaction_read_only = on', $run ]);
is(sqlstate($stderr), '25006', 'read-only transaction');

#
# A synchronous standby: what the returned cycle reports is there, though the
# workers' commits are asynchronous.
#
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'standby'");
$primary->reload;
$primary->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
  or die 'the standby is not synchronous';

# First that the cycle waits for it at all: hold the standby back.
$standby->stop;
my $caller = start_psql($primary, 'w', $run);
wait_for_sql($primary, 'postgres',
	"SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid IN (@{[pids_sql('coordinator')]})",
	'the cycle waits for the standby');
is($caller->{stdout}, '', 'a cycle does not return before the standby has it');
$standby->start;
(undef, $stdout) = finish($caller);
is($stdout, 'completed|50|50|0|2', 'and returns when it has');

# The workers do not wait for it.
reset_warehouse($primary, 'w', 100);
(undef, $stdout) = run_psql($primary, 'w', $run);
$primary->stop('immediate');
is($stdout, 'completed|100|100|0|2', 'a cycle with a synchronous standby');

#
# Promotion
#
$standby->promote;
is($standby->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE NOT modified'), 100, 'all that it reported is on the promoted standby');
is($standby->safe_psql('w', 'SELECT count(*) FROM dwh.datamartusers'), 100, 'with its work');
is(last_cycle($standby, 'w', 'status, processed'), 'completed|100', 'and its history');
check_sane($standby, 'w', 'promoted');

$standby->safe_psql('w', 'INSERT INTO dwh.facts SELECT 1 + i % 100, now() FROM generate_series(1, 1000) i; UPDATE dwh.dimension_users SET modified = TRUE');
is($standby->safe_psql('w', $run), 'completed|100|100|0|2', 'and cycles run there');
check_sane($standby, 'w', 'on the promoted standby');

# A cycle that was running on a primary that is lost, is aborted on the one
# that takes over.
my $third = PostgreSQL::Test::Cluster->new('third');
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$standby->reload;
$standby->backup('backup2');
$third->init_from_backup($standby, 'backup2', has_streaming => 1);
$third->start;
$standby->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
my $gate = hold_gate($standby, 'w');
$caller = start_psql($standby, 'w', $run);
wait_for_gate($standby, 'w', 2);
$standby->wait_for_catchup($third, 'replay', $standby->lsn('flush'));
is(last_cycle($third, 'w', 'status'), 'running', 'a standby shows a running cycle');
$standby->stop('immediate');
finish($caller);
open_gate($gate);
$third->promote;
is($third->safe_psql('w', $run), 'completed|100|100|0|2', 'the next cycle runs on the one that takes over');
is($third->safe_psql('w', 'SELECT status FROM datamart_users_cycles ORDER BY cycle_id DESC OFFSET 1 LIMIT 1'), 'aborted', 'and the one before is aborted');
check_sane($third, 'w', 'taken over');

$third->stop;
done_testing();
