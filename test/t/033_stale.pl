# Who waits, since when and what for: told by cycles that have seen the flag, or
# by a column of the users table; and how that compares with the objective.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('stale');
my ($gate, $client, $stdout, $stderr);

sub query
{
	my (@sql) = @_;

	(undef, $stdout, $stderr) = run_psql($node, 'w', \@sql);
	return $stdout;
}

sub run_cycle
{
	my ($max_users) = @_;

	return query("SELECT processed, failed, skipped, deferred FROM datamart_users_run_cycle($max_users, 1)");
}

# Ids in order, with what is asked of each.
sub stale
{
	my ($columns, $limit, @settings) = @_;

	return join ' ', split /\n/,
	  query(@settings, "SELECT concat_ws('/', dimension_user_id, $columns) FROM datamart_users_stale($limit)");
}

sub seen
{
	return $node->safe_psql('w', "SELECT coalesce(string_agg(dimension_user_id::text, ' ' ORDER BY dimension_user_id), '') FROM datamart_users_seen");
}

# As if the ETL had flagged them that long ago.
sub seen_ago
{
	my ($ids, $ago) = @_;

	$node->safe_psql('w', "UPDATE datamart_users_seen SET first_seen_at = now() - interval '$ago' WHERE dimension_user_id = ANY ('{$ids}')");
	return;
}

sub flag
{
	my ($ids, $flag) = @_;

	$node->safe_psql('w', "UPDATE dwh.dimension_users SET modified = $flag WHERE dimension_user_id = ANY ('{$ids}')");
	return;
}

add_warehouse($node, 'w', 6);
behave($node, 'w', 2, q(DO 'BEGIN RAISE ''bad data''; END'));
behave($node, 'w', 3, q(DO 'BEGIN RAISE serialization_failure; END'));

#
# As cycles see it.
#
is(stale("priority, coalesce(since::text, '?'), coalesce(age::text, '?'), waits_for", 'NULL'),
	join(' ', map { "$_/critical/?/?/queue" } 1 .. 6), 'nobody has looked yet');
is(run_cycle(3), '1|1|0|1', 'a cycle takes three of six');
is(seen(), '2 3 4 5 6', 'those that still wait were seen');
is(stale('waits_for, held_until IS NOT NULL', 'NULL'), '2/back-off/t 3/contention/t 4/queue/f 5/queue/f 6/queue/f', 'what they wait for');
is(query("SELECT count(*) FROM datamart_users_stale() s, datamart_users_cycles c WHERE s.since BETWEEN c.started_at AND c.finished_at"),
	'5', 'since that cycle began to look');
is(stale('since IS NULL', 2), '2/f 3/f', 'as many as asked for');
is(stale('since', 0), '', 'none at all');
query('SELECT * FROM datamart_users_stale(-1)');
is(sqlstate($stderr), '22023', 'less than none');

# They stay where they are for the rest of the test.
$node->safe_psql('w', "UPDATE datamart_users_$_ SET next_attempt_at = now() + interval '1 day'") for qw(failures contention);

# Later cycles leave it at that, and forget whom they have refreshed.
seen_ago('2,3,4,5,6', '1 hour');
flag('1', 'true');
is(run_cycle(2), '2|0|0|0', 'another cycle');
is(seen(), '2 3 5 6', 'forgets whom it has refreshed');
is(stale("date_trunc('minute', age)", 'NULL'), join(' ', map { "$_/01:00:00" } 2, 3, 5, 6), 'and knows how long the others wait');

# Whoever is parked waits for that.
$node->safe_psql('w', "SELECT datamart_users_park(3, 'known')");
is(stale('waits_for, held_until IS NOT NULL', 'NULL'), '2/back-off/t 5/queue/f 6/queue/f 3/parked/f', 'one is parked, and comes after all who wait');
$node->safe_psql('w', 'SELECT datamart_users_retry(3)');
$node->safe_psql('w', "UPDATE datamart_users_contention SET next_attempt_at = now() + interval '1 day'");

# Refreshed and flagged again between two looks: that is another wait.
flag('4', 'true');
is(stale('since IS NULL', 'NULL'), '2/f 3/f 5/f 6/f 4/t', 'who was flagged again was not seen since');
flag('5,6', 'false');
is(run_cycle(1), '1|0|0|0', 'whose flag somebody else took away');
is(seen(), '2 3', 'waits no more');

# One that is no longer modified when its turn comes.
flag('5,6', 'true');
$gate = hold_gate($node, 'w', 5);
$client = start_psql($node, 'w', 'SELECT skipped FROM datamart_users_run_cycle(NULL, 1)');
wait_for_gate($node, 'w', 1);
flag('6', 'false');
open_gate($gate);
is((finish($client))[1], '1', 'one is skipped');
flag('6', 'true');
is(seen(), '2 3', 'and waits anew when it is flagged again');

