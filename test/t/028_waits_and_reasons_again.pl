# Who cancels finds a cycle from the moment that it is in anybody's way; and an
# error in taking over the caller's session gets to the caller.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('waits_and_reasons_again', init => { allows_streaming => 1 });
my $run = 'SELECT status, processed, failed FROM datamart_users_run_cycle(NULL, 2)';
my ($caller, $locker, $session, $stdout, $stderr);

add_warehouse($node, 'w', 4);
$node->safe_psql('w', <<'SQL');
CREATE ROLE etl LOGIN;
GRANT USAGE ON SCHEMA dwh TO etl;
GRANT ALL ON ALL TABLES IN SCHEMA dwh TO etl;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO etl;
SQL

#
# A cycle whose first row is not committed yet has no history, but it keeps
# others from beginning.
#
$node->append_conf('postgresql.conf', q(synchronous_standby_names = 'away'));
$node->reload;

# The checkpointer tells the others, sooner or later.
my $waiting = q(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep');
my $seen = 0;
until ($seen)
{
	$caller = start_psql($node, 'w', [ q(SET synchronous_commit = 'on'), q(SELECT pg_logical_emit_message(true, 'a', 'b')) ], name => 'probe');
	while (!$seen && $caller->{run}->pumpable)
	{
		$seen = $node->safe_psql('w', $waiting);
		$caller->{run}->pump_nb;
	}
	$node->safe_psql('w', 'SELECT pg_cancel_backend(' . backend_pid($node, 'probe') . ')') if $seen;
	finish($caller);
}
for my $call ('datamart_users_cancel_cycle()',
	q(datamart_users_cancel_cycle((SELECT cycle_id FROM datamart_users_progress))))
{
	$caller = start_psql($node, 'w', [ q(SET synchronous_commit = 'on'), $run ]);
	wait_for_sql($node, 'w', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type LIKE 'datamart_users %'),
		'its first commit waits for the standby');
	(undef, undef, $stderr) = run_psql($node, 'w', $run);
	like($stderr, qr/ERROR:  55006: cycle \d+ of datamart_users is already running/, 'others are told which one is in the way');
	is((run_psql($node, 'w', "SELECT $call"))[1], 't', "$call while the first commit waits for a standby");
	(undef, $stdout, $stderr) = finish($caller);
	is($stdout, 'cancelled|0|0', 'it is cancelled');
	like($stderr, qr/canceling wait for synchronous replication/, 'with the warning');
	wait_for_idle($node);
}
$node->append_conf('postgresql.conf', q(synchronous_standby_names = ''));
$node->reload;
wait_for_sql($node, 'w', q(SELECT current_setting('synchronous_standby_names') = ''), 'no standby is wanted');

# Before it has an id.
$locker = $node->background_psql('w');
$locker->query_safe('BEGIN');
$locker->query_safe('LOCK TABLE pg_trigger IN ACCESS EXCLUSIVE MODE');
for my $function ('run_cycle', 'start_cycle')
{
	$caller = start_psql($node, 'w', "SELECT datamart_users_$function()");
	wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND pid IN (@{[pids_sql('coordinator')]})",
		"the first row of $function waits for a lock");
	is((run_psql($node, 'w', 'SELECT datamart_users_cancel_cycle()'))[1], 't', "$function waits for a lock at first: it can be cancelled");
	(undef, $stdout, $stderr) = finish($caller);
	is($stdout, '', "$function: no result of a cycle that was not");
	is(sqlstate($stderr), '57014', "$function: an error that says so");
}
$locker->quit;
is((run_psql($node, 'w', 'SELECT datamart_users_cancel_cycle()'))[1], 'f', 'and there is none');
check_sane($node, 'w', 'cancelled before it has begun');

#
# Why it could not start, again.
#
sub errors_of
{
	my ($what, $before, $change, $undo, @expected) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	reset_warehouse($node, 'w', 4);
	$session = $node->background_psql('w', on_error_stop => 0, extra_params => [ '-U', 'etl', '-v', 'VERBOSITY=verbose' ]);
	$session->query_safe($before);
	$node->safe_psql('w', $change);
	for my $call ('datamart_users_run_cycle()', 'datamart_users_start_cycle()', 'datamart_users_try()')
	{
		$session->{stderr} = '';
		$session->query("SELECT $call");
		like($session->{stderr}, $_, "$what: $call") for @expected;
	}
	$stdout = $session->query(q(SELECT status, hint FROM datamart_users_check() WHERE item = 'connections'));
	$node->safe_psql('w', $undo);
	$session->quit;
	return;
}

# What the server does not write into its log is known nevertheless.
$node->append_conf('postgresql.conf', q(log_min_messages = 'panic'));
$node->reload;
wait_for_sql($node, 'w', q(SELECT current_setting('log_min_messages') = 'panic'), 'no FATAL in the log');
errors_of('no FATAL in the log', 'SELECT 1', 'REVOKE CONNECT ON DATABASE w FROM PUBLIC', 'GRANT CONNECT ON DATABASE w TO PUBLIC',
	qr/ERROR:  42501: permission denied for database/);
$node->append_conf('postgresql.conf', q(log_min_messages = 'warning'));
$node->reload;

# The names that a session has may stand for nothing any more.
my $hint = qr/^HINT:  .*settings of this session.*reconnect/m;
$node->safe_psql('w', 'CREATE TEXT SEARCH CONFIGURATION dwh.mine (COPY = simple)');
errors_of('a text search configuration that was dropped', q(SET default_text_search_config = 'dwh.mine'),
	'DROP TEXT SEARCH CONFIGURATION dwh.mine', 'SELECT 1', qr/ERROR:  22023: invalid value/, $hint);
errors_of('a role that was renamed', 'SELECT 1', 'ALTER ROLE etl RENAME TO loader', 'ALTER ROLE loader RENAME TO etl',
	qr/ERROR:  \w{5}: role "etl" does not exist/, $hint);
is($stdout, 'error|Reconnect.', 'and the doctor says what to do');
check_sane($node, 'w', 'sessions that cannot be taken over');

$node->stop;
done_testing();
