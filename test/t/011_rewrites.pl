# Relations that are emptied, rewritten or replaced while a refresh is under
# way: to its snapshot they look empty, or show what came later.  Never is that
# stored with a cleared flag; and what changes no rows makes nobody start again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $run = 'SELECT status, processed, failed, skipped, deferred FROM datamart_users_run_cycle(NULL, 1)';
my $node = new_node('rewrites');
my ($gate, $caller, $stdout, $stderr);

add_warehouse($node, 'w', 1);
$node->safe_psql('w', <<'SQL');
CREATE SEQUENCE dwh.attempts;
CREATE TABLE dwh.seen (value bigint);
CREATE TABLE dwh.staging (i integer);
SQL

# Every case has these afresh: five rows each.  Relations of which a case reads
# nothing else are there to be told from those it reads.
my $tables = <<'SQL';
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS src, src_old, src_next CASCADE;
CREATE SCHEMA src;
CREATE TABLE src.rates AS SELECT i AS rate FROM generate_series(1, 5) AS i;
CREATE TABLE src.rates_next (rate integer);
CREATE MATERIALIZED VIEW src.totals AS SELECT rate FROM src.rates;
CREATE VIEW src.all_rates AS SELECT rate FROM src.rates;
CREATE FUNCTION src.count_rates() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM src.rates';
CREATE TABLE src.parts (i integer, sub integer) PARTITION BY LIST (i);
CREATE TABLE src.parts_1 PARTITION OF src.parts FOR VALUES IN (1);
CREATE TABLE src.parts_2 PARTITION OF src.parts FOR VALUES IN (2) PARTITION BY LIST (sub);
CREATE TABLE src.parts_2_1 PARTITION OF src.parts_2 FOR VALUES IN (1);
CREATE TABLE src.parts_2_2 PARTITION OF src.parts_2 FOR VALUES IN (2);
INSERT INTO src.parts VALUES (1, 1), (1, 2), (2, 1), (2, 2), (2, 2);
CREATE TABLE src.parts_next (i integer, sub integer);
CREATE SCHEMA src_next;
CREATE TABLE src_next.rates (rate integer);
CREATE TABLE src.parent (i integer);
CREATE TABLE src.child () INHERITS (src.parent);
INSERT INTO src.child SELECT generate_series(1, 5);
TRUNCATE dwh.seen, dwh.staging;
ALTER SEQUENCE dwh.attempts RESTART;
SQL

my $refill = 'TRUNCATE src.rates; INSERT INTO src.rates VALUES (1), (2);';
my $replace = 'CREATE TABLE src.new AS SELECT * FROM src.parts_1; INSERT INTO src.new VALUES (1, 3);';
my $count = 'INSERT INTO dwh.seen SELECT count(*) FROM ';

# What the procedure does once the gate is open.
sub procedure
{
	my ($body) = @_;

	return <<"SQL";
DO \$b\$
DECLARE
	n bigint;
BEGIN
	PERFORM nextval('dwh.attempts');
	PERFORM pg_advisory_xact_lock_shared(4711, 99);
	$body
END \$b\$
SQL
}

# One refresh; "meanwhile" is committed when it has its snapshot and has read
# nothing but the facts.
sub refresh
{
	my ($body, $meanwhile) = @_;

	$node->safe_psql('w', $tables);
	reset_warehouse($node, 'w', 1, 1 => procedure($body));
	$gate = hold_gate($node, 'w', 99);
	$caller = start_psql($node, 'w', $run);
	wait_for_gate($node, 'w', 1);
	$node->safe_psql('w', "SET client_min_messages = warning; $_") for (ref $meanwhile ? @$meanwhile : "BEGIN; $meanwhile COMMIT;");
	open_gate($gate);
	(undef, $stdout, $stderr) = finish($caller);
	return "$stdout|" . $node->safe_psql('w', "SELECT (SELECT string_agg(value::text, ',') FROM dwh.seen), (SELECT last_value FROM dwh.attempts)");
}

