# An owner of the extension who is no superuser: whatever is written or read in
# his name, after crashes too, has to be within what every role may do.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('owner');
my $run = 'SELECT status, found, processed, failed FROM datamart_users_run_cycle(NULL, 1)';
my ($stdout, $stderr);

add_warehouse($node, 'w', 6);
$node->safe_psql('w', <<'SQL');
DROP EXTENSION datamart_users;
CREATE ROLE boss SUPERUSER LOGIN;
CREATE ROLE plain;
CREATE SCHEMA store;
SQL
(undef, undef, $stderr) = run_psql($node, 'w', 'CREATE EXTENSION datamart_users SCHEMA store', user => 'boss');
is($stderr, '', 'a superuser creates the extension');
$node->safe_psql('w', <<'SQL');
REASSIGN OWNED BY boss TO plain;
DROP ROLE boss;
ALTER DATABASE w SET search_path = public, store;
SQL
is( $node->safe_psql('w', <<'SQL'), 'plain', 'and gives it to a plain role');
SELECT DISTINCT pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass
WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND c.relname LIKE 'datamart_users%'
SQL

#
# The schema is not his
#
for my $call ($run, 'SELECT datamart_users_start_cycle()', 'SELECT datamart_users_queue()',
	'SELECT datamart_users_try()', 'SELECT datamart_users_retry()')
{
	(undef, undef, $stderr) = run_psql($node, 'w', $call);
	is(sqlstate($stderr), '42501', "$call: without USAGE on the schema");
	like($stderr, qr/HINT:  Run GRANT USAGE ON SCHEMA store TO plain;/, 'the hint says what to do');
}
$node->safe_psql('w', 'GRANT USAGE ON SCHEMA store TO plain');

#
# All that is written and read in his name
#
is($node->safe_psql('w', "SELECT outcome FROM datamart_users_try()"), 'processed', 'a rehearsal');
behave($node, 'w', 2, q(DO 'BEGIN RAISE EXCEPTION ''no''; END'));
behave($node, 'w', 4, q(DO 'BEGIN RAISE lock_not_available; END'));
is($node->safe_psql('w', $run), 'completed|6|4|1', 'a cycle, a failure, a collision');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_contention'), '1', 'the collision is written down');
$node->safe_psql('w', 'ALTER TABLE dwh.dimension_users RENAME TO u; CREATE TABLE dwh.dimension_users (LIKE dwh.u INCLUDING ALL); INSERT INTO dwh.dimension_users TABLE dwh.u; DROP TABLE dwh.u');
is($node->safe_psql('w', 'SELECT datamart_users_retry()'), '2', 'retry, under another oid');
$node->safe_psql('w', 'TRUNCATE dwh.behaviour');
is($node->safe_psql('w', $run), 'completed|2|2|0', 'they are cured');
is( $node->safe_psql('w', "SELECT string_agg(item || ': ' || detail, '; ') FROM datamart_users_check() WHERE status = 'error'"),
	'', 'the doctor can look at all of it');
is($node->safe_psql('w', "SELECT count(*) FROM datamart_users_report() r WHERE r ~ 'completed'"), '1', 'so can the report');
$node->safe_psql('w', "SELECT count(*) FROM $_")
  for qw(datamart_users_progress datamart_users_workers datamart_users_backlog datamart_users_metrics datamart_users_cycle_priority_rates);
check_sane($node, 'w', 'a plain owner');

#
# Crashes: who was at work in two of them is found out
#
reset_warehouse($node, 'w', 6, 3 => q(COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'));
for my $attempt (1, 2)
{
	my $offset = -s $node->logfile;

	(undef, $stdout, $stderr) = run_psql($node, 'w', $run);
	isnt($stderr, '', "cycle $attempt takes the server down");
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
	wait_for_server($node);
}
is($node->safe_psql('w', 'SELECT status, processed = backlog - 1 FROM datamart_users_run_cycle(NULL, 1)'),
	'completed|t', 'the third cycle completes for the others');
is($node->safe_psql('w', 'SELECT dimension_user_id, sqlstate FROM datamart_users_failures'), '3|57P02', 'and the poison has failed');
is( $node->safe_psql('w', 'SELECT string_agg(message, $$ $$ ORDER BY cycle_id) FROM (SELECT * FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 3) c'),
	'The server went down during the cycle. The server went down during the cycle.', 'the history tells a crash from a coordinator that was ended');
check_sane($node, 'w', 'crashes');

$node->stop;
done_testing();
