# Datamart users that collide: in their procedure, with whomever, and workers
# with each other.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('contention', conf => 'deadlock_timeout = 10ms');
my ($gate, @gates, $caller, $holder, $stdout, $stderr, $first, $second, $cycle);

add_warehouse($node, 'w', 20);
$node->safe_psql('w', <<'SQL');
CREATE TABLE dwh.shared AS SELECT i AS id, 0 AS n FROM generate_series(1, 2) i;
CREATE TABLE dwh.busy AS SELECT TRUE AS busy;
CREATE TABLE dwh.numbered (number integer PRIMARY KEY);
CREATE TABLE dwh.ranges (r int4range, EXCLUDE USING gist (r WITH &&));
CREATE SEQUENCE dwh.calls;
SQL

sub raise
{
	my ($sqlstate) = @_;

	return "DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''$sqlstate'', MESSAGE = ''mine''; END'";
}

# Collides as long as dwh.busy has a row.
my $while_busy = q(DO 'BEGIN IF EXISTS (SELECT FROM dwh.busy) THEN RAISE serialization_failure; END IF; END');

sub cycle_sql
{
	my ($max_users, $workers, $more) = @_;

	$more //= '';
	return "SELECT status, found, processed, failed, skipped, deferred FROM datamart_users_run_cycle($max_users, $workers$more)";
}

sub run_cycle
{
	my (@arguments) = @_;

	return $node->safe_psql('w', cycle_sql(@arguments));
}

sub reset_all
{
	my ($users, %behaviour) = @_;

	$node->safe_psql('w', 'DELETE FROM datamart_users_contention; TRUNCATE dwh.busy; INSERT INTO dwh.busy VALUES (TRUE)');
	reset_warehouse($node, 'w', $users, %behaviour);
	return;
}

# Of those that a cycle has deferred: how many, how often, for how long.
sub contention
{
	return $node->safe_psql('w', <<'SQL');
SELECT count(*), min(deferrals), max(deferrals), string_agg(DISTINCT sqlstate, ','),
	   bool_and(next_attempt_at > now()), max(next_attempt_at - last_deferred_at)
  FROM datamart_users_contention
SQL
}

sub count_contention
{
	return $node->safe_psql('w', 'SELECT count(*) FROM datamart_users_contention');
}

sub refreshed
{
	return $node->safe_psql('w',
		q(SELECT string_agg(dimension_user_id::text, ',' ORDER BY dimension_user_id) FROM dwh.dimension_users WHERE NOT modified));
}

#
# Five that always collide are not in the way of others
#
for my $workers (1, 4)
{
	for my $sqlstate (qw(40001 40P01 55P03 nowait))
	{
		my $what = "$sqlstate, workers: $workers";
		my $code = $sqlstate eq 'nowait' ? '55P03' : $sqlstate;
		my $behaviour = $sqlstate eq 'nowait' ?
		  'SELECT FROM dwh.shared WHERE id = 1 FOR UPDATE NOWAIT' : raise($sqlstate);

		reset_all(20, map { $_ => $behaviour } 1 .. 5);
		if ($sqlstate eq 'nowait')
		{
			$holder = $node->background_psql('w');
			$holder->query_safe($_) for 'BEGIN', 'SELECT FROM dwh.shared WHERE id = 1 FOR UPDATE';
		}
		is(run_cycle(5, $workers), 'completed|5|0|0|0|5', "$what: deferred");
		is(contention(), "5|1|1|$code|t|00:00:10", "$what: told, with a short back-off");
		is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), 0, "$what: which is no failure");
		isnt($node->safe_psql('w', "SELECT string_agg(DISTINCT message, ',') FROM datamart_users_contention"), '', "$what: with a message");
		like($node->safe_psql('w', "SELECT status, detail FROM datamart_users_check() WHERE item = 'contention'"),
			qr/^warning\|.*: 5, in 1 cycle, since .*; most frequent SQLSTATE: $code$/, "$what: the doctor says so");
		is($node->safe_psql('w', 'SELECT sum(held) FROM datamart_users_backlog'), 5, "$what: the backlog, too");
		is(run_cycle(5, $workers), 'completed|5|5|0|0|0', "$what: others are taken next");
		is(refreshed(), '6,7,8,9,10', "$what: these");
		is(contention(), "5|1|1|$code|t|00:00:10", "$what: nothing changes for the five");

		# Not before its time, and twice as long after that.
		$first = $node->safe_psql('w', 'SELECT max(first_deferred_at) FROM datamart_users_contention');
		$node->safe_psql('w', 'UPDATE datamart_users_contention SET next_attempt_at = now()');
		is(run_cycle(5, $workers), 'completed|5|0|0|0|5', "$what: deferred again");
		is(contention(), "5|2|2|$code|t|00:00:20", "$what: for longer");
		is($node->safe_psql('w', 'SELECT max(first_deferred_at) FROM datamart_users_contention'), $first, "$what: since when");
		is($node->safe_psql('w', 'SELECT datamart_users_retry(3)'), 1, "$what: one is lifted");
		is($node->safe_psql('w', 'SELECT datamart_users_retry()'), 4, "$what: and the others");
		is(run_cycle(5, $workers), 'completed|5|0|0|0|5', "$what: deferred once more");
		is(contention(), "5|3|3|$code|t|00:00:40", "$what: for longer");

		$node->safe_psql('w', 'DELETE FROM dwh.behaviour');
		$holder->quit if $sqlstate eq 'nowait';
		$node->safe_psql('w', 'UPDATE datamart_users_contention SET next_attempt_at = now()');
		is(run_cycle(5, $workers), 'completed|5|5|0|0|0', "$what: processed when the cause has gone");
		is(count_contention(), 0, "$what: and forgotten");
		is($node->safe_psql('w', "SELECT status, detail FROM datamart_users_check() WHERE item = 'contention'"), 'ok|none', "$what: the doctor, too");
		is(refreshed(), '1,2,3,4,5,6,7,8,9,10', "$what: all of them");
		check_sane($node, 'w', $what);
	}
}

