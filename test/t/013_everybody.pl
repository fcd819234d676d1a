# An error that hits everybody ends the cycle and is charged to nobody; one
# that many have for themselves does not, wherever in the queue they stand.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('everybody');
my ($gate, $caller, $other, $stdout, $stderr, $status);

add_warehouse($node, 'w', 20);

# The procedure as it was, with a table and a function that it depends on, and
# after its gate the error of a table that says what is wrong with the world.
# All rights come through a group.
$node->safe_psql('w', <<'SQL');
CREATE TABLE dwh.rates AS SELECT 1 AS rate;
CREATE TABLE dwh.fault (sqlstate text);
CREATE FUNCTION dwh.rate() RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE OR REPLACE PROCEDURE dwh.update_datamart_user(p_id integer)
LANGUAGE plpgsql
AS $$
DECLARE
	v_what text;
BEGIN
	SELECT sqlstate INTO v_what FROM dwh.fault;
	IF v_what = 'sleep' THEN
		PERFORM pg_sleep(600);
	ELSIF FOUND THEN
		RAISE EXCEPTION 'the world is broken: %', v_what USING ERRCODE = v_what;
	END IF;
	PERFORM rate + dwh.rate() FROM dwh.rates;
	INSERT INTO dwh.datamartusers AS d (dimension_user_id, actions)
	SELECT p_id, count(*) FROM dwh.facts WHERE action_dimension_id_user = p_id
	ON CONFLICT (dimension_user_id) DO UPDATE SET actions = excluded.actions;
	SELECT what INTO v_what FROM dwh.behaviour WHERE dimension_user_id = p_id;
	IF FOUND THEN
		EXECUTE v_what;
	END IF;
	PERFORM pg_advisory_xact_lock_shared(4711, 0);
	PERFORM pg_advisory_xact_lock_shared(4711, p_id);
END;
$$;
REVOKE EXECUTE ON PROCEDURE dwh.update_datamart_user FROM PUBLIC;
CREATE ROLE loaders;
CREATE ROLE etl LOGIN IN ROLE loaders;
CREATE ROLE other;
SQL

my $grants = <<'SQL';
GRANT EXECUTE ON FUNCTION datamart_users_run_cycle TO loaders;
GRANT USAGE ON SCHEMA dwh TO loaders;
GRANT SELECT ON dwh.facts, dwh.dimension_users, dwh.rates, dwh.fault, dwh.behaviour TO loaders;
GRANT UPDATE (modified) ON dwh.dimension_users TO loaders;
GRANT SELECT, INSERT, UPDATE ON dwh.datamartusers TO loaders;
GRANT EXECUTE ON PROCEDURE dwh.update_datamart_user TO loaders;
SQL
$node->safe_psql('w', $grants);
my $definition = $node->safe_psql('w', "SELECT pg_get_functiondef('dwh.update_datamart_user'::regproc)");

sub raise
{
	my ($sqlstate) = @_;

	return "DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''$sqlstate'', MESSAGE = ''mine''; END'";
}

sub cycle_sql
{
	my ($max_users, $workers) = @_;

	return "SELECT status, found, processed, failed, deferred FROM datamart_users_run_cycle($max_users, $workers)";
}

sub failures
{
	return $node->safe_psql('w', 'SELECT f FROM datamart_users_failures f ORDER BY dimension_user_id');
}

sub count_failures
{
	return $node->safe_psql('w',
		q(SELECT count(*), coalesce(min(attempts), 0), coalesce(max(attempts), 0), coalesce(string_agg(DISTINCT sqlstate, ','), '')
			FROM datamart_users_failures WHERE next_attempt_at > now()));
}

sub modified
{
	return $node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE modified');
}

# What holds at the end of a cycle that was ended by an error of everybody.
sub check_nobody_charged
{
	my ($what, $sqlstate, $before) = @_;
	my $history = last_cycle($node, 'w', 'status, sqlstate');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like(sqlstate($stderr), qr/^(?:$sqlstate)$/, "$what: the caller gets the error") or diag($stderr);
	is($history, 'failed|' . sqlstate($stderr), "$what: so does the history");
	like($stderr, qr/ERROR:  \w{5}: \Q@{[last_cycle($node, 'w', 'message')]}\E\n/, "$what: with its message");
	is(failures(), $before, "$what: nobody is charged");
	is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures_undo'), 0, "$what: nothing is kept");
	return;
}

