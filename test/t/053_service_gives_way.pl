# What ends a service: whoever wants its database, its role or its extension.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('way');

add_warehouse($node, 'w', 2);
$node->safe_psql('postgres', 'CREATE ROLE etl LOGIN');

sub grant_all
{
	$node->safe_psql('w', <<'SQL');
GRANT USAGE ON SCHEMA dwh TO etl;
GRANT ALL ON ALL TABLES IN SCHEMA dwh TO etl;
GRANT EXECUTE ON PROCEDURE dwh.update_datamart_user TO etl;
GRANT EXECUTE ON FUNCTION datamart_users_start_service TO etl;
SQL
	return;
}

# Idle, and with a worker that has its plans.
sub start_service
{
	my (%options) = @_;
	my ($status, $out, $err);

	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
	($status, $out, $err) = run_psql($node, 'w', "SELECT datamart_users_start_service(1, '@{[$options{poll} // '50 ms']}')", %options);
	is($out, 't', 'it starts') or diag $err;
	wait_for_sql($node, 'w', "SELECT state = 'idle' AND workers > 0 FROM datamart_users_service", 'it is idle')
	  unless $options{poll};
	return;
}

# Rights that are taken away, one after the other.
for my $case (
	[ 'ALTER ROLE etl NOLOGIN', 'ALTER ROLE etl LOGIN', qr/may not log in any more/ ],
	[ 'REVOKE CONNECT ON DATABASE w FROM PUBLIC', 'GRANT CONNECT ON DATABASE w TO PUBLIC', qr/may not connect/ ],
	[ 'REVOKE EXECUTE ON FUNCTION datamart_users_start_service FROM etl', '', qr/may not call/ ],
	[ 'REVOKE SELECT ON dwh.facts FROM etl', '', qr/permission denied/ ],
	[ 'REVOKE EXECUTE ON PROCEDURE dwh.update_datamart_user FROM etl, PUBLIC', '', qr/permission denied/ ])
{
	my ($revoke, $grant, $message) = @$case;

	grant_all();
	start_service(user => 'etl');
	$node->safe_psql('w', $revoke);
	wait_for_idle($node);
	is(last_cycle($node, 'w', 'status, role_name'), 'failed|etl', "$revoke ends it");
	like(last_cycle($node, 'w', 'message'), $message, 'and the history tells why');
	$node->safe_psql('w', $grant) if $grant;
}

# The role goes altogether.
grant_all();
start_service(user => 'etl');
$node->safe_psql('w', 'DROP OWNED BY etl; DROP ROLE etl');
wait_for_idle($node);
like(last_cycle($node, 'w', 'message'), qr/(dropped|may not|permission denied)/, 'a dropped role ends it');

# The table goes, and comes back as another one.
start_service();
$node->safe_psql('w', 'ALTER TABLE dwh.dimension_users RENAME TO gone');
wait_for_idle($node);
is(last_cycle($node, 'w', 'status'), 'failed', 'a users table that has gone ends it');
$node->safe_psql('w', 'ALTER TABLE dwh.gone RENAME TO dimension_users');

# An extension that is updated.
start_service();
$node->safe_psql('w', "UPDATE pg_extension SET extversion = '1.1' WHERE extname = 'datamart_users'");
wait_for_idle($node);
like(last_cycle($node, 'w', 'message'), qr/updated from version 1.0 to 1.1/, 'an update ends it');
$node->safe_psql('w', "UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'datamart_users'");

# The extension itself; an idle service is not in the way of that, or gives way if
# it is just looking, which has more than one place to notice.
start_service();
my $logged = -s $node->logfile;
$node->safe_psql('w', "SET lock_timeout = '10s'; DROP EXTENSION datamart_users");
wait_for_idle($node);
$node->wait_for_log(qr/was dropped|about to drop or alter the extension|extension "datamart_users" is (?:being dropped|not installed)/, $logged);
pass('so does one that is dropped');
$node->safe_psql('w', 'CREATE EXTENSION datamart_users');

# A look that comes when it is being dropped meets tables that are gone.
start_service();
my $coordinator = $node->safe_psql('w', 'SELECT pid FROM datamart_users_service');
my $dropper = $node->background_psql('w');
$logged = -s $node->logfile;
$dropper->query_safe("SET lock_timeout = '10s'");
$dropper->query_safe('BEGIN; DROP EXTENSION datamart_users');
wait_for_sql($node, 'w', "SELECT count(*) > 0 FROM pg_locks WHERE pid = $coordinator AND NOT granted OR NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $coordinator)", 'a look waits for it');
$dropper->query_safe('COMMIT');
$dropper->quit;
wait_for_idle($node);
my $log = slurp_file($node->logfile, $logged);
like($log, qr/service ended .*\n.*extension "datamart_users" was dropped/, 'the log tells what happened');
unlike($log, qr/could not open relation/, 'and not what was met');
$node->safe_psql('w', 'CREATE EXTENSION datamart_users');

# Nor does a busy one keep it.
$node->safe_psql('w', 'INSERT INTO dwh.dimension_users SELECT generate_series(1000, 160000)');
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'a busy one');
wait_for_sql($node, 'w', 'SELECT done > 10 FROM datamart_users_progress', 'it works');
$node->safe_psql('w', "SET lock_timeout = '10s'; DROP EXTENSION datamart_users");
wait_for_idle($node);
cmp_ok($node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), '>', 0, 'gives way in the midst of its work');
$node->safe_psql('w', 'DELETE FROM dwh.dimension_users WHERE dimension_user_id > 2; CREATE EXTENSION datamart_users');

# The database: nobody has to ask the service to go, however seldom it looks.
start_service(poll => '1 h');
$node->safe_psql('postgres', 'ALTER DATABASE w RENAME TO v');
$node->safe_psql('postgres', 'ALTER DATABASE v RENAME TO w');
pass('a database with an idle service can be renamed');
is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_service'), '0', 'which ends it');
start_service();
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE w');
pass('be copied');

# A busy one.
$node->safe_psql('w', <<'SQL');
INSERT INTO dwh.dimension_users SELECT generate_series(100000, 160000);
SQL
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '50 ms')"), 't', 'a busy one');
wait_for_sql($node, 'w', 'SELECT done > 10 FROM datamart_users_progress', 'it works');
$node->safe_psql('postgres', 'DROP DATABASE w');
pass('and be dropped');
wait_for_idle($node);

$node->stop;
done_testing();