# The back-off has a limit, and can be off.
reset_all(20, map { $_ => raise('40001') } 1 .. 5);
$node->safe_psql('w', $_) for "LOAD 'datamart_users'; SET datamart_users.retry_delay = '15s'; " . cycle_sql(5, 1),
  'UPDATE datamart_users_contention SET next_attempt_at = now()',
  "LOAD 'datamart_users'; SET datamart_users.retry_delay = '15s'; " . cycle_sql(5, 1);
is(contention(), '5|2|2|40001|t|00:00:15', 'no longer than retry_delay');
reset_all(20, map { $_ => raise('40001') } 1 .. 5);
for (1, 2)
{
	is( $node->safe_psql('w', "LOAD 'datamart_users'; SET datamart_users.retry_delay = 0; " . cycle_sql(5, 1)),
		'completed|5|0|0|0|5', 'retry_delay = 0: deferred');
	is(contention(), "5|$_|$_|40001|f|00:00:00", 'retry_delay = 0: told, without a back-off');
}

# A failure and a contention of the same one; success forgets both.
reset_all(1, 1 => raise('P0001'));
is(run_cycle('NULL', 1), 'completed|1|0|1|0|0', 'it fails');
$node->safe_psql('w', "SELECT datamart_users_retry(); UPDATE dwh.behaviour SET what = \$a\$@{[raise('40001')]}\$a\$");
is(run_cycle('NULL', 1), 'completed|1|0|0|0|1', 'then it collides');
is($node->safe_psql('w', 'SELECT datamart_users_retry()'), 1, 'lifted as one');
$node->safe_psql('w', 'DELETE FROM dwh.behaviour');
is(run_cycle('NULL', 1), 'completed|1|1|0|0|0', 'then it succeeds');
is($node->safe_psql('w', 'SELECT (SELECT count(*) FROM datamart_users_failures) + (SELECT count(*) FROM datamart_users_contention)'), 0, 'and all is forgotten');

#
# Collisions of ours, with an ETL
#
reset_all(3);
$gate = hold_gate($node, 'w', 1);
$caller = start_psql($node, 'w', cycle_sql('NULL', 1));
wait_for_gate($node, 'w', 1);
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 1');
open_gate($gate);
(undef, $stdout) = finish($caller);
is($stdout, 'completed|3|3|0|0|0', 'the ETL touches the row: again at once');
is(count_contention(), 0, 'and no contention');

reset_all(3);
$holder = $node->background_psql('w');
$holder->query_safe($_) for 'BEGIN', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 1';
is(run_cycle('NULL', 1), 'completed|3|2|0|0|1', 'the ETL holds the row: deferred');
is(count_contention(), 0, 'and no contention');
$holder->quit;
is(run_cycle('NULL', 1), 'completed|1|1|0|0|0', 'the next cycle does it');
check_sane($node, 'w', 'ETL');