# A cycle over 20 in the midst of which "change" happens: with one worker in
# the fifth refresh, else in the first of all.  Two of them have failed before.
sub check_everybody
{
	my ($what, $workers, $sqlstate, $change, $undo, %options) = @_;
	my ($before, $processed);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$what = "$what, workers: $workers";
	reset_warehouse($node, 'w', 20);
	$node->safe_psql('w', <<'SQL');
INSERT INTO datamart_users_failures
SELECT id, 3, '2020-01-01', '2020-01-02 03:04:05.678', '2020-01-03', '22012', 'long ago', 'somewhere', 0,
	   'dwh.dimension_users'::regclass, 'dwh.dimension_users'
  FROM unnest('{7,18,20}'::bigint[]) AS id;
SQL
	$before = failures();
	$gate = hold_gate($node, 'w', $workers == 1 ? 5 : 0);
	$caller = start_psql($node, 'w', cycle_sql('NULL', $workers), user => 'etl');
	wait_for_gate($node, 'w', $workers);
	$other = start_psql($node, 'w', $change, name => 'ddl');
	if ($options{waits})
	{
		wait_for_sql($node, 'w',
			"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'ddl' AND wait_event_type = 'Lock'",
			'the change waits for a refresh');
		open_gate($gate);
		is((finish($other))[2], '', "$what: changed");
	}
	else
	{
		is((finish($other))[2], '', "$what: changed");
		open_gate($gate);
	}
	(undef, $stdout, $stderr) = finish($caller);

	# Table owners see to it that the rest finds its way.
	$node->safe_psql('w', $undo);
	check_nobody_charged($what, $sqlstate, $before);
	$processed = last_cycle($node, 'w', 'processed');
	is(modified(), 20 - $processed, "$what: who was not processed is modified");
	is($processed, 5, "$what: five were processed") if $workers == 1 && $options{after};

	(undef, $stdout, $stderr) = run_psql($node, 'w', cycle_sql('NULL', $workers), user => 'etl');
	is($stdout, sprintf('completed|%d|%d|0|0', 20 - $processed, 20 - $processed), "$what: the next cycle does them") or diag($stderr);
	is(failures(), '', "$what: with success");
	check_sane($node, 'w', $what);
	return;
}

