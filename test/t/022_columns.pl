# A warehouse whose columns have other names, odd ones among them: every part
# that names a column names those that are set, in SQL and to people.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('columns', init => { extra => [ '--encoding=UTF8', '--no-locale' ] });
my ($stdout, $stderr);

# As long as a name can be.
my $long = '%s ' . 'x' x 60;
my %name = (
	facts_user => $long,
	facts_time => 'order',
	users_key => 'sel ect',
	users_flag => "\xc3\x89tage \"1\"");

sub quoted
{
	my ($name) = @_;

	return '"' . ($name =~ s/"/""/gr) . '"';
}

sub literal
{
	my ($text) = @_;

	return "'" . ($text =~ s/'/''/gr) . "'";
}

my %sql = map { $_ => quoted($name{$_}) } keys %name;

# What a session says of its columns.
sub columns
{
	my (%other) = @_;
	my %value = (%sql, %other);

	return map { "SET datamart_users.${_}_column = " . literal($value{$_}) } sort keys %value;
}

# In a session of that database with those settings.
sub query
{
	my ($database, $settings, @sql) = @_;

	(undef, $stdout, $stderr) = run_psql($node, $database, [ @$settings, @sql ]);
	return $stdout;
}

sub refused
{
	my ($settings, $sqlstate, $message, $what) = @_;

	query('w', $settings, 'SELECT datamart_users_run_cycle()');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sqlstate($stderr), $sqlstate, "$what: SQLSTATE");
	like($stderr, $message, "$what: message");
	return;
}

$node->safe_psql('postgres', 'CREATE DATABASE w');
$node->safe_psql('w', <<"SQL");
CREATE EXTENSION datamart_users;
CREATE SCHEMA wh;
CREATE TABLE wh.countries (
	$sql{users_key} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	$sql{users_flag} boolean DEFAULT true,
	made boolean GENERATED ALWAYS AS (true) STORED,
	number text, gone boolean);
ALTER TABLE wh.countries DROP gone;
CREATE TABLE wh.facts ($sql{facts_user} integer, $sql{facts_time} timestamptz);
CREATE TABLE wh.datamart (id bigint PRIMARY KEY, facts bigint NOT NULL);
CREATE PROCEDURE wh.refresh(p_id bigint) LANGUAGE plpgsql AS \$\$
BEGIN
	IF p_id = 4 THEN
		RAISE 'no such country';
	END IF;
	INSERT INTO wh.datamart
	SELECT p_id, count(*) FROM wh.facts WHERE $sql{facts_user} = p_id
	ON CONFLICT (id) DO UPDATE SET facts = excluded.facts;
	PERFORM pg_advisory_xact_lock_shared(@{[DatamartUsersTest::GATE]}, 0);
END \$\$;
INSERT INTO wh.countries (number) SELECT n FROM generate_series(1, 6) n;
INSERT INTO wh.facts SELECT i, now() - make_interval(days => 20 * i) FROM generate_series(1, 5) i, generate_series(1, i);
SQL

my @settings = (
	"SET datamart_users.facts_table = 'wh.facts'",
	"SET datamart_users.users_table = 'wh.countries'",
	"SET datamart_users.procedure = 'wh.refresh'",
	columns());

#
# A cycle
#
is(query('w', \@settings, 'SELECT string_agg(dimension_user_id::text, \' \' ORDER BY queue_position) FROM datamart_users_queue()'), '1 4 3 2 5 6', 'the queue');
query('w', \@settings, 'SELECT datamart_users_priority_query()');
like($stdout, qr/u\.\Q$sql{users_key}\E::bigint AS id.*f\.\Q$sql{facts_user}\E OPERATOR\(pg_catalog\.=\) w\.id/s, 'the query speaks of the columns');
query('w', \@settings, "$stdout");
is($stderr, '', 'and runs');
is(query('w', \@settings, 'SELECT found, processed, failed, skipped FROM datamart_users_run_cycle(NULL, 2)'), '6|5|1|0', 'a cycle');
is($node->safe_psql('w', "SELECT string_agg($sql{users_key}::text, ' ') FROM wh.countries WHERE $sql{users_flag}"), '4', 'clears the flags of those it has refreshed');
is($node->safe_psql('w', "SELECT string_agg(id || ':' || facts, ' ' ORDER BY id) FROM wh.datamart"), '1:1 2:2 3:3 5:5 6:0', 'who are right');
is(query('w', \@settings, 'SELECT waiting, held FROM datamart_users_backlog WHERE waiting > 0'), '1|1', 'the backlog');
$node->safe_psql('w', "UPDATE wh.countries SET $sql{users_flag} = true");
query('w', \@settings, 'SELECT datamart_users_priority_query()');
like($stdout, qr/held\.id OPERATOR\(pg_catalog\.=\) u\.\Q$sql{users_key}\E/, 'the query leaves out who is held');
is(query('w', \@settings, $stdout) =~ tr/\n//, 4, 'by the right column');
is(query('w', \@settings, 'SELECT datamart_users_retry(4)'), '1', 'retry');

is(query('w', \@settings, 'SELECT dimension_user_id, outcome FROM datamart_users_try(5)'), '5|processed', 'a rehearsal');
is(query('w', \@settings, 'SELECT outcome, message FROM datamart_users_try(4)'), 'failed|no such country', 'of one that fails');
query('w', \@settings, 'SELECT * FROM datamart_users_try(77)');
is(sqlstate($stderr), '22023', 'of one that is not there');

#
# Other forms of the tables
#
$node->safe_psql('w', <<"SQL");
CREATE TABLE wh.parted ($sql{users_key} integer, $sql{users_flag} boolean, number text, PRIMARY KEY ($sql{users_key})) PARTITION BY RANGE ($sql{users_key});
CREATE TABLE wh.part2 (number text, $sql{users_flag} boolean, $sql{users_key} integer NOT NULL);
CREATE TABLE wh.part1 PARTITION OF wh.parted FOR VALUES FROM (1) TO (4);
ALTER TABLE wh.parted ATTACH PARTITION wh.part2 FOR VALUES FROM (4) TO (100);
INSERT INTO wh.parted SELECT n FROM generate_series(1, 6) n;
CREATE TABLE wh.under_view (k integer PRIMARY KEY, f boolean);
INSERT INTO wh.under_view SELECT n FROM generate_series(1, 6) n;
CREATE VIEW wh.seen AS SELECT f AS $sql{users_flag}, k AS $sql{users_key}, upper('x') AS number FROM wh.under_view;
CREATE TABLE wh.moved (LIKE wh.facts) PARTITION BY RANGE ($sql{facts_time});
CREATE TABLE wh.moved1 ($sql{facts_time} timestamptz, $sql{facts_user} integer);
ALTER TABLE wh.moved ATTACH PARTITION wh.moved1 DEFAULT;
INSERT INTO wh.moved SELECT * FROM wh.facts;
CREATE VIEW wh.seen_facts AS SELECT * FROM wh.facts;
CREATE EXTENSION postgres_fdw;
CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '@{[$node->host]}', port '@{[$node->port]}', dbname 'w');
CREATE USER MAPPING FOR CURRENT_USER SERVER here;
CREATE FOREIGN TABLE wh.far_facts ($sql{facts_user} integer, $sql{facts_time} timestamptz) SERVER here OPTIONS (schema_name 'wh', table_name 'facts');
CREATE FOREIGN TABLE wh.far ($sql{users_key} integer, $sql{users_flag} boolean) SERVER here OPTIONS (schema_name 'wh', table_name 'parted');
SQL
for my $pair ([ 'parted', 'moved' ], [ 'seen', 'seen_facts' ], [ 'far', 'far_facts' ])
{
	my ($users, $facts) = @$pair;
	my @these = (@settings, "SET datamart_users.users_table = 'wh.$users'", "SET datamart_users.facts_table = 'wh.$facts'");

	$node->safe_psql('w', "UPDATE wh.$users SET $sql{users_flag} = true; TRUNCATE wh.datamart");
	is(query('w', \@these, 'SELECT found, processed, failed FROM datamart_users_run_cycle(NULL, 2)'), '6|5|1', "$users and $facts: a cycle") or diag($stderr);
	is($node->safe_psql('w', "SELECT string_agg($sql{users_key}::text, ' ') FROM wh.$users WHERE $sql{users_flag}"), '4', 'clears the flags');
	is($node->safe_psql('w', "SELECT string_agg(id || ':' || facts, ' ' ORDER BY id) FROM wh.datamart"), '1:1 2:2 3:3 5:5 6:0', 'and is right');
}

# Of the foreign facts only what is asked for travels.
my ($plan) = query('w',
	[ @settings, "SET datamart_users.users_table = 'wh.far'", "SET datamart_users.facts_table = 'wh.far_facts'", "LOAD 'auto_explain'",
		'SET auto_explain.log_min_duration = 0', 'SET auto_explain.log_nested_statements = on', 'SET auto_explain.log_verbose = on', 'SET client_min_messages = log' ],
	q(SELECT datamart_users_retry()), 'SELECT count(*) FROM datamart_users_queue()');
like($stderr, qr/Remote SQL: SELECT [^\n]*\Q$sql{facts_user}\E[^\n]* FROM wh\.facts WHERE [^\n]*ANY/, 'the remote statement looks for them by the column');

#
# What is wrong, in the words of the settings
#
refused([ @settings, columns(users_flag => 'Flagged') ], '42703',
	qr/ERROR:  42703: column "flagged" of relation "wh\.countries" does not exist\nHINT:  Set datamart_users\.users_flag_column to what this relation calls the column, or datamart_users\.users_table to another relation\./,
	'no such column, and not folded like one with quotes');
refused([ @settings, columns(users_flag => 'gone') ], '42703', qr/column "gone"/, 'a column that was dropped');
refused([ @settings, columns(users_key => '"........pg.dropped.5........"') ], '42703', qr/users_key_column/, 'what is left of it');
refused([ @settings, columns(users_flag => $sql{users_key}) ], '42804',
	qr/column "\Q$name{users_key}\E" of relation "wh\.countries" is of type bigint\nDETAIL:  It must be of type boolean\.\nHINT:  Set datamart_users\.users_flag_column to another column/,
	'the key as the flag');
refused([ @settings, columns(users_key => $sql{users_flag}) ], '42804', qr/HINT:  Set datamart_users\.users_key_column/, 'the flag as the key');
refused([ @settings, columns(facts_time => $sql{facts_user}) ], '42804', qr/HINT:  Set datamart_users\.facts_time_column/, 'the same column of the facts twice');
refused([ @settings, columns(users_key => 'ctid') ], '42804', qr/column "ctid" of relation "wh\.countries" is of type tid/, 'a system column');
refused([ @settings, columns(users_flag => 'made') ], '55000',
	qr/column "made" of relation "wh\.countries" cannot be updated\nDETAIL:  It is a generated column\.\nHINT:  Set datamart_users\.users_flag_column/,
	'a flag that is generated');
$node->safe_psql('w', 'CREATE PROCEDURE wh.none() LANGUAGE sql AS \'\'');
refused([ @settings, "SET datamart_users.procedure = 'wh.none'" ], '42883', qr/can be called with a \Q$sql{users_key}\E/, 'a procedure without argument');

# What is a name at all.
for my $bad (q(), q("), q(""), q(a.b), q("a"."b"), q(a b), q(a, b), q( "a" b))
{
	query('w', ["LOAD 'datamart_users'"], "SET datamart_users.users_flag_column = '$bad'");
	is(sqlstate($stderr), '22023', "no column: $bad");
	like($stderr, qr/DETAIL:  It must be the name of one column\.\nHINT:  Names with other characters .* need double quotes\./, 'which it says');
}
is(query('w', [ @settings, columns(users_flag => " $sql{users_flag} ") ], 'SELECT count(*) FROM datamart_users_queue()'), '6', 'blanks around it');
is(query('w', [ @settings, columns(facts_user => quoted("${long}and more")) ], 'SELECT count(*) FROM datamart_users_queue()'), '6', 'more than a name can have is cut off, as in SQL');
$node->safe_psql('w', 'ALTER TABLE wh.countries ADD "weird.name" boolean DEFAULT true, ADD "FLAG" boolean, ADD flag boolean DEFAULT true, ADD flag2 boolean');
is(query('w', [ @settings, columns(users_flag => '"weird.name"') ], 'SELECT count(*) FROM datamart_users_queue()'), '6', 'a dot in quotes');
is(query('w', [ @settings, columns(users_flag => 'FLAG') ], 'SELECT count(*) FROM datamart_users_queue()'), '6', 'folded without quotes');
is(query('w', [ @settings, columns(users_flag => '"FLAG"') ], 'SELECT count(*) FROM datamart_users_queue()'), '0', 'and not with them');

# A value from before the library is loaded.
query('w', [ q(SET datamart_users.users_key_column = 'a.b') ], 'SELECT datamart_users_run_cycle()');
is(sqlstate($stderr), '22023', 'a bad value that was there first');

#
# Privileges, and whose word it is
#
$node->safe_psql('w', <<'SQL');
CREATE ROLE low;
CREATE ROLE lender;
GRANT EXECUTE ON FUNCTION datamart_users_run_cycle, datamart_users_start_cycle TO low, lender;
GRANT USAGE ON SCHEMA wh TO low;
GRANT SELECT ON wh.facts, wh.datamart TO low;
GRANT INSERT, UPDATE ON wh.datamart TO low;
SQL
my @low = (@settings, 'SET ROLE low');
for my $grant ("SELECT ($sql{users_key}, $sql{users_flag}) ON wh.countries", "UPDATE ($sql{users_flag}) ON wh.countries")
{
	refused(\@low, '42501', qr/HINT:  Run GRANT \Q$grant\E TO low;/, "the right $grant");
	is( query('w', \@settings, q(SELECT hint FROM datamart_users_check('low') WHERE item = 'privileges')) =~ /^GRANT \Q$grant\E TO low;$/m,
		1, 'is what the doctor misses, too');
	$node->safe_psql('w', "GRANT $grant TO low");
}
is(query('w', \@low, 'SELECT status, found FROM datamart_users_run_cycle()'), 'completed|6', 'columns are enough') or diag($stderr);
$node->safe_psql('w', <<'SQL');
CREATE SCHEMA lent;
GRANT USAGE ON SCHEMA lent TO PUBLIC;
CREATE FUNCTION lent.run() RETURNS text LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, public, pg_temp
	SET datamart_users.facts_table = 'wh.facts'
	SET datamart_users.users_table = 'wh.countries'
	SET datamart_users.procedure = 'wh.refresh'
	AS 'SELECT status FROM public.datamart_users_run_cycle()';
SQL
for my $column (sort keys %name)
{
	query('w', [ 'LOAD \'datamart_users\'', 'SET ROLE low', "SET datamart_users.${column}_column = 'flag'" ], 'SELECT lent.run()');
	is(sqlstate($stderr), '42501', "$column: a column chosen by whoever borrows rights");
	like($stderr, qr/setting datamart_users\.${column}_column comes from role "low"/, 'is not taken');
}

#
# The doctor
#
sub doctor
{
	my ($item, @more) = @_;

	return query('w', [ @settings, @more ], "SELECT status, detail, hint FROM datamart_users_check() WHERE item = '$item'");
}

$node->safe_psql('w', 'CREATE INDEX waiting ON wh.countries ((1)) WHERE ' . $sql{users_flag} . '; CREATE INDEX not_waiting ON wh.countries ((1)) WHERE "FLAG"; CREATE INDEX of_flag2 ON wh.countries ((1)) WHERE flag2');
is(doctor('facts index'), "warning|no index on wh.facts ($sql{facts_user}, $sql{facts_time}): the prioritisation has to read the facts themselves|CREATE INDEX CONCURRENTLY facts_user_action_at_idx ON wh.facts ($sql{facts_user}, $sql{facts_time});", 'no index on the facts');
like(doctor('flag index'), qr/^warning\|wh\.waiting alone/, 'an index by the flag');
like(doctor('flag index', columns(users_flag => 'flag')), qr/^ok\|none/, 'is none by another flag');
like(doctor('flag index', columns(users_flag => '"FLAG"')), qr/^warning\|wh\.not_waiting alone/, 'which has its own');
like(doctor('users index'), qr/^ok\|wh\.countries_pkey/, 'the index on the key');
is(doctor('users index', "SET datamart_users.users_table = 'wh.part2'"), 'ok|wh.part2_pkey|', 'of a partition');
is(doctor('users index', "SET datamart_users.users_table = 'wh.seen'"), 'ok|on all tables below wh.seen|', 'below a view, where it has another name');
is(doctor('users index', "SET datamart_users.users_table = 'wh.far'"), "ok|not looked at: the table behind wh.far needs an index on $sql{users_key}|", 'not in another server');
like(doctor('statistics'), qr/^warning\|never gathered for wh\.countries, wh\.facts\|/, 'statistics');
my ($hint) = doctor('facts index') =~ /^warning\|.*\|(CREATE INDEX .*;)$/;
$node->safe_psql('w', "ANALYZE wh.countries, wh.facts");
$node->safe_psql('w', $hint);
is(doctor('facts index'), 'ok|wh.facts_user_action_at_idx|', 'what is pasted works');
is(doctor('flag index'), 'ok|wh.waiting|', 'beside it the other one is good');
is(doctor('statistics'), 'ok|up to date for 2 tables and partitions|', 'statistics are there');
is(query('w', \@settings, q(SELECT string_agg(item, ', ') FROM datamart_users_check() WHERE status = 'error')), '', 'no errors');
like(doctor('users table', columns(users_flag => "\"a\n; DROP TABLE x\"")), qr/^error\|column "a \? ?;|^error\|column "a/, 'a name of two lines');
unlike(doctor('users table', columns(users_flag => "\"a\n; DROP TABLE x\"")), qr/^; DROP/m, 'is one line to people');
like(doctor('users table', "SET datamart_users.users_table = 'wh.other'"), qr/-- wh\.countries has the columns \Q$sql{users_key}\E and \Q$sql{users_flag}\E, and belongs to role/, 'another table that has the columns');

#
# A column that is renamed in the midst of a cycle ends it, for nobody's fault.
#
$node->safe_psql('w', "UPDATE wh.countries SET $sql{users_flag} = true; DELETE FROM datamart_users_failures");
my $gate = hold_gate($node, 'w');
my $client = start_psql($node, 'w', [ @settings, 'SELECT datamart_users_run_cycle(NULL, 1)' ]);
wait_for_gate($node, 'w', 1);
my $rename = start_psql($node, 'w', "ALTER TABLE wh.countries RENAME $sql{users_flag} TO renamed");
wait_for_sql($node, 'w', q(SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'), 'the rename waits');
open_gate($gate);
finish($rename);
(undef, $stdout, $stderr) = finish($client);
is(sqlstate($stderr), '42703', 'the flag is renamed: the cycle ends');
like($stderr, qr/column "\Q$name{users_flag}\E" of relation "wh\.countries" does not exist\nHINT:  Set datamart_users\.users_flag_column/, 'and says why');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), '0', 'nobody is charged');
is($node->safe_psql('w', 'SELECT count(*) FROM wh.countries WHERE renamed'), '5', 'those who have not been refreshed wait');
is(query('w', [ @settings, columns(users_flag => 'renamed') ], 'SELECT status, processed, failed FROM datamart_users_run_cycle()'), 'completed|4|1', 'the new name is all it takes') or diag($stderr);

$node->stop;
done_testing();
