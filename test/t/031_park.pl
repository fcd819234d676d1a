# The log of refreshes that did not succeed, and datamart users that are
# parked: out of the queue until somebody takes them back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('park');
my ($gate, $caller, $holder, $stdout, $stderr);

add_warehouse($node, 'w', 6);

sub sql
{
	my ($sql, $database) = @_;

	return $node->safe_psql($database // 'w', $sql);
}

sub cycle
{
	my ($arguments) = @_;

	return sql("SELECT status, backlog, found, processed, failed, deferred FROM datamart_users_run_cycle($arguments)");
}

# SQLSTATE of a statement, by whom; '' if it has none.
sub state_of
{
	my ($sql, %options) = @_;

	(undef, $stdout, $stderr) = run_psql($node, 'w', $sql, %options);
	return sqlstate($stderr);
}

# The log by datamart user: outcome, SQLSTATE, charged, and how it stands now.
sub attempts
{
	return sql(q(SELECT string_agg(concat_ws(':', dimension_user_id, outcome, sqlstate, charged, coalesce(state, '-')), ' ' ORDER BY attempted_at, dimension_user_id)
		FROM datamart_users_attempt_states));
}

sub doctor
{
	my ($item) = @_;

	return sql("SELECT status, detail FROM datamart_users_check() WHERE item = '$item'");
}

# Every failed or deferred datamart user that a cycle has counted is there.
sub counts_agree
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql(<<'SQL'), '', "$what: the log has what the cycles have counted");
SELECT c.cycle_id, c.failed, c.deferred, a.failed, a.deferred
  FROM datamart_users_cycles c
 CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE outcome = 'failed') AS failed,
							count(*) FILTER (WHERE outcome = 'deferred') AS deferred
					   FROM datamart_users_attempts a WHERE a.cycle_id = c.cycle_id) a
 WHERE (c.failed, c.deferred) IS DISTINCT FROM (a.failed, a.deferred)
SQL
	return;
}

sub reset_all
{
	my ($users, %behaviour) = @_;

	sql('DELETE FROM datamart_users_contention; DELETE FROM datamart_users_parked; DELETE FROM datamart_users_attempts; DELETE FROM datamart_users_cycles');
	reset_warehouse($node, 'w', $users, %behaviour);
	return;
}

my $collide = q(DO 'BEGIN RAISE serialization_failure; END');

#
# The log
#
behave($node, 'w', 1, 'SELECT 1/0');
behave($node, 'w', 2, $collide);
is(cycle(''), 'completed|6|6|4|1|1', 'one fails, one is deferred');
is(attempts(), '1:failed:22012:t:held 2:deferred:40001:t:held', 'both are in the log, and held');
is(sql('SELECT a.message = f.message, a.users_oid::regclass, a.users_table FROM datamart_users_attempts a JOIN datamart_users_failures f USING (dimension_user_id)'),
	't|dwh.dimension_users|dwh.dimension_users', 'with the message, and the datamart');
is(sql('SELECT datamart_users_retry()'), 2, 'the back-off is lifted');
is(attempts(), '1:failed:22012:t:due 2:deferred:40001:t:due', 'they are due');
sql('DELETE FROM dwh.behaviour WHERE dimension_user_id = 2');
is(cycle(''), 'completed|2|2|1|1|0', 'one recovers, one fails again');
is(attempts(), '1:failed:22012:t:held 2:deferred:40001:t:recovered 1:failed:22012:t:held', 'the log keeps what has recovered');
sql('DELETE FROM dwh.behaviour; SELECT datamart_users_retry()');
is(cycle(''), 'completed|1|1|1|0|0', 'the other one recovers');
is(attempts(), '1:failed:22012:t:recovered 2:deferred:40001:t:recovered 1:failed:22012:t:recovered', 'nobody is held any more, and all of it is known');
counts_agree('failed and deferred');

# A row that somebody keeps locked: deferred, and no back-off.
reset_all(2);
$holder = $node->background_psql('w');
$holder->query_safe($_) for 'BEGIN', 'SELECT FROM dwh.dimension_users WHERE dimension_user_id = 1 FOR UPDATE';
is(cycle('NULL, 1'), 'completed|2|2|1|0|1', 'a locked row is deferred');
$holder->quit;
is(attempts(), '1:deferred:55P03:f:-', 'not charged, and nobody knows what came of it');
counts_agree('a locked row');

