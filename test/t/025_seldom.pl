# What happens seldom: queues beyond their first allocation, waits of hours
# told to people, a failure that cannot be written down, a storm of DDL.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_node('seldom');
my ($gate, $caller, $other, $stdout, $stderr);

add_warehouse($node, 'w', 3000);

#
# More than the coordinator makes room for at first
#
is($node->safe_psql('w', 'SELECT status, found, processed FROM datamart_users_run_cycle(3000, 2)'), 'completed|3000|3000', 'a long queue');
check_sane($node, 'w', 'a long queue');

#
# One of many is through, the next one stands still: how long will it take?
#
for my $case ([ 3000, qr/ 1\/3000 datamart users \(0%\), .* \d+:\d\d:\d\d h left/ ], [ 100, qr/ 1\/100 datamart users \(1%\), .* \d+:\d\d min left/ ])
{
	my ($users, $pattern) = @$case;

	reset_warehouse($node, 'w', $users);
	$gate = hold_gate($node, 'w', 2);
	$caller = start_psql($node, 'w', [ "SET datamart_users.progress_interval = '20ms'", "SELECT status FROM datamart_users_run_cycle($users, 1)" ]);
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while ($caller->{stderr} !~ $pattern && time < $deadline)
	{
		$caller->{run}->pump_nb;
		usleep(20_000);
	}
	like($caller->{stderr}, $pattern, "$users datamart users: the time left");
	$node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()');
	(undef, $stdout, undef) = finish($caller);
	is($stdout, 'cancelled', "$users datamart users: and it can be cancelled");
	open_gate($gate);
}

#
# A failure that cannot be written down: told, and the cycle goes on
#
# The datamart user with the number 7 of the gate is none: it is held before it fails.
my $passes = 'PERFORM pg_advisory_xact_lock_shared(4711, 7);';

reset_warehouse($node, 'w', 3, 1 => "DO \$do\$ BEGIN $passes PERFORM 1/0; END \$do\$");
$gate = hold_gate($node, 'w', 7);
my $offset = -s $node->logfile;
$caller = start_psql($node, 'w', 'SELECT status, processed, failed FROM datamart_users_run_cycle(NULL, 1)');
wait_for_gate($node, 'w', 1);
$other = $node->background_psql('w');
$other->query_safe($_) for 'BEGIN', 'LOCK TABLE datamart_users_failures IN SHARE MODE';
open_gate($gate);
wait_for_sql($node, 'w', q(SELECT count(*) = 1 FROM datamart_users_workers WHERE state = 'recording a failure'), 'the worker waits to write the failure down');
(undef, $stdout, $stderr) = finish($caller);
is($stdout, 'completed|2|1', 'the cycle goes on') or diag($stderr);
like(slurp_file($node->logfile, $offset), qr/WARNING:  datamart_users cycle \d+ in database "\w+": could not record the failure of datamart user 1: canceling statement due to lock timeout/, 'the log says so');
$other->quit;
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), '0', 'nothing is written');
check_sane($node, 'w', 'a failure that is not written down');

#
# More changes of tables during a refresh than it keeps in mind
#
$node->safe_psql('w', 'CREATE TABLE dwh.rates (v integer); INSERT INTO dwh.rates VALUES (1)');
reset_warehouse($node, 'w', 2, 1 => 'UPDATE dwh.datamartusers SET refreshed_by = (SELECT count(*)::text FROM dwh.rates) WHERE dimension_user_id = 1');
$gate = hold_gate($node, 'w', 1);
$caller = start_psql($node, 'w', 'SELECT status, processed FROM datamart_users_run_cycle(NULL, 1)');
wait_for_gate($node, 'w', 1);
$node->safe_psql('w', <<'SQL');
DO $$
BEGIN
	FOR i IN 1 .. 1200 LOOP
		EXECUTE format('CREATE TABLE dwh.storm_%s ()', i);
	END LOOP;
END
$$;
SQL
open_gate($gate);
(undef, $stdout, $stderr) = finish($caller);
is($stdout, 'completed|2', 'tables that were not read change nothing') or diag($stderr);
check_sane($node, 'w', 'a storm');

# A table that was emptied in the storm, before it was read: the snapshot is older.
reset_warehouse($node, 'w', 2, 1 => <<"SQL");
DO \$do\$
BEGIN
	$passes
	UPDATE dwh.datamartusers SET refreshed_by = (SELECT count(*)::text FROM dwh.rates) WHERE dimension_user_id = 1;
END
\$do\$
SQL
$gate = hold_gate($node, 'w', 7);
$caller = start_psql($node, 'w', 'SELECT status, processed FROM datamart_users_run_cycle(NULL, 1)');
wait_for_gate($node, 'w', 1);
$node->safe_psql('w', <<'SQL');
DO $$ BEGIN FOR i IN 1 .. 1200 LOOP EXECUTE format('DROP TABLE dwh.storm_%s', i); END LOOP; END $$;
BEGIN;
TRUNCATE dwh.rates;
INSERT INTO dwh.rates VALUES (1), (2);
COMMIT;
SQL
open_gate($gate);
(undef, $stdout, $stderr) = finish($caller);
is($stdout, 'completed|2', 'a storm and an emptied table') or diag($stderr);
is($node->safe_psql('w', 'SELECT refreshed_by FROM dwh.datamartusers WHERE dimension_user_id = 1'), '2', 'what was stored is what the table has now');
check_sane($node, 'w', 'a storm and an emptied table');

$node->stop;
done_testing();