for my $workers (1, 4)
{
	# Seen by a look at the warehouse.
	check_everybody('REVOKE EXECUTE', $workers, '42501',
		'REVOKE EXECUTE ON PROCEDURE dwh.update_datamart_user FROM loaders', $grants);
	check_everybody('REVOKE UPDATE', $workers, '42501',
		'REVOKE UPDATE (modified) ON dwh.dimension_users FROM loaders', $grants);
	check_everybody('REVOKE SELECT on the facts', $workers, '42501',
		'REVOKE SELECT ON dwh.facts FROM loaders', $grants, after => 1);
	check_everybody('REVOKE USAGE', $workers, '42501',
		'REVOKE USAGE ON SCHEMA dwh FROM loaders', $grants);
	check_everybody('REVOKE of a group', $workers, '42501',
		'REVOKE loaders FROM etl', 'GRANT loaders TO etl');
	check_everybody('RENAME COLUMN', $workers, '42703',
		'ALTER TABLE dwh.dimension_users RENAME COLUMN modified TO touched',
		'ALTER TABLE dwh.dimension_users RENAME COLUMN touched TO modified', waits => 1, after => 1);
	check_everybody('DROP PROCEDURE', $workers, '42883',
		'DROP PROCEDURE dwh.update_datamart_user',
		"$definition; REVOKE EXECUTE ON PROCEDURE dwh.update_datamart_user FROM PUBLIC; $grants", after => 1);
	check_everybody('DROP ROLE', $workers, '42501|42704',
		'DROP ROLE etl', 'CREATE ROLE etl LOGIN IN ROLE loaders');

	# Seen by nothing but the errors of one after the other.
	check_everybody('DROP TABLE', $workers, '42P01',
		'DROP TABLE dwh.rates', "CREATE TABLE dwh.rates AS SELECT 1 AS rate; $grants", waits => 1, after => 1);
	check_everybody('RENAME TABLE', $workers, '42P01',
		'ALTER TABLE dwh.rates RENAME TO rates_old', 'ALTER TABLE dwh.rates_old RENAME TO rates', waits => 1, after => 1);
	check_everybody('REVOKE on a table of the procedure', $workers, '42501',
		'REVOKE SELECT ON dwh.rates FROM loaders', $grants, after => 1);
	check_everybody('REVOKE on what it writes', $workers, '42501',
		'REVOKE INSERT ON dwh.datamartusers FROM loaders', $grants, after => 1);
	check_everybody('DROP FUNCTION', $workers, '42883',
		'DROP FUNCTION dwh.rate()', "CREATE FUNCTION dwh.rate() RETURNS integer LANGUAGE sql AS 'SELECT 1'", after => 1);
	for my $sqlstate (qw(53100 53200 53300 08006 25006 57P03 58030 XX001 42501 0A000))
	{
		check_everybody("SQLSTATE $sqlstate", $workers, $sqlstate,
			"INSERT INTO dwh.fault VALUES ('$sqlstate')", 'DELETE FROM dwh.fault', after => 1);
	}

	# From the beginning on, and nobody is through.
	reset_warehouse($node, 'w', 20);
	$node->safe_psql('w', "INSERT INTO dwh.fault VALUES ('sleep')");
	(undef, $stdout, $stderr) = run_psql($node, 'w',
		[ 'LOAD \'datamart_users\'', 'SET datamart_users.user_timeout = \'50ms\'', cycle_sql('NULL', $workers) ]);
	check_nobody_charged("user_timeout, workers: $workers", '57014', '');
	like($stderr, qr/datamart_users\.user_timeout/, "user_timeout, workers: $workers: which says what it was");
	$node->safe_psql('w', 'DELETE FROM dwh.fault');
	is($node->safe_psql('w', cycle_sql('NULL', $workers)), 'completed|20|20|0|0', 'and the next cycle does all');
}

#
# What is not everybody's
#
for my $workers (1, 4)
{
	# Thirty renamed accounts at the head.
	for my $sqlstate (qw(P0002 P0001 23505 22003 DM001))
	{
		reset_warehouse($node, 'w', 40);
		$node->safe_psql('w', "INSERT INTO dwh.behaviour SELECT i, \$a\$@{[raise($sqlstate)]}\$a\$ FROM generate_series(1, 30) i");
		is($node->safe_psql('w', cycle_sql('NULL', $workers)), 'completed|40|10|30|0', "thirty heads with $sqlstate, workers: $workers");
		is(count_failures(), "30|1|1|$sqlstate", 'each has its failure');
	}

	# Such errors as everybody could have; then the others are asked.
	reset_warehouse($node, 'w', 20, map { $_ => 'SELECT * FROM dwh.nowhere' } 1 .. 6);
	is($node->safe_psql('w', cycle_sql('NULL', $workers)), 'completed|20|14|6|0', "six heads with 42P01, workers: $workers");
	is(count_failures(), '6|1|1|42P01', 'each has its failure');
	is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures_undo'), 0, 'nothing is kept');

	# Too few to say anything.
	reset_warehouse($node, 'w', 20, map { $_ => raise('42501') } 1, 2);
	is($node->safe_psql('w', cycle_sql(2, $workers)), 'completed|2|0|2|0', "two alone, workers: $workers");
	is(count_failures(), '2|1|1|42501', 'each has its failure');

	# Five bad ones that are all of the queue: not for ever.
	reset_warehouse($node, 'w', 20, map { $_ => 'SELECT * FROM dwh.nowhere' } 1 .. 5);
	(undef, undef, $stderr) = run_psql($node, 'w', cycle_sql(5, $workers));
	check_nobody_charged("five alone, workers: $workers", '42P01', '');
	(undef, undef, $stderr) = run_psql($node, 'w', cycle_sql(5, $workers));
	is(sqlstate($stderr), '42P01', 'once more');
	is(last_cycle($node, 'w', 'status, sqlstate'), 'failed|42P01', 'history');
	is(count_failures(), '5|1|1|42P01', 'and they keep their back-offs');
	is($node->safe_psql('w', cycle_sql(5, $workers)), 'completed|5|5|0|0', 'so that others are taken');

	# Another error, or a cycle that was stopped, is not the same way to end.
	reset_warehouse($node, 'w', 20, map { $_ => raise('53200') } 1 .. 5);
	(undef, undef, $stderr) = run_psql($node, 'w', cycle_sql(5, $workers));
	check_nobody_charged("five with another error, workers: $workers", '53200', '');
	$node->safe_psql('w', "UPDATE dwh.behaviour SET what = 'SELECT * FROM dwh.nowhere'");
	(undef, undef, $stderr) = run_psql($node, 'w', cycle_sql(5, $workers));
	check_nobody_charged("and another one, workers: $workers", '42P01', '');
}

