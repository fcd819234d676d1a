# Two datamarts in one database: a cycle of each at a time, and every function
# and view tells them apart.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('datamarts');
my ($gate, $stdout, $stderr);
my %cycle;

add_warehouse($node, 'w', 4);

# The second one shares the facts, and stands at the same gate.
$node->safe_psql('w', <<"SQL");
CREATE SCHEMA mart;
CREATE TABLE mart.users (dimension_user_id integer PRIMARY KEY, modified boolean NOT NULL DEFAULT TRUE);
CREATE PROCEDURE mart.refresh(p_id integer) LANGUAGE plpgsql AS
'BEGIN PERFORM pg_advisory_xact_lock_shared(@{[DatamartUsersTest::GATE]}, 0); END';
INSERT INTO mart.users SELECT generate_series(1, 4);
CREATE ROLE low;
CREATE ROLE lower;
GRANT EXECUTE ON FUNCTION datamart_users_run_cycle, datamart_users_start_cycle, datamart_users_cancel_cycle TO low, lower;
GRANT USAGE ON SCHEMA dwh, mart TO low;
GRANT SELECT ON dwh.facts TO low;
GRANT SELECT, UPDATE ON mart.users TO low;
SQL

my %session = (
	dwh => [],
	mart => [
		"SET datamart_users.users_table = 'mart.users'",
		"SET datamart_users.procedure = 'mart.refresh'"
	]);

# As a client of that datamart.
sub query
{
	my ($mart, $sql, @more) = @_;

	(undef, $stdout, $stderr) = run_psql($node, 'w', [ @{ $session{$mart} }, @more, $sql ]);
	return $stdout;
}

sub start
{
	my ($mart, @more) = @_;

	$cycle{$mart} = query($mart, 'SELECT datamart_users_start_cycle(NULL, 2)', @more);
	like($cycle{$mart}, qr/^\d+$/, "cycle of $mart") or diag($stderr);
	return;
}

sub history
{
	return $node->safe_psql('w',
		'SELECT cycle_id, status, processed FROM datamart_users_cycles ORDER BY cycle_id');
}

sub both
{
	$gate = hold_gate($node, 'w');
	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE; UPDATE mart.users SET modified = TRUE');
	start('dwh');
	start('mart', 'SET ROLE low');
	wait_for_gate($node, 'w', 4);
	return;
}

#
# Side by side
#
both();
is( $node->safe_psql('w', 'SELECT cycle_id, users_table, role_name = current_user, found FROM datamart_users_progress ORDER BY 1'),
	"$cycle{dwh}|dwh.dimension_users|t|4\n$cycle{mart}|mart.users|f|4",
	'progress of both');
is( $node->safe_psql('w', "SELECT cycle_id, users_table, string_agg(worker || ' ' || state, ', ' ORDER BY worker) FROM datamart_users_workers GROUP BY 1, 2 ORDER BY 1"),
	"$cycle{dwh}|dwh.dimension_users|1 refreshing, 2 refreshing\n$cycle{mart}|mart.users|1 refreshing, 2 refreshing",
	'workers of both');
is(history(), "$cycle{dwh}|running|\n$cycle{mart}|running|", 'the second one takes the first one for alive');
for my $mart (sort keys %session)
{
	query($mart, 'SELECT datamart_users_run_cycle()');
	is(sqlstate($stderr), '55006', "a second cycle of $mart is refused");
	like($stderr, qr/ERROR:  55006: cycle $cycle{$mart} of datamart_users is already running/, 'and told which one runs');
	query('dwh', "SELECT status FROM datamart_users_wait_cycle($cycle{$mart}, '0')");
	is($stdout, 'running', "wait_cycle() finds that of $mart");
	like($node->safe_psql('w', "SELECT datamart_users_report($cycle{$mart})"), qr/\ACycle $cycle{$mart}: working/, 'so does the report');
}
for my $mart (sort keys %session)
{
	is(query($mart, "SELECT status, detail FROM datamart_users_check() WHERE item = 'last cycle'"),
		"ok|cycle $cycle{$mart}: running", "the doctor does not take that of $mart for dead");
	like(query($mart, 'SELECT datamart_users_report()'), qr/\ACycle $cycle{$mart}: working/, 'and the latest of its datamart is what the report shows');
}
open_gate($gate);
for my $mart (sort keys %session)
{
	is(query('dwh', "SELECT status, processed FROM datamart_users_wait_cycle($cycle{$mart})"), 'completed|4', "the cycle of $mart completes");
}
check_sane($node, 'w', 'side by side');

