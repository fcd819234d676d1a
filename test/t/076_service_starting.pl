# A service gives way to somebody who renames its database, while one of its
# workers has just been asked for: that one cannot connect before the rename is
# over, which waits for the service to go.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('starting');

add_warehouse($node, 'w', 2);
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = FALSE');
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'a service starts');
wait_for_sql($node, 'w', "SELECT state = 'idle' AND workers = 0 FROM datamart_users_service", 'it has nothing to do');

# The one who renames has connected before the postmaster stops.
my $gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(4711)');
my $renamer = start_psql($node, 'postgres', [ 'SELECT pg_advisory_lock(4711)', 'ALTER DATABASE w RENAME TO v' ]);
my $inside = $node->background_psql('w');
wait_for_sql($node, 'postgres', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 'the renamer waits');

my $postmaster = $node->{_pid};
kill 'STOP', $postmaster;
$inside->query_safe('UPDATE dwh.dimension_users SET modified = TRUE');
my $asked = poll_in($inside, "SELECT workers > 0 FROM datamart_users_service");
$inside->quit;
$gate->query_safe('SELECT pg_advisory_unlock(4711)');
my $locked = poll_in($gate, "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND mode = 'AccessExclusiveLock' AND granted");
kill 'CONT', $postmaster;
ok($asked, 'it asks for a worker');
ok($locked, 'somebody renames the database');

my ($status, $stdout, $stderr) = finish($renamer);
is($status, 0, 'the service is not in the way') or diag $stderr;
is($node->safe_psql('v', 'SELECT count(*) FROM datamart_users_service'), 0, 'it has ended');
wait_for_idle($node);

$gate->quit;
$node->stop;
done_testing();

# No new session can be had meanwhile.
sub poll_in
{
	my ($session, $sql) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if $session->query($sql) =~ /t/;
		select(undef, undef, undef, 0.1);
	}
	return 0;
}