# What the look at the warehouse finds needs nobody else to prove it.
reset_warehouse($node, 'w', 20);
$gate = hold_gate($node, 'w', 19);
$caller = start_psql($node, 'w', cycle_sql('NULL', 1), user => 'etl');
wait_for_gate($node, 'w', 1);
$node->safe_psql('w', 'REVOKE SELECT ON dwh.facts FROM loaders');
open_gate($gate);
(undef, undef, $stderr) = finish($caller);
check_nobody_charged('REVOKE before the last one', '42501', '');
is(last_cycle($node, 'w', 'processed, failed'), '19|0', 'who is not even counted');
$node->safe_psql('w', $grants);
is($node->safe_psql('w', cycle_sql('NULL', 1)), 'completed|1|1|0|0', 'and is done by the next cycle');

# A success between them.
reset_warehouse($node, 'w', 20, map { $_ => raise('42501') } grep { $_ % 3 } 1 .. 20);
is($node->safe_psql('w', cycle_sql('NULL', 1)), 'completed|20|6|14|0', 'never more than two in a row');
is(count_failures(), '14|1|1|42501', 'each has its failure');

# A coordinator that was cancelled has not ended "in the same way".
reset_warehouse($node, 'w', 20);
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', cycle_sql('NULL', 1));
wait_for_gate($node, 'w', 1);
$node->safe_psql('w', 'SELECT pg_cancel_backend(' . worker_pid($node, 1) . ')');
(undef, undef, $stderr) = finish($caller);
is(last_cycle($node, 'w', 'status, sqlstate'), 'aborted|57014', 'a cancelled coordinator');
open_gate($gate);
wait_for_idle($node);
$node->safe_psql('w', "INSERT INTO dwh.fault VALUES ('sleep')");
(undef, $stdout, $stderr) = run_psql($node, 'w',
	[ 'LOAD \'datamart_users\'', 'SET datamart_users.user_timeout = \'50ms\'', cycle_sql('NULL', 1) ]);
check_nobody_charged('user_timeout after a cancel', '57014', '');
$node->safe_psql('w', 'DELETE FROM dwh.fault');

# Whatever keeps failures from being judged, the history is written.
reset_warehouse($node, 'w', 20, 9 => raise('P0001'));
$gate = hold_gate($node, 'w', 5);
$caller = start_psql($node, 'w', cycle_sql('NULL', 1));
wait_for_gate($node, 'w', 1);
$node->safe_psql('w', <<'SQL');
CREATE FUNCTION dwh.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER foreign_code BEFORE DELETE ON datamart_users_failures_undo FOR EACH STATEMENT EXECUTE FUNCTION dwh.nothing();
SQL
open_gate($gate);
(undef, $stdout, $stderr) = finish($caller);
is($stdout, 'completed|20|19|1|0', 'failures that cannot be judged: the cycle ends well') or diag($stderr);
is(last_cycle($node, 'w', 'status, processed, failed'), 'completed|19|1', 'so the history says');
like(slurp_file($node->logfile), qr/could not judge its failures: table .* has a trigger/, 'the log says what went wrong');
is(count_failures(), '1|1|1|P0001', 'and the failure is there');
$node->safe_psql('w', 'DROP TRIGGER foreign_code ON datamart_users_failures_undo');
check_sane($node, 'w', 'the end');

$node->stop;
done_testing();