#
# Whose cycle is cancelled
#
both();
is(query('dwh', "SELECT datamart_users_cancel_cycle($cycle{dwh} - 1)"), 'f', 'a cycle that is over');
is(query('dwh', 'SELECT datamart_users_cancel_cycle(-1)'), 'f', 'a cycle that never was');
query('dwh', "SELECT datamart_users_cancel_cycle($cycle{dwh})", 'SET ROLE low');
is(sqlstate($stderr), '42501', 'not that of a role one is no member of');
query('dwh', "SELECT datamart_users_cancel_cycle($cycle{mart})", 'SET ROLE lower');
is(sqlstate($stderr), '42501', 'nor by its id');
query('dwh', 'SELECT datamart_users_cancel_cycle()', "SET datamart_users.users_table = 'no.such_table'");
is(sqlstate($stderr), '55000', 'settings that lead to no datamart do not choose one of two');
is(query('dwh', 'SELECT datamart_users_cancel_cycle()', "SET datamart_users.users_table = 'dwh.behaviour'"),
	'f', 'settings that lead to a datamart without a cycle');
is(query('mart', 'SELECT datamart_users_cancel_cycle()'), 't', 'that of the settings');
is($node->safe_psql('w', 'SELECT cycle_id FROM datamart_users_progress'), $cycle{dwh}, 'the other one goes on');
is(query('mart', 'SELECT datamart_users_cancel_cycle()'), 'f', 'no more of it');
start('mart');
wait_for_gate($node, 'w', 4);
is(query('dwh', "SELECT datamart_users_cancel_cycle(cycle_id => $cycle{mart})"), 't', 'by its id, whatever the settings');
is($node->safe_psql('w', 'SELECT cycle_id FROM datamart_users_progress'), $cycle{dwh}, 'the other one still goes on');
is(query('dwh', 'SELECT datamart_users_cancel_cycle()', "SET datamart_users.users_table = 'no.such_table'"),
	't', 'the only one, where the settings lead to none');
is(query('dwh', 'SELECT datamart_users_cancel_cycle()', "SET datamart_users.users_table = 'no.such_table'"),
	'f', 'none');
open_gate($gate);
check_sane($node, 'w', 'cancelled');

#
# A coordinator that dies is no concern of the other datamart
#
both();
is($node->safe_psql('w', "SELECT pg_terminate_backend(pid) FROM datamart_users_workers WHERE cycle_id = $cycle{mart} AND worker = 1"), 't', 'a coordinator is terminated');
wait_for_sql($node, 'w', 'SELECT count(*) = 1 FROM datamart_users_progress', 'its cycle has gone');
is($node->safe_psql('w', 'SELECT cycle_id FROM datamart_users_progress'), $cycle{dwh}, 'the cycle of the other datamart goes on');
open_gate($gate);
query('dwh', "SELECT status FROM datamart_users_wait_cycle($cycle{dwh})");
is($stdout, 'completed', 'and completes');
is(query('mart', 'SELECT status, processed FROM datamart_users_run_cycle(NULL, 2)'), 'completed|4', 'the next one does what is left');
is( $node->safe_psql('w', "SELECT cycle_id, status, message FROM datamart_users_cycles WHERE cycle_id IN ($cycle{dwh}, $cycle{mart}) ORDER BY 1"),
	"$cycle{dwh}|completed|\n$cycle{mart}|aborted|The coordinator of the cycle was terminated.",
	'history of both');
check_sane($node, 'w', 'one coordinator died');

# One whose table has gone is marked by whatever cycle comes next.
both();
$node->safe_psql('w', "SELECT pg_terminate_backend(pid) FROM datamart_users_workers WHERE cycle_id = $cycle{mart} AND worker = 1");
open_gate($gate);
query('dwh', "SELECT status FROM datamart_users_wait_cycle($cycle{dwh})");
wait_for_idle($node);
$node->safe_psql('w', 'DROP TABLE mart.users');
is(query('dwh', "SELECT status FROM datamart_users_run_cycle(NULL, 2)"), 'completed', 'a cycle after it');
is($node->safe_psql('w', "SELECT status FROM datamart_users_cycles WHERE cycle_id = $cycle{mart}"), 'aborted', 'the cycle of a datamart that has gone');

$node->stop;
done_testing();
