# The life of a database: a dump in the midst of a cycle, the script of an older
# version, other encodings, names that need quotes, and facts that come by
# logical replication while cycles run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $run = 'SELECT status, processed, failed FROM datamart_users_run_cycle()';
my $node = new_node('life');
my $stderr;

#
# A dump while a cycle runs: the cycle is none of the copy's.
#
add_warehouse($node, 'w', 5);
is($node->safe_psql('w', $run), 'completed|5|0', 'a cycle');
reset_warehouse($node, 'w', 5);
my $gate = hold_gate($node, 'w');
$node->safe_psql('w', 'SELECT datamart_users_start_cycle()');
wait_for_sql($node, 'w', "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 'it is at the gate');
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ $node->installed_command('pg_dump'), '-d', $node->connstr('w'), '-f', $dump ], 'pg_dump while a cycle runs');
$node->safe_psql('postgres', 'CREATE DATABASE r');
$node->command_ok([ $node->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('r'), '-f', $dump ], 'restored');
is($node->safe_psql('r', 'SELECT count(*) FROM datamart_users_progress'), 0, 'no cycle runs in the copy');
like($node->safe_psql('r', "SELECT detail FROM datamart_users_check() WHERE item = 'last cycle'"),
	qr/cycle 2 says running, but nothing runs: .* copy of the database/, 'which the doctor says');
is($node->safe_psql('r', 'SELECT datamart_users_cancel_cycle(2)'), 'f', 'there is none to cancel');
is(last_cycle($node, 'w', 'status'), 'running', 'where it comes from it runs');
open_gate($gate);
is($node->safe_psql('w', 'SELECT status, processed FROM datamart_users_wait_cycle(2)'), 'completed|5', 'to its end');
is(last_cycle($node, 'w', 'message IS NULL'), 't', 'and nothing is said of a copy');
is($node->safe_psql('r', $run), 'completed|5|0', 'cycles run in the copy');
is($node->safe_psql('r', 'SELECT status, message FROM datamart_users_cycles WHERE cycle_id = 2'),
	'aborted|It ran when the database was copied, or its users table was made anew meanwhile.', 'where that one is aborted, and says why');
is(last_cycle($node, 'r', 'cycle_id'), 3, 'the next one has the next number');
check_sane($node, 'r', 'copy');

#
# A library over the script of an older version.
#
$node->safe_psql('r', "UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'datamart_users'");
for my $call ('SELECT datamart_users_run_cycle()', 'CALL datamart_users_run()', 'SELECT datamart_users_start_cycle()',
	'SELECT datamart_users_report()', 'SELECT datamart_users_retry()')
{
	(undef, undef, $stderr) = run_psql($node, 'r', $call);
	is(sqlstate($stderr), '55000', "$call over an older script");
	like($stderr, qr/has version 0\.9 .*HINT:  Run ALTER EXTENSION datamart_users UPDATE\./s, 'names the update');
}
like($node->safe_psql('r', "SELECT string_agg(detail || hint, ' ') FROM datamart_users_check() WHERE status = 'error'"),
	qr/has version 0\.9 .*ALTER EXTENSION datamart_users UPDATE/, 'so does the doctor');
is($node->safe_psql('r', 'SELECT count(*) FROM datamart_users_progress'), 0, 'the views of what goes on work');
$node->safe_psql('r', "UPDATE pg_extension SET extversion = '1.1' WHERE extname = 'datamart_users'");
is($node->safe_psql('r', $run), 'completed|0|0', 'over a newer one it works');

#
# Encodings, and names with quotes and blanks; an error whose text needs the
# encoding.
#
my %text = (LATIN1 => 'chr(233)', SQL_ASCII => q('caf' || chr(101)), EUC_JP => q(convert_from('\\xc6fccbdc'::bytea, 'EUC_JP')));
for my $encoding (sort keys %text)
{
	my $database = qq(the "$encoding" ware house);
	my $quoted = '"' . $database =~ s/"/""/gr . '"';

	$node->safe_psql('postgres', "CREATE DATABASE $quoted ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	add_warehouse($node, $database, 4);
	behave($node, $database, 2, "DO \$do\$ BEGIN RAISE '% is ill', $text{$encoding}; END; \$do\$");
	$node->safe_psql($database, <<"SQL");
CREATE ROLE "The ""$encoding"" role" LOGIN;
GRANT USAGE ON SCHEMA dwh TO "The ""$encoding"" role";
GRANT ALL ON ALL TABLES IN SCHEMA dwh TO "The ""$encoding"" role";
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO "The ""$encoding"" role";
SQL
	is($node->safe_psql($database, qq(SET SESSION AUTHORIZATION "The ""$encoding"" role"; $run)), 'completed|3|1', "$database: a cycle by a role whose name needs quotes");
	is($node->safe_psql($database, qq(SELECT message = $text{$encoding} || ' is ill' FROM datamart_users_failures)), 't', 'the error is as it was');
	is(last_cycle($node, $database, 'role_name'), qq(The "$encoding" role), 'so is the role');
	like($node->safe_psql($database, 'SELECT datamart_users_report()'), qr/^Cycle 1: completed/, 'the report is drawn');
	is($node->safe_psql($database, qq(SELECT count(*) FROM datamart_users_check('The "$encoding" role') WHERE status = 'error')), 0, 'the doctor has no complaint');
	check_sane($node, $database, $encoding);
}

#
# Facts and flags that come by logical replication while cycles run.
#
my $source = new_node('source', init => { allows_streaming => 'logical' });
add_warehouse($source, 's', 20);
$source->safe_psql('s', 'CREATE PUBLICATION p FOR TABLE dwh.facts, dwh.dimension_users');
add_warehouse($node, 't', 20);
$node->safe_psql('t', 'TRUNCATE dwh.facts, dwh.dimension_users');
my $connection = $source->connstr('s') =~ s/'/''/gr;
$node->safe_psql('t', "CREATE SUBSCRIPTION s CONNECTION '$connection' PUBLICATION p");
wait_for_sql($node, 't', "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel", 'the tables are copied');

for my $round (1 .. 8)
{
	my $caller = start_psql($node, 't', $run);

	# As the ETL must: the flag also where it is set, as it always is there.
	$source->safe_psql('s', <<"SQL") for (1 .. 4);
BEGIN;
INSERT INTO dwh.facts SELECT i, now() FROM generate_series(1, 20) i WHERE i % 3 = $round % 3;
UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id % 3 = $round % 3;
COMMIT;
SQL
	my (undef, $stdout) = finish($caller);
	like($stdout, qr/^completed\|\d+\|0$/, "round $round: the cycle ends, nothing fails");
}
$source->wait_for_catchup('s');
is($node->safe_psql('t', q(SELECT status, failed FROM datamart_users_run_cycle())), 'completed|0', 'the last cycle');
is($node->safe_psql('t', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), 0, 'nobody is left modified');
is($node->safe_psql('t', 'SELECT count(*) FROM dwh.facts'), $source->safe_psql('s', 'SELECT count(*) FROM dwh.facts'), 'all facts are there');
is($source->safe_psql('s', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), 20, 'where they come from nothing has changed');
$node->safe_psql('t', 'DROP SUBSCRIPTION s');
check_sane($node, 't', 'replicated');

$source->stop;
$node->stop;
done_testing();