# Put off, and no second turn: one collides at first, the other is held up.
reset_all(3, 1 => $collide);
$gate = hold_gate($node, 'w', 3);
$caller = start_psql($node, 'w', 'SELECT status, deferred FROM datamart_users_run_cycle(NULL, 1)');
wait_for_gate($node, 'w', 1);
is(sql('SELECT count(*) FROM datamart_users_attempts'), 0, 'put off: no outcome yet');
is(sql('SELECT datamart_users_cancel_cycle()'), 't', 'put off: canceled');
open_gate($gate);
finish($caller);
is(attempts(), '1:deferred:40001:t:held', 'put off, then canceled: in the log, with the error');
counts_agree('put off');

# A cycle that ends with an error of everybody charges nobody.
reset_all(8, map { $_ => q(DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''53100''; END') } 1 .. 8);
is(state_of('SELECT datamart_users_run_cycle(NULL, 1)'), '53100', 'an error that hits everybody');
is(sql('SELECT count(*) FROM datamart_users_failures'), 0, 'is charged to nobody');
isnt(sql('SELECT count(*) FROM datamart_users_attempts'), 0, 'the attempts are in the log');
is(sql('SELECT count(*) FROM datamart_users_attempts WHERE charged'), 0, 'and not charged either');

# A process that ends cannot wait: what it cannot log it does not hold back.
reset_all(2, 1 => q(DO 'BEGIN LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END'));
my $stubborn = q(SET datamart_users.user_timeout = '100ms'; SET datamart_users.history_retention = 0; SELECT datamart_users_run_cycle(NULL, 2));
my $held = q(SELECT (SELECT count(*) FROM datamart_users_failures), (SELECT count(*) FROM datamart_users_attempts WHERE outcome = 'failed' AND charged));
$holder = $node->background_psql('w');
$holder->query_safe($_) for 'BEGIN', 'LOCK TABLE datamart_users_attempts IN SHARE MODE';
state_of($stubborn);
$holder->quit;
is(sql($held), '0|0', 'both or none: none');
state_of($stubborn);
is(sql($held), '1|1', 'both or none: both');

# Texts, retention, and who may read it.
reset_all(2, 1 => 'SELECT 1/0');
sql('SET datamart_users.failure_texts = off; SELECT datamart_users_run_cycle()');
is(sql('SELECT sqlstate, message FROM datamart_users_attempts'), '22012|not kept, see datamart_users.failure_texts', 'the log keeps no text where none is wanted');
sql(q(UPDATE datamart_users_attempts SET attempted_at = now() - interval '10 days'; SELECT datamart_users_run_cycle()));
is(sql('SELECT count(*) FROM datamart_users_attempts'), 1, 'younger than the retention');
sql(q(SET datamart_users.history_retention = '9d'; SELECT datamart_users_run_cycle()));
is(sql('SELECT count(*) FROM datamart_users_attempts'), 0, 'older than the retention');
is(sql('SELECT count(*) FROM datamart_users_failures'), 1, 'which does not touch who is held');

sql(<<'SQL');
CREATE ROLE mon LOGIN IN ROLE pg_monitor;
CREATE ROLE etl LOGIN;
CREATE ROLE nobody LOGIN;
GRANT USAGE ON SCHEMA dwh TO etl, nobody;
GRANT SELECT ON dwh.dimension_users TO etl, nobody;
GRANT EXECUTE ON FUNCTION datamart_users_park, datamart_users_retry TO nobody;
SQL
for my $relation (qw(datamart_users_attempts datamart_users_attempt_states datamart_users_parked))
{
	is(state_of("SELECT count(*) FROM $relation", user => 'mon'), '', "$relation: for pg_monitor");
	is(state_of("SELECT count(*) FROM $relation", user => 'etl'), '42501', "$relation: not for everybody");
}

#
# Parking
#
reset_all(4, 1 => 'SELECT 1/0', 2 => 'SELECT 1/0');
cycle('');
sql('UPDATE datamart_users_failures SET attempts = 7, next_attempt_at = now(); UPDATE dwh.dimension_users SET modified = TRUE');
like(doctor('failures'), qr/^warning\|failing datamart users: 2, 5 times or more: 2,/, 'the doctor warns');
is(sql(q(SELECT datamart_users_park(1, 'renamed, see ticket 5'))), 't', 'parked');
is(sql('SELECT dimension_user_id, reason, parked_by = session_user, parked_at <= now(), users_table FROM datamart_users_parked'), '1|renamed, see ticket 5|t|t|dwh.dimension_users', 'it is listed');
like(doctor('failures'), qr/^warning\|failing datamart users: 1, 5 times or more: 1, .*; parked: 1, see datamart_users_parked$/, 'the doctor does not count it');
is(sql(q(SELECT datamart_users_park(2, 'this one, too'))), 't', 'so is the other one');
is(doctor('failures'), 'ok|none; parked: 2, see datamart_users_parked', 'which leaves nothing to warn of');
is(sql(q(SELECT string_agg(dimension_user_id::text, ',' ORDER BY dimension_user_id) FROM datamart_users_queue())), '3,4', 'out of the queue');
is(sql(sql('SELECT datamart_users_priority_query()') . ' OFFSET 2'), '', 'it leaves them out as well');
is(sql('SELECT sum(waiting), sum(held), sum(parked) FROM datamart_users_backlog'), '2|0|2', 'the backlog shows them apart');
is(cycle(''), 'completed|2|2|2|0|0', 'out of the cycle, and of its backlog');
like(sql('SELECT datamart_users_report()'), qr/^  0 of the backlog still wait; held by back-off now: 0, parked: 2$/m, 'the report says so');
is(sql('SELECT outcome, sqlstate FROM datamart_users_try(1)'), 'failed|22012', 'a rehearsal takes it by its id');
is(sql('SELECT outcome, message, detail, hint FROM datamart_users_try()'),
	'skipped|no datamart user of dwh.dimension_users waits for a refresh|Held by back-off: 0, parked: 2.|Give the id of one of datamart_users_parked.', 'and tells of them else');
is(sql('SELECT count(*) FROM dwh.dimension_users WHERE modified'), 2, 'their flags stay');
is(attempts(), '1:failed:22012:t:parked 2:failed:22012:t:parked', 'the log says how they stand');

is(sql(q(SELECT datamart_users_park(1, 'another reason'))), 'f', 'parked already');
is(sql('SELECT reason FROM datamart_users_parked WHERE dimension_user_id = 1'), 'another reason', 'the reason is replaced');
is(sql('SELECT datamart_users_retry()'), 0, 'retry of all leaves them parked');
is(sql('SELECT count(*) FROM datamart_users_parked'), 2, 'both');
is(sql('SELECT datamart_users_retry(1)'), 1, 'retry of one takes it back');
is(sql('SELECT datamart_users_retry(1)'), 0, 'once');
is(sql('SELECT datamart_users_retry(99)'), 0, 'and of nobody');
sql('DELETE FROM dwh.behaviour WHERE dimension_user_id = 1');
is(cycle(''), 'completed|1|1|1|0|0', 'it is refreshed');
is(sql('SELECT string_agg(dimension_user_id::text, $$,$$) FROM datamart_users_failures'), 2, 'which forgets its failure');

# Held by back-off as well, and colliding ones.
reset_all(2, 1 => $collide, 2 => 'SELECT 1/0');
is(cycle(''), 'completed|2|2|0|1|1', 'one collides, one fails');
sql(q(SELECT datamart_users_park(1, 'collides'), datamart_users_park(2, 'fails')));
is(doctor('contention'), 'ok|none', 'the doctor on those that collide');
is(sql('SELECT sum(waiting), sum(held), sum(parked) FROM datamart_users_backlog'), '0|0|2', 'parked rather than held');
is(sql('SELECT datamart_users_retry()'), 0, 'the back-off of a parked one is not lifted with all others');
is(sql('SELECT datamart_users_retry(1), datamart_users_retry(2)'), '1|1', 'but with its own');
is(sql('SELECT sum(waiting), sum(held), sum(parked) FROM datamart_users_backlog'), '2|0|0', 'then both wait');

# The limit of a catch-up counts those that can be taken.
sql(q(SELECT datamart_users_park(2, 'fails')));
is(sql(q(SET datamart_users.catchup_threshold = 2; SET datamart_users.catchup_max_users = 5; SET datamart_users.max_users_per_cycle = 3; SELECT datamart_users_run_cycle(); SELECT max_users FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 1))
	=~ s/.*\n//sr, 3, 'a parked one does not start a catch-up');

# While it is at work.
reset_all(3, 1 => 'SELECT pg_advisory_xact_lock_shared(4711, 1), 1/0');
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', 'SELECT processed, failed FROM datamart_users_run_cycle(NULL, 3)');
wait_for_gate($node, 'w', 2);
sql(q(SELECT datamart_users_park(i, 'at work') FROM generate_series(1, 2) i));
open_gate($gate);
(undef, $stdout) = finish($caller);
is($stdout, '2|1', 'parked at work: the refreshes come to their end');
is(sql('SELECT count(*) FROM datamart_users_parked'), 2, 'and both stay parked');
is(doctor('failures'), 'ok|none; parked: 2, see datamart_users_parked', 'the failure is no news');
sql('UPDATE dwh.dimension_users SET modified = TRUE');
is(cycle(''), 'completed|1|1|1|0|0', 'the next cycle leaves them alone');

# Transactions, and a process that cannot wait.
is(state_of([ 'BEGIN', q(SELECT datamart_users_park(3, 'no')), 'ROLLBACK' ]), '', 'rolled back');
is(sql('SELECT count(*) FROM datamart_users_parked'), 2, 'so it is not parked');
is(state_of([ 'BEGIN READ ONLY', q(SELECT datamart_users_park(3, 'no')) ]), '25006', 'read-only');

# What is refused.
for (
	[ q(NULL, 'x'), '22004', 'no id' ],
	[ q(3, NULL), '22004', 'no reason' ],
	[ q(3, ''), '22023', 'an empty reason' ],
	[ q(3, E' \t\n'), '22023', 'a blank reason' ],
	[ q(3, repeat('x', 1001)), '22023', 'a long reason' ],
	[ q(4711, 'x'), '22023', 'an id that nobody has' ],
	[ q(9223372036854775807, 'x'), '22023', 'an id that does not fit into the column' ])
{
	my ($arguments, $sqlstate, $what) = @$_;

	is(state_of("SELECT datamart_users_park($arguments)"), $sqlstate, "$what: SQLSTATE");
	like($stderr, qr/^HINT:/m, "$what: a hint");
}
is(sql(q(SELECT datamart_users_park(3, repeat('ä', 1000)))), 't', 'as long as it may be');
sql('SELECT datamart_users_retry(3)');

# Rights: EXECUTE, and those of whoever may clear the flag.
is(state_of(q(SELECT datamart_users_park(3, 'x')), user => 'etl'), '42501', 'no EXECUTE');
is(state_of(q(SELECT datamart_users_park(3, 'x')), user => 'nobody'), '42501', 'no UPDATE');
like($stderr, qr/HINT:  Run GRANT UPDATE/, 'no UPDATE: the hint');
sql('GRANT EXECUTE ON FUNCTION datamart_users_park, datamart_users_retry TO etl; REVOKE SELECT ON dwh.dimension_users FROM etl; GRANT SELECT (dimension_user_id, modified), UPDATE (modified) ON dwh.dimension_users TO etl');
is(state_of(q(SELECT datamart_users_park(3, 'x')), user => 'etl'), '', 'rights on the columns will do');
is(sql('SELECT parked_by FROM datamart_users_parked WHERE dimension_user_id = 3'), 'etl', 'and it is told who');
is(state_of('SELECT datamart_users_retry(3)', user => 'etl'), '', 'the same for taking back');
is($stdout, 1, 'it is back');
sql('ALTER TABLE dwh.dimension_users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON dwh.dimension_users TO etl USING (dimension_user_id <> 3)');
is(state_of(q(SELECT datamart_users_park(3, 'x')), user => 'etl'), '22023', 'nobody parks a row that he does not see');
is(state_of(q(SELECT datamart_users_park(2, 'x')), user => 'etl'), '', 'but one that he does');
sql('ALTER TABLE dwh.dimension_users DISABLE ROW LEVEL SECURITY; DROP POLICY p ON dwh.dimension_users');

# Nothing of ours runs what others have put on our tables.
sql(q(CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER t BEFORE INSERT ON datamart_users_parked FOR EACH ROW EXECUTE FUNCTION evil()));
is(state_of(q(SELECT datamart_users_park(3, 'x'))), '55000', 'a trigger on the table');
sql('DROP TRIGGER t ON datamart_users_parked');

#
# Each datamart has its own, and it follows its table
#
reset_all(2, 1 => 'SELECT 1/0');
sql(<<'SQL');
CREATE TABLE dwh.others (dimension_user_id integer PRIMARY KEY, modified boolean NOT NULL);
INSERT INTO dwh.others VALUES (1, TRUE);
SQL
cycle('');
sql(q(SELECT datamart_users_park(1, 'known')));
is(sql(q(SET datamart_users.users_table = 'dwh.others'; SELECT dimension_user_id FROM datamart_users_queue())), 1, 'another datamart');
is(sql(q(SET datamart_users.users_table = 'dwh.others'; SELECT datamart_users_retry(1))), 0, 'does not take it back');

my $dump = $node->data_dir . '/dump.sql';
$node->command_ok([ $node->installed_command('pg_dump'), '-d', $node->connstr('w'), '-f', $dump ], 'pg_dump');
sql('CREATE DATABASE r', 'postgres');
$node->command_ok([ $node->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('r'), '-f', $dump ], 'restored');
is(sql('SELECT reason FROM datamart_users_parked', 'r'), 'known', 'it is in the dump');
is(sql('SELECT found FROM datamart_users_run_cycle()', 'r'), 0, 'no cycle of the copy takes it');
for my $table (qw(parked attempts))
{
	is(sql("SELECT users_oid::regclass, users_table FROM datamart_users_$table", 'r'), 'dwh.dimension_users|dwh.dimension_users', "$table: adopted");
}
is(sql('SELECT state FROM datamart_users_attempt_states', 'r'), 'parked', 'the log goes with it');

sql('ALTER TABLE dwh.dimension_users RENAME TO people', 'r');
is(sql(q(SET datamart_users.users_table = 'dwh.people'; SELECT found FROM datamart_users_run_cycle()), 'r'), 0, 'renamed: still parked');
for my $table (qw(parked attempts))
{
	is(sql("SELECT users_table FROM datamart_users_$table", 'r'), 'dwh.people', "$table: renamed");
}
sql('DROP TABLE dwh.people; CREATE TABLE dwh.people (dimension_user_id integer PRIMARY KEY, modified boolean NOT NULL); INSERT INTO dwh.people VALUES (1, TRUE)', 'r');
is(sql(q(SET datamart_users.users_table = 'dwh.people'; SELECT datamart_users_retry(1)), 'r'), 1, 'made anew: it can be taken back before the first cycle');

# Of a datamart that is gone it goes with the retention.
sql(q(SELECT datamart_users_park(1, 'known'); DELETE FROM dwh.behaviour; DROP TABLE dwh.dimension_users; UPDATE datamart_users_parked SET parked_at = now() - interval '10 days';
	UPDATE datamart_users_attempts SET attempted_at = now() - interval '10 days'));
my $other = q(SET datamart_users.users_table = 'dwh.others'; SELECT datamart_users_run_cycle());
sql($other);
is(sql('SELECT (SELECT count(*) FROM datamart_users_parked), (SELECT count(*) FROM datamart_users_attempts)'), '1|1', 'a datamart that is gone');
is(sql('SELECT state FROM datamart_users_attempt_states'), 'parked', 'can still be read');
sql("SET datamart_users.history_retention = '9d'; $other");
is(sql('SELECT (SELECT count(*) FROM datamart_users_parked), (SELECT count(*) FROM datamart_users_attempts)'), '0|0', 'until the retention of another one');

$node->stop;
done_testing();
