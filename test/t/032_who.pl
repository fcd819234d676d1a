# Why a worker stands still, who started a cycle, and who stopped it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('who', conf => 'max_prepared_transactions = 2');
my ($gate, $caller, $holder, $stdout, $stderr, $pid, $id);
my $run = 'SELECT status, processed, failed, deferred FROM datamart_users_run_cycle(NULL, 2)';

add_warehouse($node, 'w', 6);
$node->safe_psql('w', <<'SQL');
CREATE ROLE etl LOGIN;
CREATE ROLE job;
GRANT job TO etl;
CREATE ROLE dba LOGIN IN ROLE pg_signal_backend;
CREATE ROLE mon LOGIN IN ROLE pg_monitor;
CREATE ROLE guest LOGIN;
GRANT USAGE ON SCHEMA dwh TO etl, job;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA dwh TO etl, job;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO etl, job, dba;
GRANT EXECUTE ON FUNCTION datamart_users_report TO guest;
GRANT SELECT ON datamart_users_workers TO guest;
GRANT SELECT ON datamart_users_progress TO etl;
SQL

sub sql
{
	my ($sql, %options) = @_;

	return $node->safe_psql('w', $sql) unless %options;
	(undef, $stdout, $stderr) = run_psql($node, 'w', $sql, %options);
	diag($stderr) if sqlstate($stderr) ne '';
	return $stdout;
}

sub last_row
{
	my ($columns) = @_;

	return sql("SELECT $columns FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 1");
}

# Two workers, each in the midst of a refresh.
sub begin
{
	my (%options) = @_;
	my $sql = delete $options{sql} // [$run];

	sql('UPDATE dwh.dimension_users SET modified = TRUE; DELETE FROM datamart_users_failures; DELETE FROM datamart_users_attempts');
	$gate = hold_gate($node, 'w');
	$caller = start_psql($node, 'w', $sql, name => 'nightly load', user => 'etl', %options);
	wait_for_gate($node, 'w', 2);
	return;
}

sub end
{
	open_gate($gate);
	(undef, $stdout, $stderr) = finish($caller);
	wait_for_idle($node);
	return;
}

#
# Who started it
#
begin(sql => [ 'SET ROLE job', $run ]);
$pid = backend_pid($node, 'nightly load');
is(last_row('role_name, session_role, application_name, caller_pid = ' . $pid), 'job|etl|nightly load|t', 'who started it');
like(sql('SELECT datamart_users_report()'), qr/^  called by application nightly load, logged in as etl$/m, 'the report says so');
end();
is($stdout, 'completed|6|0|0', 'it completes');
is(last_row('message IS NULL, session_role'), 't|etl', 'of a plain end there is nothing to say');

#
# Who stopped it
#
sub stopped
{
	my ($what, $pattern) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for_idle($node);
	end();
	is(last_row('status'), 'cancelled', "$what: status");
	like(last_row('message'), $pattern, "$what: message");
	like(sql('SELECT datamart_users_report()'), qr/^  canceled /m, "$what: the report");
	return;
}

begin();
is(sql('SELECT datamart_users_cancel_cycle((SELECT cycle_id FROM datamart_users_progress))', user => 'etl', name => 'console'), 't', 'canceled');
stopped('cancel_cycle()', qr/^canceled by datamart_users_cancel_cycle\(\), called by role "etl" \(process \d+, application "console"\)$/);

begin();
$pid = backend_pid($node, 'nightly load');
sql("SELECT pg_cancel_backend($pid)");
stopped('canceled caller', qr/^canceled with the statement of its caller, role "etl" \(process $pid, application "nightly load"\): canceling statement due to user request$/);

begin();
kill 'INT', $caller->{pid};
stopped('Ctrl-C', qr/^canceled with the statement of its caller, role "etl" .*: canceling statement due to user request$/);

begin(sql => [ q(SET statement_timeout = '2s'), $run ]);
stopped('statement_timeout', qr/^canceled with the statement of its caller, role "etl" .*: canceling statement due to statement timeout$/);

begin();
kill 'KILL', $caller->{pid};
stopped('client that has gone', qr/^canceled because the client of its caller has gone, role "etl" \(process \d+, application "nightly load"\)$/);

begin(sql => [ 'SET ROLE job', $run ]);
sql('SELECT pg_terminate_backend(' . backend_pid($node, 'nightly load') . ')');
stopped('terminated caller', qr/^canceled because the session of its caller was terminated, role "etl" as "job" \(process \d+, application "nightly load"\)$/);