#
# A long cycle writes down whom it has seen before it is through.
#
flag('1,4,5', 'true');
my %gates = map { $_ => hold_gate($node, 'w', $_) } 1, 4;
$client = start_psql($node, 'w', 'SELECT status FROM datamart_users_run_cycle(NULL, 2)');
wait_for_gate($node, 'w', 2);
my $coordinators = worker_user($node, 1);
my $others = worker_user($node, 2);
open_gate($gates{$coordinators});
wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM datamart_users_seen WHERE dimension_user_id = $others", 'a running cycle has written down whom it has seen');
is(stale('since IS NULL', 'NULL'), join(' ', map { "$_/f" } 2, 3, $others), 'who is at work is stale, who is through is not');
is(seen(), join(' ', sort 2, 3, $others), 'nor is he written down');
open_gate($gates{$others});
is((finish($client))[1], 'completed', 'it goes on');
is(seen(), '2 3', 'and forgets them at its end');

# Nobody who keeps a lock on that table holds a cycle up.
flag('1,4', 'true');
my $holder = $node->background_psql('w');
$holder->query_safe('BEGIN; LOCK TABLE datamart_users_seen');
is(query("SELECT processed FROM datamart_users_run_cycle(1, 1)"), '1', 'a cycle does without it');
like($stderr, qr/^$/, 'the caller need not know');
like(slurp_file($node->logfile), qr/WARNING:  datamart_users cycle \d+ in database "\w+": could not write down how far it is and who waits: canceling statement due to lock timeout/, 'the log does');
$holder->quit;
is(run_cycle(0 + 1), '1|0|0|0', 'the next one takes the other');

#
# The backlog by priority: those that a cycle could take.
#
my $figures = "coalesce(date_trunc('minute', oldest_age)::text, '-'), coalesce(date_trunc('minute', p50_age)::text, '-'), coalesce(date_trunc('minute', p95_age)::text, '-'), coalesce(objective::text, '-'), coalesce(overdue::text, '-')";
my @objective = q(SET datamart_users.freshness_objective = 'critical = 25min, high = 1h');

sub freshness
{
	my ($priority, @settings) = @_;

	return query(@settings, "SELECT waiting, held, $figures FROM datamart_users_backlog WHERE priority = '$priority'");
}

$node->safe_psql('w', <<'SQL');
INSERT INTO dwh.dimension_users SELECT i, true FROM generate_series(11, 30) i;
INSERT INTO dwh.facts SELECT i, CURRENT_DATE - 10 FROM generate_series(11, 30) i;
UPDATE dwh.dimension_users SET modified = true WHERE dimension_user_id IN (1, 4);
DELETE FROM datamart_users_seen;
INSERT INTO datamart_users_seen
SELECT 'dwh.dimension_users'::regclass, i, now() - i * interval '1 minute' FROM generate_series(1, 30) i WHERE i <> 1;
SQL
is(freshness('high'), '20|0|00:30:00|00:20:00|00:29:00|-|-', 'ages of a priority');
is(freshness('high', @objective), '20|0|00:30:00|00:20:00|00:29:00|01:00:00|0', 'within its objective');
is(freshness('high', q(SET datamart_users.freshness_objective = 'high = 1630s')), '20|0|00:30:00|00:20:00|00:29:00|00:27:10|3', 'beyond it');
is(freshness('critical'), '4|2|00:04:00|00:00:00|00:04:00|-|-', 'those under back-off do not count, who was not seen yet is young');
is(freshness('critical', q(SET datamart_users.freshness_objective = 'critical = 1min')), '4|2|00:04:00|00:00:00|00:04:00|00:01:00|1', 'nor are they overdue');
is(freshness('lowest', @objective), '0|0|-|-|-|-|-', 'nobody');

