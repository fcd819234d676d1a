# What is written of a datamart follows its users table: through a dump and
# restore, a new table of its name, a new name; and goes to no other table.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('adopt');
my ($stdout, $stderr);

# Failures by datamart: table as it is called there, its oid's name, ids.
sub failures
{
	my ($database) = @_;

	return $node->safe_psql($database, q(SELECT users_table, users_oid::regclass, string_agg(dimension_user_id || ':' || attempts, ' ' ORDER BY dimension_user_id)
		FROM datamart_users_failures GROUP BY 1, 2 ORDER BY 1, 2));
}

sub cycles
{
	my ($database) = @_;

	return $node->safe_psql($database, 'SELECT users_table, users_oid::regclass, count(*) FROM datamart_users_cycles GROUP BY 1, 2 ORDER BY 1, 2');
}

# How many a cycle finds; those held by back-off it does not.
sub found
{
	my ($database, @sql) = @_;

	(undef, $stdout, $stderr) = run_psql($node, $database, [ @sql, 'SELECT found FROM datamart_users_run_cycle(max_workers => 1)' ]);
	diag($stderr) if sqlstate($stderr) ne '';
	return $stdout;
}

add_warehouse($node, 'w', 6);
$node->safe_psql('w', <<'SQL');
INSERT INTO dwh.behaviour SELECT i, 'SELECT 1/0' FROM generate_series(1, 3) i;
SELECT datamart_users_run_cycle();
SELECT datamart_users_run_cycle();
SQL
my $three = "dwh.dimension_users|dwh.dimension_users|1:1 2:1 3:1";
is(failures('w'), $three, 'three have failed');

# A dump, restored beside it.
my $dump = $node->data_dir . '/dump.sql';
$node->command_ok([ $node->installed_command('pg_dump'), '-d', $node->connstr('w'), '-f', $dump ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE r');
$node->command_ok([ $node->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('r'), '-f', $dump ], 'restored');
is($node->safe_psql('r', q(SELECT count(*) FROM datamart_users_failures f JOIN pg_class c ON c.oid = f.users_oid)), 0, 'the oids are of the other database');
is($node->safe_psql('r', 'SELECT datamart_users_retry(1)'), 1, 'its back-off can be lifted before the first cycle');
is(failures('r'), $three, 'which makes the failures those of the table');
is($node->safe_psql('r', q(UPDATE datamart_users_failures SET next_attempt_at = now() + interval '1 hour'; SELECT found FROM datamart_users_run_cycle())), 0, 'a cycle knows who is held');
is(cycles('r'), 'dwh.dimension_users|dwh.dimension_users|3', 'and has its history');

# The oid of before belongs to something else here.
for my $taken ('dwh.facts', 'dwh.dimension_users_pkey', 'pg_class')
{
	$node->safe_psql('r', "UPDATE datamart_users_failures SET users_oid = '$taken'::regclass; UPDATE datamart_users_cycles SET users_oid = '$taken'::regclass");
	is(found('r'), 0, "whoever has that oid ($taken): no cycle takes who is held");
	is(failures('r'), $three, 'the failures are back');
	like(cycles('r'), qr/^dwh\.dimension_users\|dwh\.dimension_users\|\d+$/, 'so is the history');
}

# Two of the same datamart user: what happened last counts.
$node->safe_psql('r', <<'SQL');
UPDATE dwh.dimension_users SET modified = true;
CREATE TEMP TABLE copy AS TABLE datamart_users_failures;
UPDATE copy SET users_oid = 1, attempts = 7;
INSERT INTO datamart_users_failures TABLE copy;
UPDATE copy SET users_oid = 2, attempts = 8, last_failed_at = last_failed_at + interval '1 s', dimension_user_id = dimension_user_id + 2;
INSERT INTO datamart_users_failures TABLE copy;
UPDATE copy SET users_oid = 3, attempts = 9, last_failed_at = last_failed_at + interval '1 s';
INSERT INTO datamart_users_failures TABLE copy;
SQL
is(found('r'), 1, 'rows of several tables that are gone');
is(failures('r'), 'dwh.dimension_users|dwh.dimension_users|1:1 2:1 3:1 4:9 5:9', 'are one each');

# A new table of the same name, in the place of the old one.
$node->safe_psql('w', q(CREATE TABLE dwh.new AS TABLE dwh.dimension_users; DROP TABLE dwh.dimension_users; ALTER TABLE dwh.new RENAME TO dimension_users; ALTER TABLE dwh.dimension_users ADD PRIMARY KEY (dimension_user_id)));
is(found('w'), 0, 'a table in the place of one that is gone');
is(failures('w'), $three, 'has its failures');

# Another name, and another schema.
$node->safe_psql('w', 'CREATE SCHEMA other; ALTER TABLE dwh.dimension_users RENAME TO people; ALTER TABLE dwh.people SET SCHEMA other');
is(found('w', q(SET datamart_users.users_table = 'other.people')), 0, 'a table that was renamed');
is(failures('w'), 'other.people|other.people|1:1 2:1 3:1', 'has its failures under the new name');
like(cycles('w'), qr/^other\.people\|other\.people\|\d+$/, 'and its history');

# A name that was given to another table: the rows stay with the first.
$node->safe_psql('w', q(CREATE TABLE dwh.more (LIKE other.people INCLUDING ALL); INSERT INTO dwh.more SELECT dimension_user_id, true FROM other.people; ALTER TABLE other.people RENAME TO old; ALTER TABLE other.old RENAME modified TO flagged; ALTER TABLE dwh.more SET SCHEMA other; ALTER TABLE other.more RENAME TO people; TRUNCATE dwh.behaviour));
is(found('w', q(SET datamart_users.users_table = 'other.people')), 6, 'another table of a name that was given away');
is($node->safe_psql('w', q(SELECT users_oid::regclass, count(*) FROM datamart_users_failures GROUP BY 1)), 'other.old|3', 'takes nobody else\'s failures');
is(found('w', q(SET datamart_users.users_table = 'other.old'), q(SET datamart_users.users_flag_column = 'flagged')), 0, 'the first one still has them, whatever its columns are called');
is(failures('w'), 'other.old|other.old|1:1 2:1 3:1', 'and its new name is known');

# One whose table is gone leaves with its age.
$node->safe_psql('w', q(DROP TABLE other.old));
is(found('w', q(SET datamart_users.users_table = 'other.people')), 0, 'a cycle of another one');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), 3, 'leaves what is not old');
$node->safe_psql('w', q(INSERT INTO datamart_users_contention (users_oid, users_table, dimension_user_id, deferrals, first_deferred_at, last_deferred_at, next_attempt_at, sqlstate, message, cycle_id)
	SELECT users_oid, users_table, dimension_user_id, 1, '2001-01-01', '2001-01-01', '2001-01-01', '40001', 'x', cycle_id FROM datamart_users_failures; UPDATE datamart_users_failures SET last_failed_at = '2001-01-01'; UPDATE datamart_users_cycles SET started_at = '2001-01-01' WHERE users_table = 'other.old'));
is(found('w', q(SET datamart_users.users_table = 'other.people')), 0, 'and another one');
is($node->safe_psql('w', q(SELECT (SELECT count(*) FROM datamart_users_failures), (SELECT count(*) FROM datamart_users_contention), (SELECT count(*) FROM datamart_users_cycles WHERE users_table = 'other.old'))), '0|0|0', 'removes what is old and has no table');

$node->stop;
done_testing();