# It starts again, and sees what is there then.
for (
	[ 'TRUNCATE', "$count src.rates;", $refill, 2 ],
	[ 'TRUNCATE, read through a view', "$count src.all_rates;", $refill, 2 ],
	[ 'TRUNCATE, read through a function', 'INSERT INTO dwh.seen SELECT src.count_rates();', $refill, 2 ],
	[ 'TRUNCATE, read by EXECUTE', "EXECUTE '$count src.rates';", $refill, 2 ],
	[ 'TRUNCATE, read in an exception block', "BEGIN SELECT count(*) INTO n FROM src.rates; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN INSERT INTO dwh.seen VALUES (n); END;", $refill, 2 ],
	[ 'TRUNCATE, read in an exception block in another one', "BEGIN BEGIN SELECT count(*) INTO n FROM src.rates; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN RAISE no_data_found; END; EXCEPTION WHEN no_data_found THEN INSERT INTO dwh.seen VALUES (n); END;", $refill, 2 ],
	[ 'TRUNCATE, and the refresh alters the table itself', "ALTER TABLE src.rates SET (fillfactor = 50); $count src.rates;", $refill, 2 ],
	[ 'TRUNCATE, read by a cursor WITH HOLD', "EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT nextval(''dwh.attempts'') FROM src.rates';", $refill, undef, '|4' ],
	[ 'TRUNCATE, and an error for want of the rows', "SELECT rate INTO STRICT n FROM src.rates LIMIT 1; $count src.rates;", $refill, 2 ],
	[ 'TRUNCATE, and a division by zero', "n := 1 / (SELECT count(*) FROM src.rates); $count src.rates;", $refill, 2 ],
	[ 'TRUNCATE, and an error in an exception block', "BEGIN SELECT rate INTO STRICT n FROM src.rates LIMIT 1; EXCEPTION WHEN no_data_found THEN RAISE 'no rates'; END; $count src.rates;", $refill, 2 ],
	[ 'ALTER TABLE that rewrites', "$count src.all_rates;", 'DROP VIEW src.all_rates; DROP MATERIALIZED VIEW src.totals; ALTER TABLE src.rates ALTER rate TYPE bigint; CREATE VIEW src.all_rates AS SELECT rate FROM src.rates;', 5 ],
	[ 'REFRESH MATERIALIZED VIEW', "$count src.totals;", 'INSERT INTO src.rates VALUES (6); REFRESH MATERIALIZED VIEW src.totals;', 6 ],
	[ 'TRUNCATE of a partition', "$count src.parts;", 'TRUNCATE src.parts_1; INSERT INTO src.parts_1 VALUES (1, 1);', 4 ],
	[ 'TRUNCATE of a partition of a partition', "$count src.parts;", 'TRUNCATE src.parts_2_2; INSERT INTO src.parts_2_2 VALUES (2, 2);', 4 ],
	[ 'ALTER TABLE that rewrites all partitions', "$count src.parts;", 'ALTER TABLE src.parts ADD COLUMN c double precision DEFAULT random();', 5 ],
	[ 'exchange of a partition', "$count src.parts;", "$replace ALTER TABLE src.parts DETACH PARTITION src.parts_1; DROP TABLE src.parts_1; ALTER TABLE src.parts ATTACH PARTITION src.new FOR VALUES IN (1);", 6 ],
	[ 'exchange of a partition for a table that was there', "$count src.parts;", 'INSERT INTO src.parts_next VALUES (1, 1); ALTER TABLE src.parts DETACH PARTITION src.parts_1; ALTER TABLE src.parts ATTACH PARTITION src.parts_next FOR VALUES IN (1);', 4 ],
	[ 'DROP of a partition', "$count src.parts;", 'DROP TABLE src.parts_1;', 3 ],
	[ 'DETACH of a partition of a partition', "$count src.parts;", 'ALTER TABLE src.parts_2 DETACH PARTITION src.parts_2_1;', 4 ],
	[ 'DROP of a child', "$count src.parent;", 'DROP TABLE src.child;', 0 ],
	[ 'NO INHERIT', "$count src.parent;", 'ALTER TABLE src.child NO INHERIT src.parent;', 0 ],
	[ 'INHERIT', "$count src.parent;", 'CREATE TABLE src.child_2 AS SELECT 7 AS i; ALTER TABLE src.child_2 INHERIT src.parent;', 6 ],
	[ 'RENAME of a new table', "$count src.rates;", 'CREATE TABLE src.new AS SELECT 1 AS rate; ALTER TABLE src.rates RENAME TO rates_old; ALTER TABLE src.new RENAME TO rates;', 1 ],
	[ 'RENAME of a table that was there', "$count src.rates;", 'INSERT INTO src.rates_next VALUES (1); ALTER TABLE src.rates RENAME TO rates_old; ALTER TABLE src.rates_next RENAME TO rates;', 1 ],
	[ 'SET SCHEMA', "$count src.rates;", 'CREATE SCHEMA src_old; ALTER TABLE src.rates SET SCHEMA src_old; CREATE TABLE src.rates AS SELECT 1 AS rate;', 1 ],
	[ 'RENAME of a schema', "$count src.rates;", 'CREATE SCHEMA src_new CREATE TABLE rates (rate integer); INSERT INTO src_new.rates VALUES (1); ALTER SCHEMA src RENAME TO src_old; ALTER SCHEMA src_new RENAME TO src;', 1 ],
	[ 'RENAME of a schema that was there', "$count src.rates;", 'INSERT INTO src_next.rates VALUES (1); ALTER SCHEMA src RENAME TO src_old; ALTER SCHEMA src_next RENAME TO src;', 1 ],
	[ 'DROP and CREATE', "EXECUTE '$count src.rates';", 'DROP TABLE src.rates CASCADE; CREATE TABLE src.rates AS SELECT 1 AS rate;', 1 ],
	[ 'TRUNCATE among more relations than are told apart', "$count src.rates;", "$refill DO 'BEGIN FOR i IN 1 .. 1100 LOOP EXECUTE ''CREATE TEMPORARY TABLE t'' || i || '' (i integer)''; END LOOP; END';", 2 ],
	[ 'DROP of a partition among more relations', "$count src.parts;", "DROP TABLE src.parts_1; DO 'BEGIN FOR i IN 1 .. 1100 LOOP EXECUTE ''CREATE TEMPORARY TABLE t'' || i || '' (i integer)''; END LOOP; END';", 3 ],
	[ 'TRUNCATE among more relations, read in an exception block', "PERFORM count(*) FROM src.parts; BEGIN SELECT count(*) INTO n FROM src.rates; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN INSERT INTO dwh.seen VALUES (n); END;", "DO 'BEGIN FOR i IN 1 .. 1100 LOOP EXECUTE ''CREATE TEMPORARY TABLE t'' || i || '' (i integer)''; END LOOP; END'; $refill", 2 ])
{
	my ($what, $body, $meanwhile, $value, $rest) = @$_;

	is(refresh($body, $meanwhile), 'completed|1|0|0|0|' . ($rest // "$value|2"), "$what: the refresh starts again");
	check_sane($node, 'w', $what);
}

# Nobody starts again for what has not touched the rows that were read.
for (
	[ 'TRUNCATE of a table that nobody reads', "$count src.rates;", [ ('TRUNCATE dwh.staging; INSERT INTO dwh.staging VALUES (1)') x 3 ], 5 ],
	[ 'the same, and an exception block', "BEGIN PERFORM count(*) FROM src.parts; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN $count src.rates; END;", 'TRUNCATE dwh.staging;', 5 ],
	[ 'ANALYZE and VACUUM', "$count src.rates; $count src.parts;", [ 'ANALYZE src.rates, src.parts', 'VACUUM src.rates, src.parts', 'VACUUM ANALYZE src.rates' ], '5,5' ],
	[ 'other columns, indexes and privileges', "$count src.rates;", 'ALTER TABLE src.rates ADD COLUMN note text; CREATE INDEX ON src.rates (rate); GRANT SELECT ON src.rates TO pg_monitor;', 5 ],
	[ 'a new partition that is read by nobody', "$count src.parts_1;", 'CREATE TABLE src.parts_3 PARTITION OF src.parts FOR VALUES IN (3);', 2 ],
	[ 'other schemas', "$count src.rates;", 'CREATE SCHEMA src_old; ALTER SCHEMA src_next RENAME TO src_new; ALTER SCHEMA src_new RENAME TO src_next;', 5 ],
	[ 'a schema of its own', "ALTER SCHEMA src RENAME TO src_old; $count src_old.rates; ALTER SCHEMA src_old RENAME TO src;", 'CREATE SCHEMA src_old_2; DROP SCHEMA src_old_2;', 5 ],
	[ 'TRUNCATE by the refresh itself', "TRUNCATE src.rates; INSERT INTO src.rates VALUES (1); $count src.rates;", 'ANALYZE src.rates;', 1 ],
	[ 'temporary tables of its own', "CREATE TEMPORARY TABLE t AS SELECT rate FROM src.rates; $count t; TRUNCATE t; $count t;", 'TRUNCATE dwh.staging;', '5,0' ],
	[ 'DDL of its own on the tables that it reads', "ALTER TABLE src.rates RENAME TO r; ALTER TABLE src.rates_next RENAME TO rates; $count src.r; ALTER TABLE src.rates RENAME TO rates_next; ALTER TABLE src.r RENAME TO rates; ALTER TABLE src.parts DETACH PARTITION src.parts_1; $count src.parts;", 'ANALYZE src.rates, src.parts_1;', '5,3' ],
	[ 'DDL of its own that is rolled back', "BEGIN TRUNCATE src.rates; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN $count src.rates; END;", 'ANALYZE src.rates;', 5 ],
	[ 'TRUNCATE after it was read in an exception block', "BEGIN $count src.rates; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN PERFORM pg_advisory_xact_lock_shared(4711, 99); $count src.parts; END;", 'TRUNCATE dwh.staging;', 5 ],
	[ 'more relations than are told apart', "$count src.rates;", [ "DO 'BEGIN FOR i IN 1 .. 1100 LOOP EXECUTE ''CREATE TEMPORARY TABLE t'' || i || '' (i integer)''; END LOOP; END'", 'TRUNCATE dwh.staging', 'ANALYZE src.rates' ], 5 ])
{
	my ($what, $body, $meanwhile, $value) = @$_;

	is(refresh($body, $meanwhile), "completed|1|0|0|0|$value|1", "$what: the refresh goes on");
	check_sane($node, 'w', $what);
}

# A failure remains one, and is tried once more at the most.
is(refresh("PERFORM count(*) FROM src.rates; RAISE 'broken';", 'TRUNCATE dwh.staging; ANALYZE src.rates;'), 'completed|0|1|0|0||1', 'a failure without a rewrite is tried once');
is(refresh("PERFORM count(*) FROM src.rates; CREATE TEMPORARY TABLE t (i integer); TRUNCATE dwh.staging; RAISE 'broken';", 'SELECT;'), 'completed|0|1|0|0||1', 'DDL of its own is no reason either');
is(refresh("PERFORM count(*) FROM src.rates; RAISE 'broken';", $refill), 'completed|0|1|0|0||2', 'a failure after a rewrite is tried once more');
is($node->safe_psql('w', 'SELECT sqlstate, message, attempts FROM datamart_users_failures'), 'P0001|broken|1', 'and counts as one');

# What a deferred trigger reads.
$node->safe_psql('w', $tables);
$node->safe_psql('w', <<"SQL");
CREATE FUNCTION dwh.read_rates() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN $count src.rates; RETURN NULL; END
\$\$;
CREATE CONSTRAINT TRIGGER read_rates AFTER INSERT ON dwh.datamartusers
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dwh.read_rates();
SQL
is(refresh('', $refill), 'completed|1|0|0|0|2|2', 'TRUNCATE, read by a deferred trigger: the refresh starts again');
$node->safe_psql('w', 'DROP FUNCTION dwh.read_rates CASCADE');

# A rewrite that has begun before the snapshot, and ends while the refresh
# waits for the table.
$node->safe_psql('w', $tables);
reset_warehouse($node, 'w', 1, 1 => procedure("$count src.rates;"));
my $etl = $node->background_psql('w');
$etl->query_safe("BEGIN; $refill");
$caller = start_psql($node, 'w', $run);
wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM pg_locks WHERE relation = 'src.rates'::regclass AND NOT granted", 'the refresh waits for the table');
$etl->query_safe('COMMIT');
(undef, $stdout) = finish($caller);
is($stdout, 'completed|1|0|0|0', 'TRUNCATE begun before: the cycle completes');
is($node->safe_psql('w', 'SELECT value, (SELECT last_value FROM dwh.attempts) FROM dwh.seen'), '2|2', 'TRUNCATE begun before: the refresh starts again');

# Another relation in every attempt, three at once and three more at the end of
# the cycle: deferred, and nothing stored.
$node->safe_psql('w', $tables);
$node->safe_psql('w', 'CREATE TABLE src.rates_' . $_ . ' AS SELECT 1 AS rate') for (1 .. 7);
reset_warehouse($node, 'w', 1, 1 => <<'SQL');
DO $b$
DECLARE
	n integer := nextval('dwh.attempts');
BEGIN
	PERFORM pg_advisory_xact_lock_shared(4711, 100 + n);
	EXECUTE format('INSERT INTO dwh.seen SELECT count(*) FROM src.rates_%s', n);
END $b$
SQL
my @gates = map { hold_gate($node, 'w', 100 + $_) } (1 .. 6);
$caller = start_psql($node, 'w', $run);
for my $n (1 .. 6)
{
	wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 100 + $n AND NOT granted", "attempt $n is at its gate");
	$node->safe_psql('w', "BEGIN; TRUNCATE src.rates_$n; INSERT INTO src.rates_$n VALUES (1); COMMIT");
	open_gate($gates[$n - 1]);
}
(undef, $stdout) = finish($caller);
is($stdout, 'completed|0|0|0|1', 'rewritten under every attempt: deferred');
is($node->safe_psql('w', 'SELECT (SELECT count(*) FROM dwh.seen), (SELECT count(*) FROM datamart_users_failures), modified FROM dwh.dimension_users'), '0|0|t', 'and nothing stored');
like(slurp_file($node->logfile), qr/deferred datamart user 1: relation "src\.rates_6" was emptied, rewritten or replaced during the refresh/, 'and the log names the relation');
is($node->safe_psql('w', $run), 'completed|1|0|0|0', 'the next cycle has it');
check_sane($node, 'w', 'rewritten under every attempt');

# The same relation all the time: the second attempt has it locked before it
# begins, so the next TRUNCATE waits.
$node->safe_psql('w', $tables);
reset_warehouse($node, 'w', 1, 1 => <<'SQL');
DO $b$
DECLARE
	n integer := nextval('dwh.attempts');
BEGIN
	PERFORM pg_advisory_xact_lock_shared(4711, 100 + n);
	INSERT INTO dwh.seen SELECT count(*) FROM src.rates;
END $b$
SQL
@gates = map { hold_gate($node, 'w', 100 + $_) } (1 .. 2);
$caller = start_psql($node, 'w', $run);
wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 101 AND NOT granted", 'attempt 1 is at its gate');
$node->safe_psql('w', "BEGIN; $refill COMMIT");
open_gate($gates[0]);
wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 102 AND NOT granted", 'attempt 2 is at its gate');
my $other = start_psql($node, 'w', "BEGIN; $refill INSERT INTO src.rates VALUES (3); COMMIT", name => 'etl');
wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM pg_locks WHERE relation = 'src.rates'::regclass AND NOT granted", 'the ETL waits');
open_gate($gates[1]);
(undef, $stdout) = finish($caller);
finish($other);
is($stdout, 'completed|1|0|0|0', 'truncated all the time: the second attempt gets it done');
is($node->safe_psql('w', 'SELECT value FROM dwh.seen'), '2', 'and stores what was there');

# A partition of the facts, and of the users table itself.
add_warehouse($node, 'p', 1);
$node->safe_psql('p', <<'SQL');
DROP TABLE dwh.dimension_users, dwh.facts;
CREATE TABLE dwh.dimension_users (dimension_user_id integer PRIMARY KEY, modified boolean NOT NULL DEFAULT TRUE) PARTITION BY RANGE (dimension_user_id);
CREATE TABLE dwh.dimension_users_1 PARTITION OF dwh.dimension_users FOR VALUES FROM (1) TO (100);
CREATE TABLE dwh.dimension_users_2 PARTITION OF dwh.dimension_users FOR VALUES FROM (100) TO (200);
CREATE TABLE dwh.facts (action_dimension_id_user integer, action_at timestamptz NOT NULL) PARTITION BY LIST (action_dimension_id_user);
CREATE TABLE dwh.facts_1 PARTITION OF dwh.facts FOR VALUES IN (1);
CREATE TABLE dwh.facts_2 PARTITION OF dwh.facts DEFAULT;
SQL
for (
	[ 'the facts', 'TRUNCATE dwh.facts_1; INSERT INTO dwh.facts SELECT 1, CURRENT_DATE FROM generate_series(1, 3)', 'dwh.facts_1' ],
	[ 'the users table', 'TRUNCATE dwh.dimension_users_1; INSERT INTO dwh.dimension_users VALUES (1)', 'dwh.dimension_users_1' ])
{
	my ($what, $sql, $relation) = @$_;

	$node->safe_psql('p', 'TRUNCATE dwh.dimension_users, dwh.facts, dwh.datamartusers');
	$node->safe_psql('p', "INSERT INTO dwh.dimension_users VALUES (1), (150); INSERT INTO dwh.facts VALUES (1, CURRENT_DATE - 1), (150, CURRENT_DATE)");
	$gate = hold_gate($node, 'p', 150);
	$caller = start_psql($node, 'p', [ q(SET datamart_users.worker_settings = 'plan_cache_mode = force_custom_plan'), $run ]);
	wait_for_gate($node, 'p', 1);
	$etl = $node->background_psql('p');
	$etl->query_safe("BEGIN; $sql");
	open_gate($gate);
	wait_for_sql($node, 'p', "SELECT count(*) = 1 FROM pg_locks WHERE relation = '$relation'::regclass AND NOT granted", "the next refresh waits for $relation");
	$etl->query_safe('COMMIT');
	$etl->quit;
	(undef, $stdout) = finish($caller);
	is($stdout, 'completed|2|0|0|0', "TRUNCATE of a partition of $what: nobody is skipped");
	check_sane($node, 'p', "TRUNCATE of a partition of $what");
}

done_testing();
