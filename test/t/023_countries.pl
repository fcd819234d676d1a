# A warehouse with a datamart of users and one of countries over the same
# facts, as the guide has it: cycles of both at the same time, and whatever
# happens in one is nothing to the other, although their ids are the same.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant COUNTRIES_GATE => 4712;

my $node = new_node('countries');
my ($stdout, $stderr, %gate, %client);

#
# Users go by the defaults.  The countries have a role of their own, whose
# settings are all that makes the difference.
#
$node->safe_psql('postgres', 'CREATE DATABASE w');
$node->safe_psql('w', <<"SQL");
CREATE SCHEMA dwh;
CREATE TABLE dwh.facts (action_dimension_id_user integer, action_at timestamptz NOT NULL, dimension_id_country smallint);
CREATE TABLE dwh.dimension_users (dimension_user_id integer PRIMARY KEY, modified boolean NOT NULL DEFAULT true);
CREATE TABLE dwh.dimension_countries (dimension_country_id smallint PRIMARY KEY, modified boolean NOT NULL DEFAULT true);
CREATE TABLE dwh.datamartusers (id integer PRIMARY KEY, actions bigint NOT NULL);
CREATE TABLE dwh.datamartcountries (id integer PRIMARY KEY, actions bigint NOT NULL);
INSERT INTO dwh.dimension_users SELECT generate_series(201, 230);
INSERT INTO dwh.dimension_countries SELECT generate_series(201, 230);
INSERT INTO dwh.facts
SELECT 201 + i % 30, now() - make_interval(hours => i), 201 + i % 7 FROM generate_series(1, 500) i;
CREATE TABLE dwh.bad_countries AS SELECT * FROM (VALUES (218), (220)) v (id);

CREATE PROCEDURE dwh.update_datamart_user(p_id integer) LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO dwh.datamartusers
	SELECT p_id, count(*) FROM dwh.facts WHERE action_dimension_id_user = p_id
	ON CONFLICT (id) DO UPDATE SET actions = excluded.actions;
	PERFORM pg_advisory_xact_lock_shared(@{[DatamartUsersTest::GATE]}, 0);
END \$\$;
CREATE PROCEDURE dwh.update_datamart_country(p_id integer) LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO dwh.datamartcountries
	SELECT p_id, count(*) FROM dwh.facts WHERE dimension_id_country = p_id
	ON CONFLICT (id) DO UPDATE SET actions = excluded.actions;
	IF EXISTS (SELECT FROM dwh.bad_countries WHERE id = p_id) THEN
		RAISE 'country % has no name', p_id USING ERRCODE = 'DM220';
	END IF;
	PERFORM pg_advisory_xact_lock_shared(@{[COUNTRIES_GATE]}, 0);
END \$\$;
CREATE EXTENSION datamart_users;

CREATE ROLE etl LOGIN IN ROLE pg_monitor;
CREATE ROLE etl_countries LOGIN IN ROLE pg_monitor;
ALTER ROLE etl_countries IN DATABASE w SET datamart_users.users_table = 'dwh.dimension_countries';
ALTER ROLE etl_countries IN DATABASE w SET datamart_users.users_key_column = 'dimension_country_id';
ALTER ROLE etl_countries IN DATABASE w SET datamart_users.facts_user_column = 'dimension_id_country';
ALTER ROLE etl_countries IN DATABASE w SET datamart_users.procedure = 'dwh.update_datamart_country';
GRANT USAGE ON SCHEMA dwh TO etl, etl_countries;
GRANT SELECT ON ALL TABLES IN SCHEMA dwh TO etl, etl_countries;
GRANT UPDATE (modified) ON dwh.dimension_users TO etl;
GRANT UPDATE (modified) ON dwh.dimension_countries TO etl_countries;
GRANT INSERT, UPDATE ON dwh.datamartusers TO etl;
GRANT INSERT, UPDATE ON dwh.datamartcountries TO etl_countries;
GRANT EXECUTE ON FUNCTION
    datamart_users_run_cycle, datamart_users_start_cycle, datamart_users_wait_cycle,
    datamart_users_cancel_cycle, datamart_users_queue, datamart_users_priority_query,
    datamart_users_retry, datamart_users_check, datamart_users_report TO etl, etl_countries;
