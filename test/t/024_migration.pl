# doc/migration.md: its SQL runs as it stands; and the script, which a cycle
# replaces, at work beside it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::Bin/../..";
my $node = new_node('migration');
my ($script, $caller, $status, $stdout, $stderr);

#
# The page, line by line
#
plan skip_all => 'the documentation is not here' unless -e "$root/doc/migration.md";
my @blocks = slurp_file("$root/doc/migration.md") =~ /^```sql\n(.*?)^```$/gms;

cmp_ok(scalar @blocks, '>', 5, 'the page has SQL');
$node->safe_psql('postgres', 'CREATE DATABASE warehouse');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('warehouse'),
		'-v', 'users=60', '-v', 'facts=1500', '-f', "$root/test/fixtures/warehouse.sql" ], 'a warehouse');
$node->safe_psql('warehouse', <<'SQL');
CREATE TABLE dwh.badges (dimension_user_id integer, badge text);
CREATE FUNCTION dwh.assign_badges_to_user(id integer) RETURNS void LANGUAGE sql
AS $$ INSERT INTO dwh.badges VALUES (id, 'here') $$;
SQL

# A person would run the cycle after section 4.
my @script = map { "SET datamart_users.progress_interval = 0;\n$_" } @blocks;
my ($before, $after) = (join("\n", @script[ 0 .. 4 ]), join("\n", @script[ 5 .. $#script ]));
like($blocks[4], qr/cycle_time_limit/, 'the first half ends with the limits');
my $psql = sub {
	my ($sql, $what) = @_;
	my $client = IPC::Run::start([ 'psql', '-XAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('warehouse') ],
		'<', \$sql, '>', \($stdout = ''), '2>', \($stderr = ''), IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$client->finish;
	is($client->full_result(0), 0, $what) or diag($stderr);
};

# To the server of the test.
s/^\\connect warehouse$/\\connect -/m for $before, $after;
$psql->($before, 'sections 1 to 4 run');
like($stdout, qr/^processed\|/m, 'the rehearsal would refresh somebody');
is($node->safe_psql('warehouse', 'SELECT count(*) FROM dwh.badges'), '0', 'and has changed nothing');
is($node->safe_psql('warehouse', q(LOAD 'datamart_users'; SELECT current_setting('datamart_users.catchup_max_users') || ' ' || current_setting('datamart_users.procedure'))),
	'40000 dwh.refresh_datamart_user', 'the settings are those of the script');

$psql->("SET datamart_users.error_on_failure = on; SET datamart_users.progress_interval = 0; CALL datamart_users_run();", 'the call');
is($node->safe_psql('warehouse', 'SELECT count(*), count(DISTINCT dimension_user_id) FROM dwh.badges'),
	$node->safe_psql('warehouse', 'SELECT processed, processed FROM datamart_users_cycles'), 'each has its badges');
is($node->safe_psql('warehouse', q(SELECT count(*) FROM dwh.stale_datamart_users('dwh.datamartusers'))), '0', 'and nobody is stale');
$psql->($after, 'sections 5 to 8 run');
unlike($stderr, qr/ERROR/, 'without an error');
is($node->safe_psql('warehouse', 'SELECT bool_and(modified) FROM dwh.dimension_users'), 't', 'everybody is flagged');

# Badges that fail roll all of it back.
$node->safe_psql('warehouse', 'ALTER TABLE dwh.badges ADD CHECK (dimension_user_id <> 3)  NOT VALID');
$node->safe_psql('warehouse', 'TRUNCATE dwh.datamartusers');
$psql->("SET datamart_users.progress_interval = 0; CALL datamart_users_run();", 'a cycle in which one fails');
is($node->safe_psql('warehouse', 'SELECT dimension_user_id, sqlstate FROM datamart_users_failures'), '3|23514', 'its badges have failed');
is($node->safe_psql('warehouse', 'SELECT count(*) FROM dwh.datamartusers WHERE dimension_user_id = 3'), '0', 'so there is no row of it');
is($node->safe_psql('warehouse', 'SELECT modified FROM dwh.dimension_users WHERE dimension_user_id = 3'), 't', 'and it is still modified');

#
# The script has refreshed one, and not cleared the flag yet
#
add_warehouse($node, 'w', 3);
my $begin = q(BEGIN; CALL dwh.update_datamart_user(1));
my $end = q(UPDATE dwh.dimension_users SET modified = FALSE WHERE dimension_user_id = 1; COMMIT);

$script = $node->background_psql('w');
$script->query_safe($begin);
$caller = start_psql($node, 'w', 'SELECT status, processed, failed, skipped, deferred FROM datamart_users_run_cycle(NULL, 1)');
wait_for_sql($node, 'w', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name LIKE 'datamart_users cycle % worker 1' AND wait_event_type = 'Lock'), 'the worker waits for the script');
$script->query_safe($end);
($status, $stdout, $stderr) = finish($caller);
is($stdout, 'completed|2|0|1|0', 'the one that the script was at is skipped') or diag($stderr);
check_sane($node, 'w', 'script first');

#
# The script's own lost update is the script's; flagging everybody mends it
#
reset_warehouse($node, 'w', 3);
$script->query_safe($begin);
$node->safe_psql('w', 'BEGIN; INSERT INTO dwh.facts VALUES (1, now()); UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = 1; COMMIT');
$script->query_safe($end);
my $stale = q(SELECT count(*) FROM dwh.dimension_users u JOIN dwh.datamartusers d USING (dimension_user_id)
	WHERE NOT modified AND actions <> (SELECT count(*) FROM dwh.facts WHERE action_dimension_id_user = u.dimension_user_id));
is($node->safe_psql('w', $stale), '1', 'the script overlooks a fact');
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
is($node->safe_psql('w', 'SELECT processed FROM datamart_users_run_cycle()'), '3', 'everybody once more');
check_sane($node, 'w', 'after the change-over');
$script->quit;

#
# Both at work on the same datamart users
#
SKIP:
{
	skip 'the script is not here, or flock', 4
	  if !-e "$root/bench/psql_per_user.sh" || system('flock --version >/dev/null 2>&1') != 0;

	for my $round (1, 2)
	{
		reset_warehouse($node, 'w', 200);
		local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'w');
		my $errors = '';
		my $loop = IPC::Run::start([ 'bash', "$root/bench/psql_per_user.sh", 2, 200, 'dwh.update_datamart_user' ],
			'>', \(my $failed = ''), '2>', \$errors, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
		my $left;
		do
		{
			$node->safe_psql('w', 'SELECT datamart_users_run_cycle(NULL, 2)');
			$left = $node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE modified');
		} while ($left > 0);
		$loop->finish;
		chomp $failed;
		is($failed, '0', "round $round: the script has no failure of the cycle's doing") or diag($errors);
		check_sane($node, 'w', "round $round: side by side");
	}
}

$node->stop;
done_testing();
