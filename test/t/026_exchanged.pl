# What a refresh reads by way of something that is exchanged under it for
# something else: a view that selects from another table from then on, which has
# been filled since, shows an older snapshot nothing.  Never is that stored with
# a cleared flag.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $run = 'SELECT status, processed, failed, skipped, deferred FROM datamart_users_run_cycle(NULL, 1)';
my $node = new_node('exchanged');
my ($gate, $caller, $stdout, $stderr);

add_warehouse($node, 'w', 2);
$node->safe_psql('w', <<'SQL');
CREATE SEQUENCE dwh.attempts;
CREATE TABLE dwh.seen (value bigint);
SQL

# Every case has these afresh: five rates in use, and a table for the next ones.
my $objects = <<'SQL';
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS src CASCADE;
CREATE SCHEMA src;
CREATE TABLE src.rates AS SELECT i AS rate FROM generate_series(1, 5) AS i;
CREATE TABLE src.next (rate integer);
CREATE VIEW src.current AS SELECT rate FROM src.rates;
CREATE VIEW src.above AS SELECT rate FROM src.current;
CREATE VIEW src.same AS SELECT rate FROM src.rates;
CREATE FUNCTION src.count_current() RETURNS bigint LANGUAGE plpgsql AS
	'BEGIN RETURN (SELECT count(*) FROM src.current); END';
TRUNCATE dwh.seen;
ALTER SEQUENCE dwh.attempts RESTART;
SQL

my $count = 'INSERT INTO dwh.seen SELECT count(*) FROM ';
my $fill = 'INSERT INTO src.next VALUES (1), (2); ';
my $replace = $fill . 'CREATE OR REPLACE VIEW src.current AS SELECT rate FROM src.next; ';
my $many = "DO 'BEGIN FOR i IN 1 .. 1100 LOOP EXECUTE ''CREATE TEMPORARY TABLE t'' || i || '' (i integer)''; END LOOP; END'; ";

# Two refreshes in one session.  The first one has its plans made; "meanwhile"
# is committed when the second one has its snapshot.  Returns the outcome, what
# the second stored, and its attempts.
sub refresh
{
	my ($body, $meanwhile) = @_;

	$node->safe_psql('w', $objects);
	reset_warehouse($node, 'w', 2, 1 => 'SELECT src.count_current()',
		2 => "DO \$b\$ DECLARE n bigint; BEGIN PERFORM nextval('dwh.attempts'), pg_advisory_xact_lock_shared(4711, 99); $body END \$b\$");
	$gate = hold_gate($node, 'w', 99);
	$caller = start_psql($node, 'w', $run);
	wait_for_gate($node, 'w', 1);
	$node->safe_psql('w', "SET client_min_messages = warning; BEGIN; $meanwhile COMMIT;");
	open_gate($gate);
	(undef, $stdout, $stderr) = finish($caller);
	return "$stdout|" . $node->safe_psql('w', "SELECT (SELECT string_agg(value::text, ',') FROM dwh.seen), (SELECT last_value FROM dwh.attempts)");
}

# It starts again, and sees what is there then.
for (
	[ 'a view', "$count src.current;", $replace, 2 ],
	[ 'a view below another one', "$count src.above;", $replace, 2 ],
	[ 'a view of a statement with a kept plan', 'INSERT INTO dwh.seen SELECT src.count_current();', $replace, 2 ],
	[ 'a view read in an exception block', "BEGIN SELECT count(*) INTO n FROM src.current; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN INSERT INTO dwh.seen VALUES (n); END;", $replace, 2 ],
	[ 'a view, and an error for want of the rows', "SELECT rate INTO STRICT n FROM src.current LIMIT 1; $count src.current;", "DELETE FROM src.rates; INSERT INTO src.next VALUES (1); CREATE OR REPLACE VIEW src.current AS SELECT rate FROM src.next;", 1 ],
	[ 'a view among more relations than are told apart', "$count src.current;", "$replace $many", 2 ],
	[ 'a view dropped and created', "$count src.current;", "$fill DROP VIEW src.current CASCADE; CREATE VIEW src.current AS SELECT rate FROM src.next;", 2 ],
	[ 'a view in the place of a view that was there', "$count src.same;", 'INSERT INTO src.rates VALUES (6); ALTER VIEW src.same RENAME TO old; ALTER VIEW src.current RENAME TO same;', 6 ],
	[ 'a view in the place of a table', "$count src.rates;", "$fill ALTER TABLE src.rates RENAME TO old; CREATE VIEW src.rates AS SELECT rate FROM src.next;", 2 ],
	[ 'a table in the place of a view', "$count src.current;", "$fill DROP VIEW src.current CASCADE; ALTER TABLE src.next RENAME TO current;", 2 ])
{
	my ($what, $body, $meanwhile, $value) = @$_;

	is(refresh($body, $meanwhile), "completed|2|0|0|0|$value|2", "$what: the refresh starts again");
	check_sane($node, 'w', $what);
}

# Nobody starts again for what has not changed what was read.
for (
	[ 'a view that nobody reads', "$count src.same;", $replace, 5 ],
	[ 'a view that is new', "$count src.current;", 'CREATE VIEW src.newer AS SELECT * FROM src.current;', 5 ],
	[ 'privileges on a view', "$count src.current;", 'GRANT SELECT ON src.current TO pg_monitor;', 5 ],
	[ 'the same among many relations', "$count src.current;", "GRANT SELECT ON src.current TO pg_monitor; $many", 5 ],
	[ 'a view of its own', "CREATE OR REPLACE VIEW src.current AS SELECT rate FROM src.next; $count src.current;", 'ANALYZE src.rates;', 0 ])
{
	my ($what, $body, $meanwhile, $value) = @$_;

	is(refresh($body, $meanwhile), "completed|2|0|0|0|$value|1", "$what: the refresh goes on");
	check_sane($node, 'w', $what);
}

done_testing();