#
# Workers in each other's way
#
my $definition = $node->safe_psql('w', "SELECT pg_get_functiondef('dwh.update_datamart_user'::regproc)");
my $trivial = <<'SQL';
CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_id integer) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO dwh.datamartusers AS d (dimension_user_id, actions)
	SELECT p_id, count(*) FROM dwh.facts WHERE action_dimension_id_user = p_id
	ON CONFLICT (dimension_user_id) DO UPDATE SET actions = excluded.actions;
	UPDATE dwh.shared SET n = n + 1 WHERE id = %s;
	PERFORM pg_sleep(%s);
	%s
END $$
SQL
for (
	[ 'one row', sprintf($trivial, '1', '0.001', ''), '200|0' ],
	[ 'deadlocks', sprintf($trivial, '1 + p_id % 2', '0.002', 'UPDATE dwh.shared SET n = n + 1 WHERE id = 2 - p_id % 2;'), '200|200' ],
	[ 'unique keys', sprintf($trivial, '0', '0', 'INSERT INTO dwh.numbered SELECT coalesce(max(number), 0) + 1 FROM dwh.numbered;'), '0|0' ],
	[ 'exclusion', sprintf($trivial, '0', '0', 'INSERT INTO dwh.ranges SELECT int4range(coalesce(max(upper(r)), 0), coalesce(max(upper(r)), 0) + 1) FROM dwh.ranges;'), '0|0' ],
	[ 'DDL', sprintf($trivial, '0', '0', 'GRANT SELECT ON dwh.busy TO PUBLIC; PERFORM pg_sleep(0.001);'), '0|0' ])
{
	my ($what, $procedure, $sums) = @$_;

	$node->safe_psql('w', $procedure);
	for my $workers (1, 2, 4, 8)
	{
		reset_all(200);
		$node->safe_psql('w', 'UPDATE dwh.shared SET n = 0');
		is(run_cycle('NULL', $workers), 'completed|200|200|0|0|0', "$what, workers: $workers");
		is($node->safe_psql('w', q(SELECT string_agg(n::text, '|' ORDER BY id) FROM dwh.shared)), $sums, "$what: each once");
		is(count_contention(), 0, "$what: nothing is told of it");
		is( $node->safe_psql('w', <<'SQL'), 't|t', "$what: figures that add up");
SELECT (SELECT sum(found) = sum(processed + failed + skipped + deferred) FROM datamart_users_cycle_priorities p WHERE p.cycle_id = c.cycle_id),
	   (SELECT sum(n) = c.found FROM datamart_users_cycle_profiles p, unnest(p.bucket_count) AS n WHERE p.cycle_id = c.cycle_id)
  FROM datamart_users_cycles c ORDER BY cycle_id DESC LIMIT 1
SQL
	}
	check_sane($node, 'w', $what);
}
like(slurp_file($node->logfile), qr/worker \d+: put off datamart user \d+ to the end of the cycle: /, 'some were put off');
$node->safe_psql('w', $definition);

# Two that have not seen each other's row; and three for whom it is not another
# worker's doing, with such errors.
reset_all(2, map { $_ => "DO 'BEGIN IF NOT EXISTS (SELECT FROM dwh.numbered WHERE number = 0) THEN"
	  . " PERFORM pg_advisory_xact_lock_shared(4711, 0); INSERT INTO dwh.numbered VALUES (0); END IF; END'" } 1, 2);
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', cycle_sql('NULL', 2));
wait_for_gate($node, 'w', 2);
open_gate($gate);
(undef, $stdout) = finish($caller);
is($stdout, 'completed|2|2|0|0|0', 'one key, two workers: both are processed');
is($node->safe_psql('w', 'SELECT (SELECT count(*) FROM datamart_users_failures) + (SELECT count(*) FROM datamart_users_contention)'), 0, 'and nothing is told of it');
for my $workers (1, 4)
{
	reset_all(20, map { $_ => "SELECT nextval('dwh.calls'); INSERT INTO dwh.numbered VALUES (0)" } 1 .. 3);
	$node->safe_psql('w', 'ALTER SEQUENCE dwh.calls RESTART');
	is(run_cycle('NULL', $workers), 'completed|20|17|3|0|0', "a key that is there, workers: $workers: failures");
	is($node->safe_psql('w', q(SELECT count(*), max(attempts), string_agg(DISTINCT sqlstate, ',') FROM datamart_users_failures)), '3|1|23505', 'which count once');
	is($node->safe_psql('w', 'SELECT last_value FROM dwh.calls'), $workers == 1 ? 6 : 12, 'tried again each turn');
	is(count_contention(), 0, 'and are no contention');
}
check_sane($node, 'w', 'doubtful failures');

#
# The second turn.  Of six datamart users four collide as long as dwh.busy has
# its row.
#