SQL

my %role = (users => 'etl', countries => 'etl_countries');
my %gate_of = (users => DatamartUsersTest::GATE, countries => COUNTRIES_GATE);

# As the role of that datamart.
sub query
{
	my ($mart, $sql) = @_;

	(undef, $stdout, $stderr) = run_psql($node, 'w', $sql, user => $role{$mart});
	return $stdout;
}

# What must be right of a datamart: nobody's flag is down whose row is not.
sub check_datamart
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $node->safe_psql('w', <<'SQL'), '0|0', "$what: no datamart row misses a fact");
SELECT (SELECT count(*) FROM dwh.dimension_users u
		 WHERE NOT modified AND (SELECT count(*) FROM dwh.facts f WHERE f.action_dimension_id_user = u.dimension_user_id)
			   IS DISTINCT FROM (SELECT actions FROM dwh.datamartusers d WHERE d.id = u.dimension_user_id)),
	   (SELECT count(*) FROM dwh.dimension_countries c
		 WHERE NOT modified AND (SELECT count(*) FROM dwh.facts f WHERE f.dimension_id_country = c.dimension_country_id)
			   IS DISTINCT FROM (SELECT actions FROM dwh.datamartcountries d WHERE d.id = c.dimension_country_id))
SQL
	return;
}

sub flag_all
{
	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = true; UPDATE dwh.dimension_countries SET modified = true');
	return;
}

# A cycle of each, both of whose workers are in the midst of a refresh.
sub start_both
{
	for my $mart (qw(users countries))
	{
		$gate{$mart} = $node->background_psql('w');
		$gate{$mart}->query_safe("SELECT pg_advisory_lock($gate_of{$mart}, 0)");
		$client{$mart} = start_psql($node, 'w', 'SELECT cycle_id, status, found, processed, failed FROM datamart_users_run_cycle(NULL, 2)', user => $role{$mart});
		wait_for_sql($node, 'w', "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND classid = $gate_of{$mart}", "the workers of $mart are at work");
	}
	return;
}

sub finish_one
{
	my ($mart) = @_;

	open_gate($gate{$mart});
	(undef, $stdout, $stderr) = finish($client{$mart});
	return $stdout;
}

is(query($_, q(SELECT string_agg(item, ', ') FROM datamart_users_check() WHERE status = 'error')), '', "$_: the doctor has no objections") for qw(users countries);
like(query('countries', q(SELECT hint FROM datamart_users_check() WHERE item = 'facts index')),
	qr/^CREATE INDEX CONCURRENTLY facts_user_action_at_idx ON dwh\.facts \(dimension_id_country, action_at\);$/, 'and advises for the countries what they want');

#
# Both at the same time
#
start_both();
is(query('users', 'SELECT users_table, role_name, found, workers FROM datamart_users_progress ORDER BY cycle_id'),
	"dwh.dimension_users|etl|30|2\ndwh.dimension_countries|etl_countries|30|2", 'a row of progress for each');
is(query('users', 'SELECT users_table, count(*) FROM datamart_users_workers GROUP BY 1 ORDER BY 1'),
	"dwh.dimension_countries|2\ndwh.dimension_users|2", 'workers of each');
for my $mart (qw(users countries))
{
	query($mart, 'SELECT datamart_users_start_cycle()');
	is(sqlstate($stderr), '55006', "a second cycle of $mart");
}
is(finish_one('countries'), '2|completed|30|28|2', 'two countries fail');
is(query('countries', 'SELECT users_table FROM datamart_users_progress'), 'dwh.dimension_users', 'the cycle of the users goes on');
is(finish_one('users'), '1|completed|30|30|0', 'and no user fails');
check_datamart('side by side');

#
# The failures of one are not those of the other.
#
is(query('users', 'SELECT users_table, string_agg(dimension_user_id::text, \' \' ORDER BY dimension_user_id) FROM datamart_users_failures GROUP BY 1'),
	'dwh.dimension_countries|218 220', 'whose failures they are');