# What the setting may be.
foreach my $good ('', 'low=1', 'LOWEST = 1d', "critical=5min, high=1h,medium = '2 h',historical=1d, low=2d ,lowest=7d")
{
	query("LOAD 'datamart_users'", 'SET datamart_users.freshness_objective = ' . "'" . ($good =~ s/'/''/gr) . "'");
	is($stderr, '', "objective '$good'");
}
foreach my $bad ('critical', 'critical = ', 'critical = 0', 'critical = -1h', 'critical = soon', 'urgent = 1h',
	'critical = 1h, critical = 2h', 'critical = 1h,', 'critical = 99999999d')
{
	query("LOAD 'datamart_users'", "SET datamart_users.freshness_objective = '$bad'");
	is(sqlstate($stderr), '22023', "no objective '$bad'");
}
like($stderr, qr/HINT:  For example "critical = 5min, high = 1h"/, 'with an example');

#
# As a column tells it.
#
my @since = q(SET datamart_users.users_since_column = 'flagged');

sub refused
{
	my ($sqlstate, $message, $what) = @_;

	foreach my $call ('datamart_users_run_cycle()', 'datamart_users_stale()', 'datamart_users_backlog')
	{
		query(@since, "SELECT * FROM $call");
		is(sqlstate($stderr), $sqlstate, "$what: SQLSTATE of $call");
		like($stderr, $message, "$what: message of $call");
	}
	return;
}

refused('42703', qr/column "flagged" of relation "dwh.dimension_users" does not exist\nHINT:  Set datamart_users.users_since_column /, 'no such column');
$node->safe_psql('w', 'ALTER TABLE dwh.dimension_users ADD flagged text');
refused('42804', qr/DETAIL:  It must be of type timestamp, timestamp with time zone or date\.\nHINT:  Set datamart_users.users_since_column /, 'a wrong type');
foreach my $type ('timestamptz', 'timestamp', 'date')
{
	$node->safe_psql('w', <<"SQL");
ALTER TABLE dwh.dimension_users DROP flagged, ADD flagged $type;
UPDATE dwh.dimension_users SET modified = dimension_user_id <= 6;
UPDATE dwh.dimension_users
   SET flagged = CASE dimension_user_id WHEN 1 THEN CURRENT_DATE - 2 WHEN 4 THEN '-infinity' WHEN 5 THEN CURRENT_DATE + 2 WHEN 6 THEN CURRENT_DATE - 3 END;
SQL
	is(stale("coalesce((since = CURRENT_DATE - 2)::text, '?'), age >= '1 day'", 'NULL', @since),
		'6/false/t 1/true/t 5/false/f 2/? 3/? 4/?', "a column of type $type");
}
is(query(@since, q(SELECT extract(days FROM date_trunc('day', justify_hours(oldest_age))) FROM datamart_users_backlog WHERE priority = 'critical')) > 1, 1, 'the backlog goes by it, too');
cmp_ok(seen(), 'ne', '', 'what cycles had seen');
is(query(@since, 'SELECT processed FROM datamart_users_run_cycle(1, 1)'), '1', 'a cycle with the column');
is(seen(), '', 'is not needed any more');

# Its own privilege.
$node->safe_psql('w', <<'SQL');
CREATE ROLE etl LOGIN;
GRANT USAGE ON SCHEMA dwh TO etl;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO etl;
GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA dwh TO etl;
GRANT SELECT ON dwh.facts, dwh.behaviour TO etl;
GRANT ALL ON dwh.datamartusers TO etl;
GRANT SELECT (dimension_user_id, modified), UPDATE (modified) ON dwh.dimension_users TO etl;
SQL
(undef, $stdout, $stderr) = run_psql($node, 'w', [ @since, 'SELECT * FROM datamart_users_stale()' ], user => 'etl');
like($stderr, qr/ERROR:  42501: permission denied for relation dwh\.dimension_users\nHINT:  Run GRANT SELECT \(flagged\) ON dwh\.dimension_users TO etl;/, 'the privilege that is lacking');
is((run_psql($node, 'w', [ @since, q(SELECT status, hint FROM datamart_users_check() WHERE item = 'privileges') ], user => 'etl'))[1],
	'error|GRANT SELECT (flagged) ON dwh.dimension_users TO etl;', 'the doctor says it, too');
$node->safe_psql('w', 'GRANT SELECT (flagged) ON dwh.dimension_users TO etl');
is((run_psql($node, 'w', [ @since, 'SELECT count(*) FROM datamart_users_stale()' ], user => 'etl'))[1], '5', 'with it');
is((run_psql($node, 'w', [ @since, 'SELECT processed FROM datamart_users_run_cycle(1, 1)' ], user => 'etl'))[1], '1', 'a cycle, too');

#
# Another datamart has seen nobody of the same ids.
#
$node->safe_psql('w', 'CREATE TABLE dwh.others AS SELECT i AS dimension_user_id, true AS modified FROM generate_series(1, 3) i');
flag('1,4,5,6', 'true');
is(run_cycle(1), '1|0|0|0', 'a cycle of the first');
is(stale('since IS NULL', 'NULL', q(SET datamart_users.users_table = 'dwh.others')), '1/t 2/t 3/t', 'says nothing of the second');
my $before = seen();
is(query(q(SET datamart_users.users_table = 'dwh.others'), 'SELECT processed, failed, deferred FROM datamart_users_run_cycle(NULL, 1)'), '1|1|1', 'a cycle of the second');
is($node->safe_psql('w', q(SELECT string_agg(dimension_user_id::text, ' ' ORDER BY dimension_user_id) FROM datamart_users_seen WHERE users_oid = 'dwh.dimension_users'::regclass)), $before, 'forgets nobody of the first');
$node->safe_psql('w', 'DROP TABLE dwh.others');
run_cycle(1);
is($node->safe_psql('w', q(SELECT count(*) FROM datamart_users_seen WHERE users_oid <> 'dwh.dimension_users'::regclass)), '0', 'what was seen of a table goes with it');

$node->stop;
done_testing();
