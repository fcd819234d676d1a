# Who was at work when the server went down, twice running, is treated as
# failed: by cycles and by services, before anybody is taken, and nobody who has
# no refresh to wait for any more.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('suspects');
my $failures = q(SELECT coalesce(string_agg(dimension_user_id || ' ' || sqlstate, ',' ORDER BY 1), '') FROM datamart_users_failures);
my $modified = q(SELECT coalesce(string_agg(dimension_user_id::text, ',' ORDER BY 1), '') FROM dwh.dimension_users WHERE modified);
my $suspects = q(SELECT coalesce(string_agg(dimension_user_id::text, ',' ORDER BY 1), '') FROM datamart_users_suspects);
my ($gate, $caller, $stdout, $stderr, $offset);

add_warehouse($node, 'w', 6);

# Kills a process of a cycle, of which "workers" are in the midst of a refresh.
sub crash
{
	my ($workers) = @_;

	wait_for_gate($node, 'w', $workers);
	$offset = -s $node->logfile;
	kill 'KILL', $node->safe_psql('postgres', "SELECT min(pid) FROM (@{[pids_sql()]}) p");
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
	wait_for_server($node);
	open_gate($gate);
	return;
}

sub crash_cycle
{
	my ($workers) = @_;

	$gate = hold_gate($node, 'w');
	$caller = start_psql($node, 'w', "SELECT datamart_users_run_cycle(NULL, $workers)");
	crash($workers);
	finish($caller);
	return;
}

sub crash_service
{
	$gate = hold_gate($node, 'w');
	$node->safe_psql('w', "SELECT datamart_users_start_service(1, '20 ms')");
	crash(1);
	return;
}

#
# Cycles: one of three suspects has nothing to wait for any more, as if its
# refresh had been committed, and one is gone.
#
crash_cycle(3);
is($node->safe_psql('w', $suspects), '', 'the first crash: nobody is noted');
crash_cycle(3);
is($node->safe_psql('w', $suspects), '1,2,3', 'the second one: those that were at work are');
$node->safe_psql('w', <<'SQL');
UPDATE dwh.dimension_users SET modified = FALSE WHERE dimension_user_id = 1;
INSERT INTO dwh.datamartusers VALUES (1, 1);
DELETE FROM dwh.dimension_users WHERE dimension_user_id = 3;
SQL
$offset = -s $node->logfile;
is($node->safe_psql('w', 'SELECT status, processed, failed FROM datamart_users_run_cycle()'), 'completed|3|0', 'the next cycle takes the others');
like(slurp_file($node->logfile, $offset), qr/1 datamart user that was at work is treated as failed/, 'and tells how many it suspects');
is($node->safe_psql('w', $failures), '2 57P02', 'who is still flagged has failed');
is($node->safe_psql('w', $modified), '2', 'it alone is held back');
is($node->safe_psql('w', $suspects), '', 'nobody is suspected any more');
check_sane($node, 'w', 'cycles');

# Somebody has locked the users table: the flag is not to be seen, and what is
# suspected stays so.
reset_warehouse($node, 'w', 6);
crash_cycle(1);
crash_cycle(1);
is($node->safe_psql('w', $suspects), '1', 'one is noted');
my $other = $node->background_psql('w');
$other->query_safe($_) for 'BEGIN', 'LOCK TABLE dwh.dimension_users';
(undef, undef, $stderr) = run_psql($node, 'w', [ q(SET lock_timeout = '100ms'), 'SELECT datamart_users_run_cycle()' ]);
is(sqlstate($stderr), '55P03', 'a cycle that cannot read the users table');
is(last_cycle($node, 'w', 'status, sqlstate'), 'failed|55P03', 'is in the history all the same');
is($node->safe_psql('w', $failures), '1 57P02', 'with its suspect');
$other->quit;
is($node->safe_psql('w', 'SELECT status, processed FROM datamart_users_run_cycle()'), 'completed|5', 'the next one takes the others');
check_sane($node, 'w', 'locked');

#
# A datamart user that takes the server down, in a service: the third one has it
# out of its queue from the beginning.
#
reset_warehouse($node, 'w', 6, 3 => q(COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'));
for my $attempt (1, 2)
{
	$offset = -s $node->logfile;
	$node->safe_psql('w', "SELECT datamart_users_start_service(1, '20 ms')");
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
	wait_for_server($node);
}
is($node->safe_psql('w', $failures), '', 'a service has crashed twice');
$offset = -s $node->logfile;
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '20 ms')"), 't', 'it is started again');
wait_for_sql($node, 'w', "SELECT ($modified) = '3'", 'all but one are refreshed');
is($node->safe_psql('w', $failures), '3 57P02', 'which has failed');
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it comes to rest');
unlike(slurp_file($node->logfile, $offset), qr/was terminated by signal/, 'nothing crashes any more');
is($node->safe_psql('w', "SELECT string_agg(status, ',' ORDER BY cycle_id) FROM (SELECT * FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 3) c"),
	'aborted,aborted,completed', 'the history has it');
$node->safe_psql('w', 'DELETE FROM dwh.behaviour; SELECT datamart_users_retry(3)');
wait_for_sql($node, 'w', "SELECT ($modified) = ''", 'it is cured');
is($node->safe_psql('w', $failures), '', 'and its failure gone');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'the service ends');
check_sane($node, 'w', 'service');

# Without a back-off whoever was suspected comes at once, and its failure goes.
reset_warehouse($node, 'w', 6);
crash_service() for 1, 2;
is($node->safe_psql('w', $suspects), '1', 'one was at work twice');
is($node->safe_psql('w', "SET datamart_users.retry_delay = 0; SELECT datamart_users_start_service(1, '20 ms')"), 't', 'a service that waits for nothing');
wait_for_sql($node, 'w', "SELECT ($modified) = ''", 'it refreshes all of them');
is($node->safe_psql('w', $failures), '', 'nobody is left as failed');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it ends');
is($node->safe_psql('w', $suspects), '', 'nobody is suspected');
check_sane($node, 'w', 'no back-off');

# Who is not flagged any more is charged by no service either, and one that
# finds nobody marks what came to no end.
reset_warehouse($node, 'w', 6);
crash_service() for 1, 2;
$node->safe_psql('w', <<'SQL');
UPDATE dwh.dimension_users SET modified = FALSE;
INSERT INTO dwh.datamartusers SELECT generate_series(1, 6), 1 ON CONFLICT DO NOTHING;
SQL
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '20 ms')"), 't', 'a service with nothing to do');
is($node->safe_psql('w', $failures), '', 'charges nobody');
is(last_cycle($node, 'w', 'status'), 'aborted', 'and marks the cycle of the crash');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it ends');
check_sane($node, 'w', 'nobody');

$node->stop;
done_testing();