# The coordinator alone: it stops in its second turn at datamart user 3, two
# having been done in it.
sub begin_second_turn
{
	my ($more, %behaviour) = @_;

	reset_all(6, (map { $_ => $while_busy } 1 .. 5), %behaviour);
	@gates = map { hold_gate($node, 'w', $_) } 3, 6;
	$caller = start_psql($node, 'w', cycle_sql('NULL', 1, $more));
	wait_for_gate($node, 'w', 1);
	$cycle = last_cycle($node, 'w', 'cycle_id');
	is($node->safe_psql('w', 'SELECT found, processed + failed + skipped + deferred, percent FROM datamart_users_progress'),
		'6|0|0.0', 'nobody who comes again counts');
	$node->safe_psql('w', 'TRUNCATE dwh.busy');
	open_gate(pop @gates);
	wait_for_sql($node, 'w', 'SELECT processed = 3 FROM datamart_users_progress', 'three are processed');
	wait_for_gate($node, 'w', 1);
	return;
}

sub check_history
{
	my ($expected, $what) = @_;

	is( $node->safe_psql('w', "SELECT status, found, processed, failed, skipped, deferred FROM datamart_users_cycles WHERE cycle_id = $cycle"),
		$expected, "$what: history");
	is( $node->safe_psql('w', "SELECT sum(found) = sum(processed + failed + skipped + deferred) FROM datamart_users_cycle_priorities WHERE cycle_id = $cycle"),
		't', "$what: which adds up");
	open_gate($_) for @gates;
	$node->safe_psql('w', 'TRUNCATE dwh.busy; SELECT datamart_users_retry()');
	like(run_cycle('NULL', 2), qr/^completed\|(\d+)\|\1\|0\|0\|0$/, "$what: the next cycle does the rest");
	is(count_contention(), 0, "$what: nothing is left of it");
	check_sane($node, 'w', $what);
	return;
}

begin_second_turn();
open_gate(pop @gates);
(undef, $stdout) = finish($caller);
is($stdout, 'completed|6|6|0|0|0', 'second turn: all are processed');
check_history('completed|6|6|0|0|0', 'second turn');

begin_second_turn();
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', 'second turn: cancelled');
(undef, $stdout) = finish($caller);
is($stdout, 'cancelled|6|3|0|0|3', 'second turn cancelled: the caller is told');
check_history('cancelled|6|3|0|0|3', 'second turn cancelled');

begin_second_turn();
$node->safe_psql('w', 'SELECT pg_cancel_backend(' . worker_pid($node, 1) . ')');
(undef, undef, $stderr) = finish($caller);
is(sqlstate($stderr), '57014', 'coordinator cancelled in the second turn: the caller is told');
check_history('aborted|6|3|0|0|3', 'coordinator cancelled in the second turn');

begin_second_turn(", '5 seconds'");
wait_for_sql($node, 'w', "SELECT started_at < now() - interval '6 seconds' FROM datamart_users_cycles WHERE cycle_id = $cycle", 'the limit has passed');
open_gate(pop @gates);
(undef, $stdout) = finish($caller);
is($stdout, 'time_limit|6|4|0|0|2', 'time limit in the second turn: the caller is told');
check_history('time_limit|6|4|0|0|2', 'time limit in the second turn');

begin_second_turn('', 4 => "SELECT count(*) FROM dwh.busy; $while_busy; " . raise('P0001'));
open_gate(pop @gates);
(undef, $stdout) = finish($caller);
is($stdout, 'completed|6|5|1|0|0', 'a failure in the second turn');
$node->safe_psql('w', 'DELETE FROM dwh.behaviour');
check_history('completed|6|5|1|0|0', 'a failure in the second turn');

# The coordinator waits for worker 2 between its turns; four are put off.
sub begin_waiting
{
	my ($more) = @_;
	my %gate;

	reset_all(6, map { $_ => $while_busy } 1 .. 4);
	%gate = map { $_ => hold_gate($node, 'w', $_) } 5, 6;
	$caller = start_psql($node, 'w', cycle_sql('NULL', 2, $more));
	wait_for_gate($node, 'w', 2);
	$cycle = last_cycle($node, 'w', 'cycle_id');
	$first = worker_user($node, 1);
	$second = worker_user($node, 2);
	open_gate($gate{$first});
	@gates = ($gate{$second});
	wait_for_sql($node, 'w', "SELECT string_agg(state, ',' ORDER BY worker) = 'idle,refreshing' FROM datamart_users_workers", 'the coordinator waits');
	wait_for_sql($node, 'w', "SELECT lower(wait_event) = 'bgworkershutdown' FROM pg_stat_activity WHERE pid = " . worker_pid($node, 1), 'the coordinator waits');
	is($node->safe_psql('w', 'SELECT processed, deferred, percent FROM datamart_users_progress'), '1|0|16.7', 'waiting: one is processed');
	return;
}

