# A rehearsal beside everything else: a cycle, a lock of its own caller, a
# cancel, the end of its client or of its process, another server.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('try');
my $try = 'SELECT dimension_user_id, outcome, sqlstate FROM datamart_users_try';
my $rehearsals = "SELECT pid FROM pg_stat_activity WHERE application_name = 'datamart_users rehearsal'";
my ($gate, $caller, $other, $pid, $stdout, $stderr);

add_warehouse($node, 'w', 3);

sub wait_for_rehearsal
{
	wait_for_gate($node, 'w', 1);
	return $node->safe_psql('w', $rehearsals);
}

# Nothing of it is left, in the warehouse or in the server.
sub check_untouched
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('w', <<'SQL'), '0|3|0', "$what: nothing has changed");
SELECT (SELECT count(*) FROM dwh.datamartusers),
	(SELECT count(*) FROM dwh.dimension_users WHERE modified),
	(SELECT count(*) FROM datamart_users_failures)
SQL
	check_sane($node, 'w', $what);
	return;
}

#
# It is a process of no cycle: others see none, and one can begin
#
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', "$try(2)");
wait_for_rehearsal();
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_progress'), '0', 'it is no cycle');
is($node->safe_psql('w', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2"),
	'0', 'and has none of their locks');
$other = start_psql($node, 'w', 'SELECT status, processed, workers FROM datamart_users_run_cycle(NULL, 1)');
wait_for_gate($node, 'w', 2);
open_gate($gate);
(undef, $stdout, $stderr) = finish($caller);
is($stdout, '2|processed|', 'a rehearsal beside a cycle');
(undef, $stdout, $stderr) = finish($other);
is($stdout, 'completed|3|1', 'a cycle beside a rehearsal');
check_sane($node, 'w', 'both');

# A cycle that is running does not keep it from beginning.
reset_warehouse($node, 'w', 3);
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', 'SELECT status, processed FROM datamart_users_run_cycle(NULL, 1)');
wait_for_gate($node, 'w', 1);
$other = start_psql($node, 'w', "$try(3)");
wait_for_gate($node, 'w', 2);
open_gate($gate);
(undef, $stdout, $stderr) = finish($other);
is($stdout, '3|processed|', 'a rehearsal while a cycle is running');
finish($caller);
check_sane($node, 'w', 'a rehearsal while a cycle is running');

#
# Ways to end it
#
reset_warehouse($node, 'w', 3);
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', "$try()");
wait_for_rehearsal();
$node->safe_psql('w', "SELECT pg_cancel_backend(@{[backend_pid($node, 'caller')]})");
(undef, $stdout, $stderr) = finish($caller);
is(sqlstate($stderr), '57014', 'the caller is cancelled');
check_untouched('cancelled');

$caller = start_psql($node, 'w', "$try()");
wait_for_rehearsal();
kill 'KILL', $caller->{pid};
eval { finish($caller) };
check_untouched('the client is gone');

$caller = start_psql($node, 'w', "$try()");
$pid = wait_for_rehearsal();
$node->safe_psql('w', "SELECT pg_terminate_backend($pid)");
(undef, $stdout, $stderr) = finish($caller);
is(sqlstate($stderr), '57P01', 'its process is terminated');
check_untouched('terminated');

$caller = start_psql($node, 'w', "$try()");
$pid = wait_for_rehearsal();
$node->safe_psql('w', "SELECT pg_cancel_backend($pid)");
(undef, $stdout, $stderr) = finish($caller);
is($stdout, '1|failed|57014', 'its process is cancelled: so would the refresh be');
check_untouched('process cancelled');

$caller = start_psql($node, 'w', [ "SET datamart_users.user_timeout = '100ms'", "$try()" ]);
(undef, $stdout, $stderr) = finish($caller);
is($stdout, '1|failed|57014', 'it heeds user_timeout');
check_untouched('out of time');
open_gate($gate);

# One that cannot be cancelled
behave($node, 'w', 1, 'DO $do$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN END; END LOOP; END $do$');
(undef, $stdout, $stderr) =
  run_psql($node, 'w', [ "SET datamart_users.user_timeout = '100ms'", 'SELECT outcome, sqlstate, hint FROM datamart_users_try(1)' ]);
like($stdout, qr/^failed\|57014\|The procedure did not end when it was canceled/, 'a procedure that swallows its cancel');
check_untouched('cancel swallowed');
$node->safe_psql('w', 'TRUNCATE dwh.behaviour');

#
# A lock of its own caller, whom the deadlock check does not see
#
$node->safe_psql('w', <<'SQL');
CREATE FUNCTION dwh.locked_try() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	LOCK TABLE dwh.datamartusers IN ACCESS EXCLUSIVE MODE;
	RETURN (SELECT outcome FROM datamart_users_try());
END $$;
SQL
(undef, $stdout, $stderr) = run_psql($node, 'w', 'SELECT dwh.locked_try()');
like(sqlstate($stderr), qr/^(40P01|25001)$/, 'the lock is the caller\'s own');
check_untouched('own lock');

#
# Other transactions: 40001 three times is what a cycle would defer
#
behave($node, 'w', 1, 'INSERT INTO dwh.behaviour VALUES (7, 1)');
$other = $node->background_psql('w');
$other->query_safe('BEGIN; UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 2');
(undef, $stdout, $stderr) = run_psql($node, 'w', "$try(2)");
is($stdout, '2|deferred|55P03', 'whose row is locked is deferred');
$other->query_safe('ROLLBACK');
$other->quit;
$node->safe_psql('w', 'TRUNCATE dwh.behaviour');
check_untouched('deferred');

#
# No process is free
#
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
(undef, $stdout, $stderr) = run_psql($node, 'w', "$try()");
is(sqlstate($stderr), '53000', 'no process is free');
$node->append_conf('postgresql.conf', 'max_worker_processes = 16');
$node->restart;

#
# The extension goes meanwhile: nobody waits for anybody
#
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', "$try(1)");
wait_for_rehearsal();
$node->safe_psql('w', 'BEGIN; DROP EXTENSION datamart_users; ROLLBACK');
open_gate($gate);
(undef, $stdout, $stderr) = finish($caller);
is($stdout, '1|processed|', 'DROP EXTENSION does not wait for it');
check_untouched('dropped meanwhile');

#
# Another server commits with us, or not at all
#
SKIP:
{
	skip 'no postgres_fdw', 3
	  if $node->safe_psql('w', "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'") == 0;
	my $connection = sprintf q{host '%s', port '%s', dbname 'w'}, $node->host, $node->port;

	$node->safe_psql('w', <<"SQL");
CREATE EXTENSION postgres_fdw;
CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw OPTIONS ($connection);
CREATE USER MAPPING FOR CURRENT_USER SERVER there;
CREATE SCHEMA there;
IMPORT FOREIGN SCHEMA dwh LIMIT TO (dimension_users, datamartusers, facts) FROM SERVER there INTO there;
SQL
	(undef, $stdout, $stderr) = run_psql($node, 'w', [ "SET datamart_users.users_table = 'there.dimension_users'", "$try(1)" ]);
	is($stdout, '1|processed|', 'a users table in another server');
	is($stderr, '', 'without a complaint');
	check_untouched('another server');
}

$node->stop;
done_testing();