# The caller holds what a worker waits for.
sql('UPDATE dwh.dimension_users SET modified = TRUE');
(undef, $stdout, $stderr) = run_psql($node, 'w', [ 'SELECT pg_advisory_lock(4711, 0)', $run ], user => 'etl');
is(sqlstate($stderr), '40P01', 'a deadlock with the caller');
wait_for_idle($node);
like(last_row('message'), qr/^canceled with the statement of its caller, .*: deadlock detected between this session and the cycle/, 'a deadlock with the caller: message');

# Whoever comes first is told of.
begin();
$pid = backend_pid($node, 'nightly load');
is(sql('SELECT datamart_users_cancel_cycle((SELECT cycle_id FROM datamart_users_progress)), pg_cancel_backend(' . $pid . ')', user => 'etl', name => 'both') =~ s/\|.*//r, 't', 'two at once');
stopped('two at once', qr/application "both"\)$/);

# Texts of errors are not kept; who it was is none.
begin(sql => [ $run ]);
sql('SELECT datamart_users_cancel_cycle((SELECT cycle_id FROM datamart_users_progress))');
stopped('a superuser', qr/^canceled by datamart_users_cancel_cycle\(\), called by role "/);

#
# A worker that somebody cancels
#
begin();
$pid = worker_pid($node, 2);
$id = worker_user($node, 2);
$holder = $node->background_psql('w');
my $by = $holder->query_safe('SELECT pg_backend_pid()');
$holder->query_safe("SELECT pg_cancel_backend($pid)");
wait_for_sql($node, 'w', 'SELECT count(*) = 1 FROM datamart_users_attempts', 'it is written down');
wait_for_gate($node, 'w', 2);
is(worker_pid($node, 2), $pid, 'the worker goes on');
end();
is($stdout, 'completed|5|0|1', 'the datamart user is deferred');
my $me = sql('SELECT session_user');
is(sql('SELECT dimension_user_id, outcome, sqlstate, message, charged FROM datamart_users_attempts'),
	"$id|deferred|57014|refresh was canceled by process $by of role \"$me\"|f", 'told by whom');
is(sql('SELECT (SELECT count(*) FROM datamart_users_failures), (SELECT count(*) FROM datamart_users_contention)'), '0|0', 'no back-off');
is(sql('SELECT dimension_user_id FROM dwh.dimension_users WHERE modified'), $id, 'it stays modified');
is(sql($run), 'completed|1|0|0', 'and the next cycle takes it');
$holder->quit;

# A procedure that turns the cancel into an error of its own.
sql(q(INSERT INTO dwh.behaviour SELECT i, $b$DO $d$BEGIN PERFORM pg_advisory_xact_lock_shared(4711, 0);
	EXCEPTION WHEN query_canceled THEN RAISE EXCEPTION 'mine'; END$d$$b$ FROM generate_series(1, 6) i));
begin();
sql('SELECT pg_cancel_backend(' . worker_pid($node, 2) . ')');
wait_for_sql($node, 'w', 'SELECT count(*) = 1 FROM datamart_users_attempts', 'it is written down');
end();
is($stdout, 'completed|5|0|1', 'an error of the procedure after a cancel');
like(sql('SELECT message FROM datamart_users_attempts'), qr/^refresh was canceled by process /, 'is told as the cancel');
sql('DELETE FROM dwh.behaviour');

# What only looks like it.
for (
	[ q(DO 'BEGIN RAISE query_canceled; END'), '57014', 'a procedure that raises it' ],
	[ 'SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(10)', '57014', 'a procedure that cancels itself' ])
{
	my ($what, $sqlstate, $name) = @$_;

	for my $workers (1, 2)
	{
		reset_warehouse($node, 'w', 4, 1 => $what);
		sql('DELETE FROM datamart_users_attempts');
		is(sql("SELECT status, processed, failed, deferred FROM datamart_users_run_cycle(NULL, $workers)"), 'completed|3|1|0', "$name: workers: $workers");
		is(sql('SELECT dimension_user_id, sqlstate FROM datamart_users_failures'), "1|$sqlstate", "$name: workers: $workers: a failure");
	}
}
reset_warehouse($node, 'w', 4, 1 => 'SELECT pg_sleep(60)');
is(sql(q(SET datamart_users.user_timeout = '200ms'; SELECT status, processed, failed, deferred FROM datamart_users_run_cycle(NULL, 2))), 'completed|3|1|0', 'user_timeout');
is(sql('SELECT message FROM datamart_users_failures'), 'canceling refresh due to datamart_users.user_timeout', 'user_timeout: a failure');
reset_warehouse($node, 'w', 6);

# A coordinator that somebody cancels.
begin();
sql('SELECT pg_cancel_backend(' . worker_pid($node, 1) . ')');
wait_for_idle($node);
end();
is(sqlstate($stderr), '57014', 'coordinator: the caller is told');
is(last_row('status'), 'aborted', 'coordinator: the cycle has ended');
like(last_row('message'), qr/^canceling cycle because its coordinator was canceled by process \d+( of role "\Q$me\E")?$/, 'coordinator: by whom');
is(sql('SELECT count(*) FROM datamart_users_failures'), 0, 'coordinator: nobody has a back-off');

my $locker = $node->background_psql('w');
$locker->query_safe($_) for 'BEGIN', 'LOCK TABLE dwh.facts';
$caller = start_psql($node, 'w', $run);
wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND pid IN (@{[pids_sql('coordinator')]})", 'the coordinator waits');
sql("SELECT pg_cancel_backend(pid) FROM (@{[pids_sql('coordinator')]}) AS c");
finish($caller);
wait_for_idle($node);
$locker->quit;
like(last_row('message'), qr/^canceling cycle because its coordinator was canceled by process /, 'in the prioritisation: by whom');

#
# Why a worker stands still
#
sql(q(INSERT INTO dwh.behaviour VALUES (1, 'SELECT FROM dwh.shared WHERE id = 1 FOR UPDATE'); CREATE TABLE dwh.shared AS SELECT 1 AS id; GRANT ALL ON dwh.shared TO etl));
sql('UPDATE dwh.dimension_users SET modified = (dimension_user_id = 1)');
$holder = $node->background_psql('w');
$by = $holder->query_safe('SELECT pg_backend_pid()');
$holder->query_safe($_) for q(SET application_name = 'holder'), 'BEGIN', 'SELECT FROM dwh.shared WHERE id = 1 FOR UPDATE';
$caller = start_psql($node, 'w', $run, name => 'nightly load', user => 'etl');
wait_for_sql($node, 'w', "SELECT wait_event_type = 'Lock' FROM datamart_users_workers WHERE worker = 1", 'the worker waits');
my $columns = q(wait_event_type, wait_event, blocking_pids, blocking_role, blocking_state, blocking_since <= now(), btrim(blocking_query, E' ;\n'));
my $told = "Lock|transactionid|{$by}|$me|idle in transaction|t|SELECT FROM dwh.shared WHERE id = 1 FOR UPDATE";
is(sql("SELECT $columns FROM datamart_users_workers"), $told, 'a worker that waits, and for whom');
is(sql("SELECT $columns FROM datamart_users_workers", user => 'mon'), $told, 'pg_monitor sees it');
is(sql("SELECT dimension_user_id, $columns FROM datamart_users_workers", user => 'guest'), "1|||{$by}|$me|||<insufficient privilege>", 'others see no more than in pg_stat_activity');
like(sql('SELECT datamart_users_report()'), qr/^Workers .*\n     1 +\d+  refreshing +1  critical .*  process $by$/m, 'the report');
like(sql('SELECT datamart_users_report()', user => 'guest'), qr/^     1 +\d+  refreshing +1 .*  process $by$/m, 'the report, for whoever may read the view');
sql('REVOKE SELECT ON datamart_users_workers FROM guest');
like(sql('SELECT datamart_users_report()', user => 'guest'), qr/^     1 +\d+  refreshing +-  critical .*  process $by$/m, 'the report without ids');
is(sql(q(SELECT max(length(line)) <= 80 FROM string_to_table(datamart_users_report(), E'\n') AS line)), 't', 'the report is no wider than it may be');
$holder->query_safe('ROLLBACK');
(undef, $stdout) = finish($caller);
is($stdout, 'completed|1|0|0', 'it goes on');

# Nobody is behind a prepared transaction.
sql('UPDATE dwh.dimension_users SET modified = (dimension_user_id = 1)');
$holder->query_safe($_) for 'BEGIN', 'SELECT FROM dwh.shared WHERE id = 1 FOR UPDATE', q(PREPARE TRANSACTION 'p');
$caller = start_psql($node, 'w', $run, name => 'nightly load', user => 'etl');
wait_for_sql($node, 'w', 'SELECT blocking_pids IS NOT NULL FROM datamart_users_workers WHERE worker = 1', 'the worker waits');
is(sql("SELECT $columns FROM datamart_users_workers"), 'Lock|transactionid|{0}||prepared transaction||', 'a prepared transaction');
$holder->query_safe(q(ROLLBACK PREPARED 'p'));
finish($caller);
$holder->quit;

# Nobody waits, and nothing runs.
is(sql('SELECT count(*) FROM datamart_users_workers'), 0, 'no cycle, no workers');
sql('DELETE FROM dwh.behaviour; UPDATE dwh.dimension_users SET modified = TRUE');
is(sql($run), 'completed|6|0|0', 'all is well');
check_sane($node, 'w', 'at the end');

$node->stop;
done_testing();
