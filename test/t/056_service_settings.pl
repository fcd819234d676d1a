# What changes by a reload, ALTER DATABASE or ALTER ROLE reaches a service while
# it runs, and what its session had set stays.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('settings');
my $users = 30;
my $role;

add_warehouse($node, 'w', $users);
$role = $node->safe_psql('w', 'SELECT quote_ident(current_user)');

# What a refresh sees, and in which process.
$node->safe_psql('w', <<'SQL');
CREATE TABLE dwh.seen (dimension_user_id integer, at serial, pid integer, work_mem text, retry_delay text, random_page_cost text, lock_timeout text);
CREATE PROCEDURE dwh.see(p_id integer) LANGUAGE plpgsql AS $$
BEGIN
	CALL dwh.update_datamart_user(p_id);
	INSERT INTO dwh.seen (dimension_user_id, pid, work_mem, retry_delay, random_page_cost, lock_timeout)
		VALUES (p_id, pg_backend_pid(), current_setting('work_mem'), current_setting('datamart_users.retry_delay'), current_setting('random_page_cost'), current_setting('lock_timeout'));
END;
$$;
SQL

# All are touched until one is refreshed under what is expected.
sub reaches
{
	my ($change, $condition, $what) = @_;

	$node->safe_psql('w', 'TRUNCATE dwh.seen');
	$node->safe_psql('w', $_) foreach @$change;
	wait_for_sql($node, 'w', <<"SQL", $what);
WITH touched AS (UPDATE dwh.dimension_users SET modified = TRUE WHERE NOT modified RETURNING 1)
SELECT count(*) > 0 AND (SELECT count(*) FROM touched) >= 0 FROM dwh.seen WHERE $condition
SQL
	pass($what);
	return;
}

$node->safe_psql('w', "SET datamart_users.procedure = 'dwh.see'; SET lock_timeout = '77s'; SELECT datamart_users_start_service(2, '50 ms')");
reaches([], "work_mem = '4MB' AND lock_timeout = '77s'", 'a service works');
my $coordinator = $node->safe_psql('w', 'SELECT pid FROM datamart_users_service');

# Each way, and back.
reaches([ "ALTER SYSTEM SET work_mem = '5MB'", 'SELECT pg_reload_conf()' ], "work_mem = '5MB'", 'a reload');
reaches([ "ALTER DATABASE w SET work_mem = '6MB'" ], "work_mem = '6MB'", 'ALTER DATABASE');
reaches([ "ALTER ROLE $role SET work_mem = '7MB'" ], "work_mem = '7MB'", 'ALTER ROLE');
reaches([ "ALTER ROLE $role IN DATABASE w SET work_mem = '8MB'" ], "work_mem = '8MB'", 'ALTER ROLE IN DATABASE');
reaches([ "ALTER ROLE $role IN DATABASE w RESET ALL" ], "work_mem = '7MB'", 'what was set for the role comes back');
reaches([ "ALTER ROLE $role RESET work_mem" ], "work_mem = '6MB'", 'and for the database');
reaches([ 'ALTER DATABASE w RESET work_mem' ], "work_mem = '5MB'", 'and for the server');
reaches([ 'ALTER SYSTEM RESET work_mem', 'SELECT pg_reload_conf()' ], "work_mem = '4MB'", 'and the default');
reaches([ "ALTER DATABASE w SET datamart_users.retry_delay = '9s'" ], "retry_delay = '9s'", 'a setting of ours');
reaches([ "ALTER DATABASE w SET datamart_users.worker_settings = 'random_page_cost = 3'" ], "random_page_cost = '3'", 'those of workers');
reaches([ "ALTER ROLE $role SET lock_timeout = '5s'", "ALTER ROLE $role SET work_mem = '9MB'" ], "work_mem = '9MB' AND lock_timeout = '77s'", 'what the session had set wins');
is($node->safe_psql('w', "SELECT count(*) FROM dwh.seen WHERE lock_timeout <> '77s'"), '0', 'always');

# With none of these could a cycle begin.
my $offset = -s $node->logfile;
$node->safe_psql('w', "ALTER DATABASE w SET datamart_users.worker_settings = 'nonsense = 1'");
$node->wait_for_log(qr/service goes on with the settings that it has, because no cycle could begin with the changed ones: unrecognized configuration parameter "nonsense"/, $offset);
$offset = -s $node->logfile;
reaches([ "ALTER ROLE $role SET datamart_users.users_table = 'dwh.facts'" ], "random_page_cost = '3' AND work_mem = '9MB'", 'it works as before');
$node->wait_for_log(qr/service goes on with the settings that it has/, $offset);
reaches([ "ALTER ROLE $role RESET datamart_users.users_table", 'ALTER DATABASE w RESET datamart_users.worker_settings', "ALTER ROLE $role SET work_mem = '10MB'" ], "work_mem = '10MB' AND random_page_cost = '4'", 'once they are corrected');

wait_for_sql($node, 'w', "SELECT state = 'idle' AND NOT EXISTS (SELECT FROM dwh.dimension_users WHERE modified) FROM datamart_users_service", 'it comes to rest');
is($node->safe_psql('w', 'SELECT pid FROM datamart_users_service'), $coordinator, 'in the same coordinator');
is($node->safe_psql('w', 'SELECT sum(failed), sum(skipped) FROM datamart_users_cycles'), '0|0', 'nobody failed or was skipped');
is($node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), '0', 'and nobody was forgotten');
like(slurp_file($node->logfile), qr/leaves to another process, because settings have changed/, 'workers were replaced');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
check_sane($node, 'w', 'a service whose settings have changed');

$node->stop;
done_testing();