begin_waiting();
$node->safe_psql('w', 'TRUNCATE dwh.busy');
open_gate(pop @gates);
(undef, $stdout) = finish($caller);
is($stdout, 'completed|6|6|0|0|0', 'waiting: all are processed');
check_history('completed|6|6|0|0|0', 'waiting');

begin_waiting();
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', 'waiting: cancelled');
(undef, $stdout) = finish($caller);
is($stdout, 'cancelled|6|1|0|0|4', 'cancelled while waiting: the caller is told');
is( $node->safe_psql('w', "SELECT status, found, processed, failed, skipped, deferred FROM datamart_users_cycles WHERE cycle_id = $cycle"),
	'cancelled|6|1|0|0|4', 'cancelled while waiting: so does the history');
open_gate(pop @gates);

begin_waiting();
$node->safe_psql('w', 'SELECT pg_cancel_backend(' . worker_pid($node, 1) . ')');
(undef, undef, $stderr) = finish($caller);
is(sqlstate($stderr), '57014', 'coordinator cancelled while waiting: the caller is told');
is( $node->safe_psql('w', "SELECT status, found, processed, failed, skipped, deferred FROM datamart_users_cycles WHERE cycle_id = $cycle"),
	'aborted|6|1|0|0|4', 'coordinator cancelled while waiting: so does the history');
open_gate(pop @gates);

begin_waiting(", '5 seconds'");
$node->safe_psql('w', 'TRUNCATE dwh.busy');
wait_for_sql($node, 'w', "SELECT started_at < now() - interval '6 seconds' FROM datamart_users_cycles WHERE cycle_id = $cycle", 'the limit has passed');
open_gate(pop @gates);
(undef, $stdout) = finish($caller);
is($stdout, 'time_limit|6|2|0|0|4', 'time limit while waiting: the caller is told');
check_history('time_limit|6|2|0|0|4', 'time limit while waiting');

begin_waiting();
$node->safe_psql('w', 'TRUNCATE dwh.busy');
$node->safe_psql('w', 'SELECT pg_terminate_backend(' . worker_pid($node, 2) . ')');
(undef, $stdout) = finish($caller);
is($stdout, 'completed|6|5|1|0|0', 'worker terminated while others are put off: they have their turn');
is($node->safe_psql('w', 'SELECT dimension_user_id, sqlstate FROM datamart_users_failures'), "$second|57P01", 'and it costs one');
check_history('completed|6|5|1|0|0', 'worker terminated');

# The caller goes while the coordinator waits.
begin_waiting();
$node->safe_psql('w', 'SELECT pg_terminate_backend(' . backend_pid($node, 'caller') . ')');
finish($caller);
wait_for_idle($node);
is( $node->safe_psql('w', "SELECT status, processed, deferred FROM datamart_users_cycles WHERE cycle_id = $cycle"),
	'cancelled|1|4', 'caller gone while the coordinator waits: history');
open_gate(pop @gates);

# After a crash: every refresh is noted, that of a second turn too.
reset_all(6);
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', cycle_sql('NULL', 1));
wait_for_gate($node, 'w', 1);
$node->stop('immediate');
finish($caller);
eval { $gate->quit };
$node->start;
reset_all(6, map { $_ => $while_busy } 1 .. 4);
@gates = map { hold_gate($node, 'w', $_) } 3, 6;
$caller = start_psql($node, 'w', cycle_sql('NULL', 1));
wait_for_gate($node, 'w', 1);
$node->safe_psql('w', 'TRUNCATE dwh.busy');
open_gate(pop @gates);
wait_for_sql($node, 'w', 'SELECT processed = 4 FROM datamart_users_progress', 'four are processed');
wait_for_gate($node, 'w', 1);
is($node->safe_psql('w', "SELECT string_agg(dimension_user_id::text, ',') FROM datamart_users_suspects"), 3, 'after a crash: who is at work in the second turn is noted');
open_gate(pop @gates);
(undef, $stdout) = finish($caller);
is($stdout, 'completed|6|6|0|0|0', 'after a crash: all are processed');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_suspects'), 0, 'after a crash: nobody is suspected');
check_sane($node, 'w', 'the end');

$node->stop;
done_testing();