is(query('users', q(SELECT detail FROM datamart_users_check() WHERE item = 'failures')), 'none', 'not to the doctor of the users');
like(query('countries', q(SELECT detail FROM datamart_users_check() WHERE item = 'failures')), qr/^failing datamart users: 2, /, 'but to that of the countries');
$node->safe_psql('w', 'UPDATE datamart_users_failures SET attempts = 5');
my $hint = query('countries', q(SELECT hint FROM datamart_users_check() WHERE item = 'failures'));
is(query('countries', $hint), 'DM220|2|5|218|country 218 has no name', 'whose hint shows them');
like($hint, qr/ WHERE users_table = 'dwh\.dimension_countries' /, 'and no others');
flag_all();
is(query('users', 'SELECT count(*) FROM datamart_users_queue() WHERE dimension_user_id IN (218, 220)'), '2', 'users of these ids are not left out');
is(query('countries', 'SELECT count(*) FROM datamart_users_queue() WHERE dimension_user_id IN (218, 220)'), '0', 'countries are');
is(query('users', 'SELECT users_table, sum(waiting), sum(held) FROM datamart_users_backlog GROUP BY 1'), 'dwh.dimension_users|30|0', 'backlog of the users');
is(query('countries', 'SELECT users_table, sum(waiting), sum(held) FROM datamart_users_backlog GROUP BY 1'), 'dwh.dimension_countries|30|2', 'backlog of the countries');
is(query('users', 'SELECT status, found, processed, failed FROM datamart_users_run_cycle()'), 'completed|30|30|0', 'the users succeed');
is(query('users', 'SELECT count(*) FROM datamart_users_failures'), '2', 'which does not overcome what the countries failed with');
is(query('users', 'SELECT datamart_users_retry()'), '0', 'nor has a retry of the users anything to do');
is(query('countries', 'SELECT status, found FROM datamart_users_run_cycle()'), 'completed|28', 'the countries go on without them');
$node->safe_psql('w', 'TRUNCATE dwh.bad_countries');
is(query('countries', 'SELECT datamart_users_retry()'), '2', 'a retry of the countries');
is(query('countries', 'SELECT found, processed FROM datamart_users_run_cycle()'), '2|2', 'has them again');
is(query('countries', 'SELECT count(*) FROM datamart_users_failures'), '0', 'and they are well');
check_datamart('after failures');

#
# History and figures
#
is(query('users', 'SELECT users_table, count(*), sum(found), sum(failed) FROM datamart_users_cycles GROUP BY 1 ORDER BY 1'),
	"dwh.dimension_countries|3|60|2\ndwh.dimension_users|2|60|0", 'the history');
is(query('users', q(SELECT users_table, cycles, found, failed, success_rate FROM datamart_users_metrics WHERE period = 'all' AND priority IS NULL ORDER BY 1)),
	"dwh.dimension_countries|3|60|2|96.66\ndwh.dimension_users|2|60|0|100.00", 'the metrics of both');
is(query('users', q(SELECT users_table, sum(found), sum(share) FROM datamart_users_metrics WHERE period = 'day' AND priority IS NOT NULL GROUP BY users_table, period_start HAVING sum(found) >= 60 ORDER BY 1)),
	"dwh.dimension_countries|60|100.0\ndwh.dimension_users|60|100.0", 'and shares within each');
is(query('users', 'SELECT users_table, count(*) FROM datamart_users_slowest GROUP BY 1 ORDER BY 1'), "dwh.dimension_countries|22\ndwh.dimension_users|20", 'whose the slowest are');
is(query('users', 'SELECT DISTINCT users_table FROM datamart_users_cycle_priority_rates ORDER BY 1'), "dwh.dimension_countries\ndwh.dimension_users", 'whose the rates are');
for my $mart (qw(users countries))
{
	my $last = query($mart, "SELECT max(cycle_id) FROM datamart_users_cycles WHERE users_table = 'dwh.dimension_$mart'");

	like(query($mart, 'SELECT datamart_users_report()'), qr/\ACycle $last: completed.*^  users table dwh\.dimension_$mart$/ms, "the report of $mart");
	is(query($mart, "SELECT detail FROM datamart_users_check() WHERE item = 'last cycle'"), "cycle $last: completed", 'which is the last one to the doctor, too');
}

