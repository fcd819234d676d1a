# An error that hits everybody need not have the same SQLSTATE for all: who was
# at work when a server went down loses his connection, the next ones get none.
# The cycle ends all the same, and nobody is charged.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('mixed_errors');
my ($gate, $caller, $stdout, $stderr, $before);

add_warehouse($node, 'w', 20);

# Once dwh.faults has rows, the procedure raises them in turn.  All but the first
# five datamart users pass a gate before.
$node->safe_psql('w', <<'SQL');
CREATE TABLE dwh.faults (turn integer, sqlstate text);
CREATE SEQUENCE dwh.turns MINVALUE 0;
CREATE FUNCTION dwh.fail() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	v_turn bigint;
	v_fault text;
BEGIN
	IF NEW.dimension_user_id > 5 THEN
		PERFORM pg_advisory_xact_lock_shared(4711, 98);
	END IF;
	IF EXISTS (SELECT FROM dwh.faults) THEN
		v_turn := nextval('dwh.turns');
		SELECT sqlstate INTO STRICT v_fault FROM dwh.faults
		WHERE turn = v_turn % (SELECT count(*) FROM dwh.faults);
		RAISE EXCEPTION 'the world is broken: %', v_fault USING ERRCODE = v_fault;
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER fail BEFORE INSERT ON dwh.datamartusers FOR EACH ROW EXECUTE FUNCTION dwh.fail();
SQL

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
		q(SELECT count(*), string_agg(DISTINCT sqlstate, ',') FROM datamart_users_failures WHERE next_attempt_at > now()));
}

sub raise
{
	my ($sqlstate) = @_;

	return "DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''$sqlstate'', MESSAGE = ''mine''; END'";
}

# SQL that has the procedure raise these in turn.
sub faults
{
	my @faults = @_;

	return "SELECT setval('dwh.turns', 0, false); TRUNCATE dwh.faults; INSERT INTO dwh.faults VALUES "
	  . join(', ', map { "($_, '$faults[$_]')" } 0 .. $#faults);
}

for my $workers (1, 4)
{
	for my $faults (
		[ qw(08006 08001) ],
		[ '57P01', '08006', ('08001') x 18 ],
		[ qw(53100 58030) ],
		[ qw(42P01 42883 42501) ],
		[ qw(XX000 XX001 53200) ])
	{
		my $what = "@{$faults}[0 .. 1] ..., workers: $workers";

		# Three have failed before; two fail for themselves before all do, one
		# with an error that could be everybody's: with one worker, as others
		# have to succeed after that one.
		reset_warehouse($node, 'w', 20, 3 => raise('P0002'), 2 => raise($workers == 1 ? '42P01' : 'P0003'));
		$node->safe_psql('w', <<'SQL');
INSERT INTO datamart_users_failures
SELECT id, 3, '2020-01-01', '2020-01-02 03:04:05.678', '2020-01-03', '22012', 'long ago', 'somewhere', 0,
	   'dwh.dimension_users'::regclass, 'dwh.dimension_users'
  FROM unnest('{7,18,20}'::bigint[]) AS id;
SQL
		$gate = hold_gate($node, 'w', 98);
		$caller = start_psql($node, 'w', cycle_sql('NULL', $workers));
		wait_for_gate($node, 'w', $workers);
		$before = failures();
		is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures WHERE cycle_id > 0'), 2, "$what: two have failed for themselves");
		$node->safe_psql('w', faults(@$faults));
		open_gate($gate);
		(undef, $stdout, $stderr) = finish($caller);
		$node->safe_psql('w', 'TRUNCATE dwh.faults');
		like($stderr, qr/ERROR:  \w{5}: the world is broken/, "$what: the cycle ends") or diag("$stdout$stderr");
		is(last_cycle($node, 'w', 'status, sqlstate'), 'failed|' . sqlstate($stderr), "$what: so says the history");
		is(failures(), $before, "$what: who failed before has its failure, and nobody else");
		is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures_undo'), 0, "$what: nothing is kept");
		is($node->safe_psql('w', cycle_sql('NULL', $workers)), 'completed|15|15|0|0', "$what: the next cycle does them");
		check_sane($node, 'w', $what);
	}

	# From the beginning on, in a queue that is too short to try its other end.
	reset_warehouse($node, 'w', 4);
	$node->safe_psql('w', faults(qw(53100 53200)));
	(undef, undef, $stderr) = run_psql($node, 'w', cycle_sql('NULL', $workers));
	$node->safe_psql('w', 'TRUNCATE dwh.faults');
	like(sqlstate($stderr), qr/^53[12]00$/, "a short queue, workers: $workers: the cycle ends");
	is(failures(), '', 'and nobody is charged');

	# The others are asked before anything is said: ten heads, and the tail is
	# well; or some of each in turn.
	reset_warehouse($node, 'w', 20, map { $_ => raise((qw(42P01 42883 53200))[$_ % 3]) } 1 .. 10);
	is($node->safe_psql('w', cycle_sql('NULL', $workers)), 'completed|20|10|10|0', "ten heads with several errors, workers: $workers");
	is(count_failures(), '10|42883,42P01,53200', 'each has its failure');
}

# Ten with errors of their own, who are all of the queue: not for ever.
reset_warehouse($node, 'w', 20, map { $_ => raise((qw(42P01 42883))[$_ % 2]) } 1 .. 10);
(undef, undef, $stderr) = run_psql($node, 'w', cycle_sql(10, 1));
like(sqlstate($stderr), qr/^42/, 'ten alone: the cycle ends');
is(failures(), '', 'and nobody is charged');
(undef, undef, $stderr) = run_psql($node, 'w', cycle_sql(10, 1));
is(count_failures(), '5|42883,42P01', 'once more: they keep their back-offs');
is($node->safe_psql('w', cycle_sql(10, 1)), 'completed|10|5|5|0', 'so that others are taken');
check_sane($node, 'w', 'the end');
$node->stop;

done_testing();
