# What bounds a CALL, and what does not; and why a cycle could not start.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('limits_and_reasons');
my ($caller, $gate, $status, $stdout, $stderr);

add_warehouse($node, 'w', 4);

my $run = 'SELECT status, processed, failed FROM datamart_users_run_cycle(NULL, 2)';
my $failures = 'SELECT dimension_user_id, sqlstate, message FROM datamart_users_failures';

#
# statement_timeout, from wherever it comes; the caller's own statement has none
#
sub test_limit
{
	my ($what, $before, $message, $after) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	reset_warehouse($node, 'w', 4, 2 => 'SELECT pg_sleep(600)');
	$node->safe_psql('w', $before->{admin}) if $before->{admin};
	is((run_psql($node, 'w', [ @{ $before->{session} // [] }, $run ], user => 'etl'))[1],
		'completed|3|1', "$what: costs one datamart user");
	like($node->safe_psql('w', $failures), qr/^2\|57014\|$message$/, "$what: and the message says which limit");
	$node->safe_psql('w', $after) if $after;
	return;
}

$node->safe_psql('w', <<'SQL');
CREATE ROLE etl LOGIN;
GRANT USAGE ON SCHEMA dwh TO etl;
GRANT ALL ON ALL TABLES IN SCHEMA dwh TO etl;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO etl;
SQL
my $statement = 'canceling refresh due to statement_timeout';
my $user = 'canceling refresh due to datamart_users.user_timeout';
my $settings = q(SET datamart_users.worker_settings = 'statement_timeout = %s');
my $call = 'ALTER PROCEDURE dwh.update_datamart_user(integer)';

test_limit('worker_settings', { session => [ sprintf($settings, '700ms') ] }, $statement);
test_limit('the procedure', { admin => "$call SET statement_timeout = '700ms'" },
	$statement, "$call RESET statement_timeout");
test_limit('the procedure, less than the session', {
		admin => "$call SET statement_timeout = '700ms'",
		session => [ sprintf($settings, '10min') ] },
	$statement, "$call RESET statement_timeout");
test_limit('the smaller one is user_timeout',
	{ session => [ sprintf($settings, '10min'), q(SET datamart_users.user_timeout = '700ms') ] }, $user);
test_limit('the smaller one is statement_timeout',
	{ session => [ sprintf($settings, '700ms'), q(SET datamart_users.user_timeout = '10min') ] }, $statement);

# By role and by database it holds for the caller's own statement, too, so
# only a cycle that goes on without him shows it.
for my $how ('ROLE etl', 'DATABASE w')
{
	reset_warehouse($node, 'w', 4, 2 => 'SELECT pg_sleep(600)');
	$node->safe_psql('w', "ALTER $how SET statement_timeout = '2s'");
	run_psql($node, 'w', 'SELECT datamart_users_start_cycle(NULL, 2)', user => 'etl');
	$node->safe_psql('w', "ALTER $how RESET statement_timeout");
	wait_for_idle($node);
	is(last_cycle($node, 'w', 'status, processed, failed'), 'completed|3|1', "ALTER $how: costs one datamart user");
	like($node->safe_psql('w', $failures), qr/^2\|57014\|$statement$/, "ALTER $how: and the message says so");
}

# Each CALL has its own; together they may take longer.
reset_warehouse($node, 'w', 4, map { $_ => 'SELECT pg_sleep(0.5)' } 1 .. 4);
is($node->safe_psql('w', sprintf($settings, '1500ms') . "; SELECT status, processed FROM datamart_users_run_cycle(NULL, 1)"),
	'completed|4', 'four CALLs, each within the limit, all together beyond it');

# A procedure that swallows it loses its process.
reset_warehouse($node, 'w', 4, 2 => <<'SQL');
DO $do$ BEGIN LOOP BEGIN PERFORM pg_sleep(0.05); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $do$
SQL
run_psql($node, 'w', [ sprintf($settings, '500ms'), $run ]);
wait_for_idle($node);
like($node->safe_psql('w', $failures), qr/^2\|57014\|$statement$/, 'swallowed: it is a failure of that datamart user');

# What the others do.
reset_warehouse($node, 'w', 4, map { $_ => 'SELECT pg_sleep(0.3)' } 1 .. 4);
is($node->safe_psql('w', "SET idle_in_transaction_session_timeout = '50ms'; SET idle_session_timeout = '50ms'; SELECT status, processed FROM datamart_users_run_cycle(NULL, 2)"),
	'completed|4', 'the limits for idle sessions are not for workers');
SKIP:
{
	skip 'no transaction_timeout', 1
	  if $node->safe_psql('w', q(SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout')) == 0;
	reset_warehouse($node, 'w', 4, map { $_ => 'SELECT pg_sleep(1)' } 1 .. 4);
	$node->safe_psql('w', q(ALTER ROLE etl SET transaction_timeout = '500ms'));
	run_psql($node, 'w', 'SELECT datamart_users_start_cycle(NULL, 2)', user => 'etl');
	wait_for_idle($node);
	is(last_cycle($node, 'w', 'status, processed'), 'completed|4', 'transaction_timeout is not for workers');
	$node->safe_psql('w', 'ALTER ROLE etl RESET transaction_timeout');
}
reset_warehouse($node, 'w', 4, 2 => 'LOCK TABLE dwh.behaviour IN ACCESS EXCLUSIVE MODE');
my $locker = $node->background_psql('w');
$locker->query_safe('BEGIN');
$locker->query_safe('LOCK TABLE dwh.behaviour IN ACCESS SHARE MODE');
is($node->safe_psql('w', q(SET lock_timeout = '100ms'; SELECT status, processed, failed, deferred FROM datamart_users_run_cycle(NULL, 1))),
	'completed|3|0|1', 'lock_timeout bounds each wait for a lock: a collision');
$locker->quit;
$node->safe_psql('w', 'SELECT datamart_users_retry()');

# What the doctor says of it.
like($node->safe_psql('w', q(SET statement_timeout = '30s'; SET datamart_users.user_timeout = '1min'; SELECT status, detail FROM datamart_users_check() WHERE item = 'timeouts')),
	qr/^ok\|.*30000 ms.*statement_timeout.*60000 ms.*user_timeout/, 'the doctor on the limits');
$node->safe_psql('w', "$call SET statement_timeout = '7s'");
like($node->safe_psql('w', q(SELECT detail FROM datamart_users_check() WHERE item = 'timeouts')),
	qr/7000 ms.*of the procedure/, 'and whose it is');
$node->safe_psql('w', "$call RESET statement_timeout");

#
# No signal disturbs a refresh that nobody wants to stop.
#
SKIP:
{
	skip 'no PL/Perl', 2
	  if $node->safe_psql('w', q(SELECT count(*) FROM pg_available_extensions WHERE name = 'plperlu')) == 0;
	reset_warehouse($node, 'w', 2);
	$node->safe_psql('w', <<'SQL');
CREATE EXTENSION plperlu;
CREATE TABLE dwh.slept (how text, seconds double precision);
CREATE FUNCTION dwh.nap() RETURNS void LANGUAGE plperlu AS $$
	use Time::HiRes qw(time);
	my $start = time;
	sleep 1;
	spi_exec_query("INSERT INTO dwh.slept VALUES ('sleep', " . (time - $start) . ")");
	$start = time;
	select(undef, undef, undef, 1.0);
	spi_exec_query("INSERT INTO dwh.slept VALUES ('select', " . (time - $start) . ")");
$$;
INSERT INTO dwh.behaviour VALUES (1, 'SELECT dwh.nap()'), (2, 'SELECT dwh.nap()');
SQL
	is($node->safe_psql('w', q(SET datamart_users.user_timeout = '1h'; SET statement_timeout = '1h'; SELECT status, processed FROM datamart_users_run_cycle(NULL, 2))),
		'completed|2', 'a procedure that sleeps outside the server');
	is($node->safe_psql('w', 'SELECT count(*), count(*) FILTER (WHERE seconds > 0.99) FROM dwh.slept'), '4|4', 'and for as long as it wants to');
	like($node->safe_psql('w', <<'SQL'), qr/^warning\|.*language plperlu/, 'the doctor says what a language means');
CREATE PROCEDURE dwh.in_perl(integer) LANGUAGE plperlu AS '';
SET datamart_users.procedure = 'dwh.in_perl';
SELECT status, detail FROM datamart_users_check() WHERE item = 'procedure';
SQL
}

#
# Why it could not start.  The caller is connected already, a new process is
# not let in.
#
sub test_start
{
	my ($what, $role, $close, $open, $sqlstate, $message, $doctor) = @_;
	my $session;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	reset_warehouse($node, 'w', 4);
	$session = $node->background_psql('w', on_error_stop => 0, extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);
	$session->query('SELECT 1');
	$node->safe_psql('postgres', $close);
	my $result = $session->query(q(SELECT status || ': ' || detail || coalesce(' ' || hint, '') FROM datamart_users_check() WHERE item = 'connections'));
	like($result, $doctor, "$what: the doctor");
	$session->{stderr} = '';
	$session->query('SELECT datamart_users_run_cycle()');
	like($session->{stderr}, qr/ERROR:\s+$sqlstate: .*$message/, "$what: the reason");
	unlike($session->{stderr}, qr/57P01/, "$what: and not that it was terminated");
	$node->safe_psql('postgres', $open);
	$session->{stderr} = '';
	like($session->query('SELECT status FROM datamart_users_run_cycle()'), qr/^completed/, "$what: mended");
	$session->quit;
	return;
}

$node->safe_psql('w', 'CREATE ROLE tools; GRANT etl TO tools');
test_start('ALLOW_CONNECTIONS false', 'etl', 'ALTER DATABASE w ALLOW_CONNECTIONS false', 'ALTER DATABASE w ALLOW_CONNECTIONS true',
	'55000', 'not currently accepting connections', qr/error: .*ALLOW_CONNECTIONS/);
test_start('REVOKE CONNECT', 'etl', 'REVOKE CONNECT ON DATABASE w FROM PUBLIC', 'GRANT CONNECT ON DATABASE w TO PUBLIC',
	'42501', 'permission denied for database', qr/error: .*GRANT CONNECT ON DATABASE w TO etl;/);
SKIP:
{
	skip 'a role may lose LOGIN', 4 if $node->safe_psql('w', q(SELECT current_setting('server_version_num')::int >= 170000)) eq 't';
	test_start('NOLOGIN', 'etl', 'ALTER ROLE etl NOLOGIN', 'ALTER ROLE etl LOGIN',
		'28000', 'is not permitted to log in', qr/error: .*LOGIN/);
}

# The limits of connections are for clients, and so are the libraries that a
# session loads by itself.  (Servers before 15.11 held the former against
# background workers, too.)
for my $change (['ROLE etl CONNECTION LIMIT 0', 'ROLE etl CONNECTION LIMIT -1'],
	['DATABASE w CONNECTION LIMIT 0', 'DATABASE w CONNECTION LIMIT -1'],
	[q(ROLE etl SET session_preload_libraries = 'nowhere'), 'ROLE etl RESET session_preload_libraries'],
	[q(DATABASE w SET local_preload_libraries = 'nowhere'), 'DATABASE w RESET local_preload_libraries'])
{
	my $session = $node->background_psql('w', on_error_stop => 0, extra_params => [ '-U', 'etl', '-v', 'VERBOSITY=verbose' ]);
	my $superuser = $node->background_psql('w');

	$superuser->query_safe('SELECT 1');
	reset_warehouse($node, 'w', 4);
	$session->query('SELECT 1');
	$superuser->query_safe("ALTER $change->[0]");
	$session->{stderr} = '';
	$stdout = $session->query('SELECT status FROM datamart_users_run_cycle()');
	ok($stdout eq 'completed' || $session->{stderr} =~ /ERROR:  (?!57P01)/, "$change->[0]: a cycle runs, or says why not")
	  or diag("$stdout $session->{stderr}");
	$superuser->query_safe("ALTER $change->[1]");
	$session->quit;
	$superuser->quit;
}

# The role is dropped under its session.
$node->safe_psql('w', 'CREATE ROLE gone LOGIN SUPERUSER');
my $orphan = $node->background_psql('w', on_error_stop => 0, extra_params => [ '-U', 'gone', '-v', 'VERBOSITY=verbose' ]);
$orphan->query('SELECT 1');
$node->safe_psql('w', 'DROP ROLE gone');
$orphan->{stderr} = '';
$orphan->query('SELECT datamart_users_run_cycle()');
like($orphan->{stderr}, qr/ERROR:  (?!57P01)/, 'a role that was dropped: an error that says so');
$orphan->quit;

# A worker that is not let in costs no more than itself.
reset_warehouse($node, 'w', 4);
$gate = $node->background_psql('w');
$gate->query_safe('BEGIN');
$gate->query_safe('LOCK TABLE dwh.facts IN ACCESS EXCLUSIVE MODE');
$caller = start_psql($node, 'w', $run);
wait_for_sql($node, 'w',
	"SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND pid IN (@{[pids_sql('coordinator')]})", 'it prioritises');
my $log = -s $node->logfile;
$node->safe_psql('postgres', 'ALTER DATABASE w ALLOW_CONNECTIONS false');
$gate->quit;
is((finish($caller))[1], 'completed|4|0', 'only the coordinator is connected: it does all');
like(slurp_file($node->logfile, $log), qr/1 of 2 workers did not take part\n.*DETAIL:\s+.*not currently accepting connections/, 'and the log says why');
$node->safe_psql('postgres', 'ALTER DATABASE w ALLOW_CONNECTIONS true');

$node->stop;
done_testing();
