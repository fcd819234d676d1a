# What a refresh leaves in its session, with success or without: the next one
# of the same worker, and the coordinator, must not meet it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $run = 'SELECT status, processed, failed FROM datamart_users_run_cycle(NULL, 1)';
my $node = new_node('leftovers');
my ($stdout, $stderr, $caller, $gate);

add_warehouse($node, 'w', 4);
$node->safe_psql('w', <<'SQL');
CREATE TABLE dwh.seen (id integer, value text);
CREATE SEQUENCE dwh.numbers CACHE 10;
CREATE EXTENSION dblink;
SQL

# Four datamart users: the first leaves something behind and is processed; so
# does the second, and fails; the third leaves it and is processed in its second
# attempt.  Everybody looks first.  Returns the outcome and what they saw.
sub leave
{
	my ($what, $value) = @_;
	my $look = 'INSERT INTO dwh.seen SELECT %d, (' . $value . ')::text;';
	my @behaviour = map { "DO \$b\$ BEGIN " . sprintf($look, $_) . ($_ < 4 ? " $what" : '') } (1 .. 4);

	$behaviour[1] .= " RAISE 'left behind';";
	$behaviour[2] .= " IF nextval('dwh.tries') = 1 THEN RAISE serialization_failure; END IF;";
	$node->safe_psql('w', 'TRUNCATE dwh.seen; DROP SEQUENCE IF EXISTS dwh.tries; CREATE SEQUENCE dwh.tries');
	reset_warehouse($node, 'w', 4, map { $_ => $behaviour[$_ - 1] . ' END $b$' } (1 .. 4));
	(undef, $stdout, $stderr) = run_psql($node, 'w', $run);
	return "$stdout|" . $node->safe_psql('w', "SELECT string_agg(DISTINCT coalesce(value, 'null'), ',') FROM dwh.seen")
	  . '|' . $node->safe_psql('w', "SELECT string_agg(message, ',') FROM datamart_users_failures");
}