#
# A cycle that is cancelled or fails is no concern of the other.
#
flag_all();
start_both();
is(query('countries', 'SELECT datamart_users_cancel_cycle()'), 't', 'cancel, by the settings');
like(finish_one('countries'), qr/^\d+\|cancelled\|30\|0\|0$/, 'the cycle of the countries');
like(finish_one('users'), qr/^\d+\|completed\|30\|30\|0$/, 'and not that of the users');
flag_all();
start_both();
my $drop = start_psql($node, 'w', 'ALTER TABLE dwh.dimension_countries RENAME dimension_country_id TO id');
wait_for_sql($node, 'w', q(SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'), 'a rename waits');
finish_one('countries');
finish($drop);
is(sqlstate($stderr), '42703', 'a column of the countries is renamed');
like(finish_one('users'), qr/^\d+\|completed\|30\|30\|0$/, 'the users go on');
query('countries', q(SELECT detail FROM datamart_users_check() WHERE item = 'last cycle'));
like($stdout, qr/ failed: column "dimension_country_id"/, 'the doctor of the countries knows');
like(query('users', q(SELECT status || detail FROM datamart_users_check() WHERE item = 'last cycle')), qr/^okcycle \d+: completed$/, 'that of the users is well');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_failures'), '0', 'nobody is charged');
$node->safe_psql('w', 'ALTER TABLE dwh.dimension_countries RENAME id TO dimension_country_id');
is(query('countries', 'SELECT status FROM datamart_users_run_cycle()'), 'completed', 'the next one');
check_datamart('after a cancel and an error');

#
# Of one table, two views are two datamarts: each can have its own procedure,
# and its own part of the rows.
#
$node->safe_psql('w', <<'SQL');
CREATE VIEW dwh.even AS SELECT * FROM dwh.dimension_users WHERE dimension_user_id % 2 = 0;
CREATE VIEW dwh.odd AS SELECT * FROM dwh.dimension_users WHERE dimension_user_id % 2 = 1;
UPDATE dwh.dimension_users SET modified = true;
SQL
$gate{users} = hold_gate($node, 'w');
for my $view (qw(even odd))
{
	$client{$view} = start_psql($node, 'w', [ "SET datamart_users.users_table = 'dwh.$view'", 'SELECT status, found, processed FROM datamart_users_run_cycle(NULL, 1)' ]);
}
wait_for_gate($node, 'w', 2);
is($node->safe_psql('w', 'SELECT users_table, found FROM datamart_users_progress ORDER BY 1'), "dwh.even|15\ndwh.odd|15", 'two views of one table');
open_gate($gate{users});
is((finish($client{$_}))[1], 'completed|15|15', "the cycle of $_") for qw(even odd);
check_datamart('two views');

# What went on stays on record under its name when the table goes.
$node->safe_psql('w', 'DROP VIEW dwh.even, dwh.odd');
is(query('users', q(SELECT users_table, found FROM datamart_users_metrics WHERE period = 'all' AND priority IS NULL AND users_table IN ('dwh.even', 'dwh.odd') ORDER BY 1)),
	"dwh.even|15\ndwh.odd|15", 'figures of tables that have gone');
is(query('users', q(SELECT count(DISTINCT users_table) FROM datamart_users_slowest WHERE users_table IN ('dwh.even', 'dwh.odd'))), '2', 'and their slowest');

# A new name takes its figures along.
$node->safe_psql('w', 'ALTER TABLE dwh.dimension_countries RENAME TO nations; UPDATE dwh.nations SET modified = true; ALTER ROLE etl_countries IN DATABASE w SET datamart_users.users_table = \'dwh.nations\'');
is(query('countries', 'SELECT found FROM datamart_users_run_cycle()'), '30', 'a cycle under another name');
is(query('countries', q(SELECT string_agg(DISTINCT users_table, ' ' ORDER BY users_table) FROM datamart_users_metrics WHERE users_table IN ('dwh.nations', 'dwh.dimension_countries'))), 'dwh.nations', 'has all of the history');
is(query('countries', q(SELECT count(*) FROM datamart_users_slowest s JOIN datamart_users_cycles c USING (cycle_id) WHERE s.users_table <> c.users_table)), '0', 'and of the slowest');

$node->stop;
done_testing();
