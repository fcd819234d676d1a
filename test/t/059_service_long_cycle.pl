# A cycle of a service that has lasted for ten minutes ends when nobody is at work,
# whoever waits, and the next one begins.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('service_long_cycle');

add_warehouse($node, 'w', 4);

# In the place of waiting: the shared memory is a file, where that time is
# found that the history has, too.
sub set_back
{
	my ($from, $to) = @_;
	my $directory = $node->data_dir . '/pg_dynshmem';
	my $found = 0;

	foreach my $name (grep { /^mmap\./ } slurp_dir($directory))
	{
		open my $file, '+<:raw', "$directory/$name" or next;
		read $file, my $content, -s $file;
		my $at = index $content, pack('q', $from);

		if ($at >= 0)
		{
			seek $file, $at, 0;
			print $file pack('q', $to);
			$found++;
		}
		close $file;
	}
	return $found;
}

my $gate = hold_gate($node, 'w', 1);
$node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')");
wait_for_gate($node, 'w', 1);
my $started = $node->safe_psql('w',
	"SELECT (extract(epoch FROM started_at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::bigint FROM datamart_users_cycles");
is(set_back($started, $started - 601 * 1_000_000), 1, 'the cycle has lasted for ten minutes');
wait_for_sql($node, 'w', "SELECT started_at < clock_timestamp() - interval '10 minutes' FROM datamart_users_progress", 'as the service has it');
$node->safe_psql('w', 'INSERT INTO dwh.dimension_users VALUES (5)');

# It looks no more until then, and has nothing else to do.
wait_for_sql($node, 'w', "SELECT last_look_at < clock_timestamp() - interval '1 second' FROM datamart_users_service", 'it closes');
wait_for_sql($node, 'w', "SELECT a.wait_event IS NOT NULL FROM pg_stat_activity a JOIN datamart_users_service USING (pid)", 'and sleeps meanwhile');
my $looks = $node->safe_psql('w', 'SELECT looks FROM datamart_users_service');
open_gate($gate);
wait_for_sql($node, 'w', 'SELECT count(*) = 5 FROM dwh.datamartusers', 'who waited meanwhile is refreshed, and whoever comes');
wait_for_sql($node, 'w', "SELECT looks > $looks FROM datamart_users_service", 'it goes on looking');
is($node->safe_psql('w', 'SELECT status FROM datamart_users_cycles WHERE cycle_id = 1'), 'completed', 'that cycle has ended');
is($node->safe_psql('w', 'SELECT max(cycle_id) FROM datamart_users_cycles'), '2', 'and the next one has begun');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'the service ends well');
$node->stop;

done_testing();