# What they leave, what they look for, and what they should see of it.
for (
	[ 'SET', q(SET work_mem = '5MB';), q(current_setting('work_mem')), '4MB' ],
	[ 'SET LOCAL', q(SET LOCAL work_mem = '5MB';), q(current_setting('work_mem')), '4MB' ],
	[ 'set_config', q(PERFORM set_config('work_mem', '5MB', false);), q(current_setting('work_mem')), '4MB' ],
	[ 'SET in an exception block', q(BEGIN SET work_mem = '5MB'; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN SET work_mem = '6MB'; END;), q(current_setting('work_mem')), '4MB' ],
	[ 'SET, again and again', q(SET work_mem = '5MB'; SET LOCAL work_mem = '6MB'; RESET work_mem; SET work_mem = '7MB';), q(current_setting('work_mem')), '4MB' ],
	[ 'RESET ALL', 'RESET ALL;', q(current_setting('application_name') ~ 'cycle \d+ worker 1' AND current_setting('jit') = 'off'), 'true' ],
	[ 'search_path', 'SET search_path = pg_catalog;', q(current_setting('search_path')), '"$user", public' ],
	[ 'TimeZone', q(SET TimeZone = 'Asia/Tokyo';), q(current_setting('TimeZone') = 'Asia/Tokyo'), 'false' ],
	[ 'client_encoding', q(SET client_encoding = 'LATIN1';), q(current_setting('client_encoding')), 'UTF8' ],
	[ 'session_replication_role', 'SET session_replication_role = replica;', q(current_setting('session_replication_role')), 'origin' ],
	[ 'SESSION CHARACTERISTICS', 'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY;', q(current_setting('default_transaction_isolation') || current_setting('transaction_isolation') || current_setting('transaction_read_only')), 'read committedrepeatable readoff' ],
	[ 'messages', 'SET client_min_messages = debug5; SET log_min_messages = fatal;', q(current_setting('client_min_messages') || current_setting('log_min_messages')), 'noticewarning' ],
	[ 'settings of ours', q(SET datamart_users.user_timeout = 1; SET datamart_users.retry_delay = '1d'; SET datamart_users.users_table = 'x';),
		q(current_setting('datamart_users.user_timeout') || current_setting('datamart_users.retry_delay') || current_setting('datamart_users.users_table')), '01mindwh.dimension_users' ],
	[ 'a custom setting', q(PERFORM set_config('app.tenant', '42', false);), q(coalesce(current_setting('app.tenant', true), '')), '' ],
	[ 'PREPARE', q(EXECUTE 'PREPARE p AS SELECT 1';), 'SELECT count(*) FROM pg_prepared_statements', '0' ],
	[ 'a cursor WITH HOLD', q(EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1';), 'SELECT count(*) FROM pg_cursors WHERE is_holdable', '0' ],
	[ 'a temporary table', 'CREATE TEMPORARY TABLE t AS SELECT 1 AS i;', q(coalesce(to_regclass('pg_temp.t')::text, '-')), '-' ],
	[ 'a temporary table dropped at commit', 'CREATE TEMPORARY TABLE t ON COMMIT DROP AS SELECT 1 AS i;', q(coalesce(to_regclass('pg_temp.t')::text, '-')), '-' ],
	[ 'a temporary table with rows deleted at commit', 'CREATE TEMPORARY TABLE t (i integer PRIMARY KEY, s text) ON COMMIT DELETE ROWS; INSERT INTO t VALUES (1, repeat(\'x\', 10000));', q(coalesce(to_regclass('pg_temp.t')::text, '-')), '-' ],
	[ 'a temporary table instead of the facts', 'CREATE TEMPORARY TABLE facts (action_dimension_id_user integer); SET search_path = pg_temp, dwh;', 'SELECT count(*) FROM facts', undef ],
	[ 'a temporary view', 'CREATE TEMPORARY VIEW v AS SELECT 1 AS i;', q(coalesce(to_regclass('pg_temp.v')::text, '-')), '-' ],
	[ 'a temporary function', q(EXECUTE 'CREATE FUNCTION pg_temp.f() RETURNS integer LANGUAGE sql AS ''SELECT 1''';), q(SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema() AND pronamespace <> 0), '0' ],
	[ 'a temporary type', q(CREATE TYPE pg_temp.mood AS ENUM ('sad');), q(SELECT count(*) FROM pg_type WHERE typnamespace = pg_my_temp_schema() AND typnamespace <> 0), '0' ],
	[ 'a temporary sequence', q(CREATE TEMPORARY SEQUENCE s; PERFORM nextval('s');), q(coalesce(to_regclass('pg_temp.s')::text, '-')), '-' ],
	[ 'a session lock', 'PERFORM pg_advisory_lock(7), pg_advisory_lock_shared(8), pg_advisory_lock(7, 8);', q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objsubid < 3 AND (objid IN (7, 8))), '0' ],
	[ 'constraints', 'SET CONSTRAINTS ALL DEFERRED;', '1', '1' ])
{
	my ($what, $sql, $value, $right) = @$_;

	if (!defined $right)
	{
		# Seen by its own name only; there is no dwh in the search_path.
		$value = q(coalesce(to_regclass('facts')::text, '-'));
		$right = '-';
	}
	is(leave($sql, $value), "completed|3|1|$right|left behind", "$what is gone");
	check_sane($node, 'w', $what);
}

# The same name again and again is no error.
is(leave(q(CREATE TEMPORARY TABLE t (i integer); EXECUTE 'PREPARE p AS SELECT 1'; EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1';), '1'),
	'completed|3|1|1|left behind', 'names can be used by everybody');

# lastval() and currval() are not those of the datamart user before.
is(leave(q(PERFORM nextval('dwh.numbers');), '1'), 'completed|3|1|1|left behind', 'a sequence');
reset_warehouse($node, 'w', 2, 1 => q(SELECT nextval('dwh.numbers')), 2 => q(SELECT currval('dwh.numbers')));
is($node->safe_psql('w', $run), 'completed|1|1', 'currval() of another datamart user');
is($node->safe_psql('w', 'SELECT sqlstate FROM datamart_users_failures'), '55000', 'is an error, as in a session of its own');

# A table that shadows one by the search_path, silently.
$node->safe_psql('w', 'ALTER DATABASE w SET search_path = dwh, public');
reset_warehouse($node, 'w', 2, 1 => 'CREATE TEMPORARY TABLE facts (action_dimension_id_user integer)',
	2 => 'DELETE FROM dwh.seen; INSERT INTO dwh.seen SELECT 2, count(*) FROM facts');
is($node->safe_psql('w', $run), 'completed|2|0', 'a temporary table called like the facts');
is($node->safe_psql('w', 'SELECT value FROM dwh.seen'), '2', 'hides them from nobody else');
$node->safe_psql('w', 'ALTER DATABASE w RESET search_path');

# What triggers leave, as late as at the commit.
$node->safe_psql('w', <<'SQL');
CREATE FUNCTION dwh.leave() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('work_mem', '9MB', false), pg_advisory_lock(7);
	EXECUTE 'PREPARE p AS SELECT 1';
	EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1';
	CREATE TEMPORARY TABLE t AS SELECT 1;
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER leave AFTER INSERT ON dwh.datamartusers
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dwh.leave();
TRUNCATE dwh.seen;
SQL
reset_warehouse($node, 'w', 3, map { $_ => q(INSERT INTO dwh.seen SELECT 0, current_setting('work_mem') || (SELECT count(*) FROM pg_prepared_statements)
	|| (SELECT count(*) FROM pg_cursors WHERE is_holdable) || coalesce(to_regclass('pg_temp.t')::text, '-')) } (1 .. 3));
is($node->safe_psql('w', $run), 'completed|3|0', 'deferred triggers leave things');
is($node->safe_psql('w', 'SELECT DISTINCT value FROM dwh.seen'), '4MB00-', 'and nobody finds them');
$node->safe_psql('w', 'DROP FUNCTION dwh.leave CASCADE');

# Limits of the cycle are not a refresh's to change: the second one sleeps
# longer than it may, the history is kept.
reset_warehouse($node, 'w', 3, 1 => 'SET datamart_users.user_timeout = 0; SET datamart_users.history_retention = 1; SET datamart_users.retry_delay = 0; SET datamart_users.log_every_users = 1',
	2 => 'SELECT pg_sleep(600)', 3 => 'RESET ALL');
$node->safe_psql('w', q(UPDATE datamart_users_cycles SET started_at = started_at - interval '1 day', finished_at = finished_at - interval '1 day'));
my $cycles = $node->safe_psql('w', 'SELECT count(*) FROM datamart_users_cycles');
is($node->safe_psql('w', "SET datamart_users.user_timeout = '200ms'; SET datamart_users.retry_delay = '1h'; $run"), 'completed|2|1', 'user_timeout is that of the cycle');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_cycles'), $cycles + 1, 'and so is history_retention');
is($node->safe_psql('w', q(SELECT sqlstate, next_attempt_at - last_failed_at > interval '50min' FROM datamart_users_failures)), '57014|t', 'and retry_delay');

# A commit is as durable as the cycle wants, whatever the procedure wants.
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$node->reload;
reset_warehouse_local();
is($node->safe_psql('w', "SET synchronous_commit = local; $run"), 'completed|1|0', 'no refresh waits for a standby because the procedure would');
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->reload;

sub reset_warehouse_local
{
	$node->safe_psql('w', <<'SQL');
SET synchronous_commit = local;
TRUNCATE dwh.dimension_users, dwh.facts, dwh.datamartusers, dwh.behaviour, dwh.seen;
DELETE FROM datamart_users_failures;
INSERT INTO dwh.dimension_users VALUES (1);
INSERT INTO dwh.facts VALUES (1, CURRENT_DATE);
INSERT INTO dwh.behaviour VALUES (1, 'SET synchronous_commit = remote_apply; SET LOCAL synchronous_commit = remote_apply');
SQL
	return;
}

# What no session can take back is told.
reset_warehouse($node, 'w', 2, 1 => q(SELECT public.dblink_connect('c', 'dbname=w')), 2 => q(SELECT public.dblink_connect('c', 'dbname=w')));
is($node->safe_psql('w', $run), 'completed|1|1', 'a connection of dblink stays');
like($node->safe_psql('w', 'SELECT sqlstate || context FROM datamart_users_failures'), qr/^42710.*HINT:  If this is about a connection of dblink: one that the procedure leaves open stays in its worker/s, 'and there is a hint');

# SET TRANSACTION ends with the procedure, as it would in a script.
reset_warehouse($node, 'w', 2, map { $_ => 'SET TRANSACTION READ ONLY' } (1 .. 2));
is($node->safe_psql('w', $run), 'completed|2|0', 'SET TRANSACTION READ ONLY is for the procedure');
check_sane($node, 'w', 'at the end');

done_testing();
