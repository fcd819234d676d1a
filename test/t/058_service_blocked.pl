# What others do to their tables and settings, and a service that goes on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('blocked');
my $role;

add_warehouse($node, 'w', 3);
$role = $node->safe_psql('w', 'SELECT quote_ident(current_user)');
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN; CREATE DATABASE other');

sub wait_for_looks
{
	my ($count) = @_;
	my $looks = $node->safe_psql('w', 'SELECT looks FROM datamart_users_service');

	wait_for_sql($node, 'w', "SELECT looks >= $looks + $count FROM datamart_users_service", 'it has looked');
	return;
}

sub wait_until_idle
{
	wait_for_sql($node, 'w', "SELECT state = 'idle' AND workers > 0 AND NOT EXISTS (SELECT FROM dwh.dimension_users WHERE modified) FROM datamart_users_service", 'it has done its work');
	return;
}

# In the log from there on.
sub count_of
{
	my ($pattern, $offset) = @_;

	return scalar(() = substr(slurp_file($node->logfile), $offset) =~ /$pattern/g);
}

is($node->safe_psql('w', "SELECT datamart_users_start_service(2, '50 ms')"), 't', 'a service');
wait_until_idle();
my $coordinator = $node->safe_psql('w', 'SELECT pid FROM datamart_users_service');

# A table that somebody has locked; to write into the history is part of the
# first look that finds somebody.
for my $table ('dwh.dimension_users', 'dwh.facts', 'datamart_users_failures', 'datamart_users_cycles')
{
	my $offset = -s $node->logfile;
	my $holder = $node->background_psql('w');

	$holder->query_safe("BEGIN; LOCK TABLE $table");
	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE') if $table ne 'dwh.dimension_users';
	$node->wait_for_log(qr/could not look who waits, and will look again: canceling statement due to lock timeout/, $offset);
	wait_for_looks(2);
	is(count_of(qr/could not look who waits/, $offset), 1, "$table is locked, and the log says so once");
	$holder->query_safe('COMMIT');
	$holder->quit;
	wait_for_looks(2);
	wait_until_idle();
	pass('it goes on');
}
is($node->safe_psql('w', 'SELECT pid FROM datamart_users_service'), $coordinator, 'the same service');
is($node->safe_psql('w', 'SELECT sum(failed) FROM datamart_users_cycles'), '0', 'nobody has failed');

# It can be stopped meanwhile.
my $holder = $node->background_psql('w');
my $logged = -s $node->logfile;
$holder->query_safe('BEGIN; LOCK TABLE dwh.dimension_users');
$node->wait_for_log(qr/could not look who waits/, $logged);
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'whoever stops it does not wait for that lock');
$holder->query_safe('COMMIT');
$holder->quit;

# Settings that concern others.
is($node->safe_psql('w', "SELECT datamart_users_start_service(2, '50 ms')"), 't', 'a service');
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
wait_until_idle();
$logged = -s $node->logfile;
my $workers = $node->safe_psql('w', "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM (@{[pids_sql('worker')]}) AS p");
for my $change (
	"ALTER ROLE stranger SET work_mem = '9MB'",
	"ALTER ROLE stranger IN DATABASE w SET work_mem = '9MB'",
	"ALTER DATABASE other SET work_mem = '9MB'",
	"ALTER ROLE $role IN DATABASE other SET work_mem = '9MB'")
{
	$node->safe_psql('w', $change);
	wait_for_looks(2);
	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
	wait_until_idle();
	is($node->safe_psql('w', "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM (@{[pids_sql('worker')]}) AS p"), $workers, "$change replaces nobody");
}
is(count_of(qr/takes over changed settings/, $logged), 0, 'and is not taken over');

# Memory of the coordinator, by changes of settings; it works itself, too, so it
# has prepared what a worker has.
sub memory
{
	my $offset = -s $node->logfile;

	$node->safe_psql('w', "SELECT pg_log_backend_memory_contexts($coordinator)");
	$node->wait_for_log(qr/Grand total: \d+ bytes in/, $offset);
	substr(slurp_file($node->logfile), $offset) =~ /Grand total: (\d+) bytes in/;
	return $1;
}

sub change_settings
{
	my ($times) = @_;

	for my $i (1 .. $times)
	{
		my $offset = -s $node->logfile;

		$node->safe_psql('w', "ALTER DATABASE w SET work_mem = '@{[5000 + $i % 7]}kB'");
		$node->wait_for_log(qr/takes over changed settings/, $offset);
	}
	wait_for_looks(2);
	return;
}

is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
$node->append_conf('postgresql.conf', 'max_worker_processes = 2');
$node->restart;
is($node->safe_psql('w', "SELECT datamart_users_start_service(1, '10 ms')"), 't', 'a service without workers');
$coordinator = $node->safe_psql('w', 'SELECT pid FROM datamart_users_service');
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
wait_for_sql($node, 'w', 'SELECT NOT EXISTS (SELECT FROM dwh.dimension_users WHERE modified)', 'does its work');
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'and has closed its cycle');
change_settings(20);
my $before = memory();
change_settings(200);
my $after = memory();
cmp_ok($after, '<', $before + 256 * 1024, '200 changes of settings leave nothing behind') or diag "$before, $after";
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
check_sane($node, 'w', 'a service beside others');

$node->stop;
done_testing();
