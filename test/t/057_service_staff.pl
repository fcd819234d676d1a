# The workers of a service leave one at a time, whatever they leave for, and those
# that have nothing to do give back their process.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('staff');

add_warehouse($node, 'w', 12);

sub workers
{
	return "SELECT count(*) FROM (@{[pids_sql('worker')]}) AS p";
}

# Two workers, each at a datamart user that stays until its gate is opened.
sub hold_two
{
	my ($settings) = @_;
	my @gates = map { hold_gate($node, 'w', $_) } 1, 2;

	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = FALSE; UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id <= 2');
	is($node->safe_psql('w', "$settings; SELECT datamart_users_start_service(2, '50 ms')"), 't', 'a service with two workers');
	wait_for_gate($node, 'w', 2);
	return @gates;
}

sub leaving
{
	my ($offset) = @_;
	my $log = substr(slurp_file($node->logfile), $offset);

	return scalar(() = $log =~ /: leaves to another process, because/g);
}

# While the coordinator stands still nobody can come in the place of a worker that
# has left; so the other one stays, and does all the work.
sub check_one_leaves
{
	my ($offset, $what, @gates) = @_;
	my $coordinator = $node->safe_psql('w', 'SELECT pid FROM datamart_users_service');

	# In the queue before it stops.
	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id > 2');
	wait_for_sql($node, 'w', 'SELECT found = 12 FROM datamart_users_progress', 'more to do');
	kill 'STOP', $coordinator;
	open_gate($_) foreach @gates;
	wait_for_sql($node, 'w', 'SELECT count(*) = 0 FROM dwh.dimension_users WHERE modified', "$what: all are refreshed");
	wait_for_sql($node, 'w', workers() =~ s/count\(\*\)/count(*) = 1/r, 'by one worker, at the end');
	is(leaving($offset), 1, "$what: one has left");
	kill 'CONT', $coordinator;
	return;
}

my $offset = -s $node->logfile;
my @gates = hold_two("SET datamart_users.worker_memory_limit = '64kB'");
check_one_leaves($offset, 'memory', @gates);
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
check_sane($node, 'w', 'workers that have grown');

$offset = -s $node->logfile;
@gates = hold_two('SELECT');
$node->safe_psql('w', "ALTER DATABASE w SET work_mem = '5MB'");
$node->wait_for_log(qr/takes over changed settings, one worker after the other/, $offset);
check_one_leaves($offset, 'settings', @gates);
$node->wait_for_log(qr/(?:leaves to another process, because settings have changed.*){2}/s, $offset);
pass('the other one leaves when its place is free');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
check_sane($node, 'w', 'workers whose settings have changed');

# Nothing to do.
@gates = hold_two("SET datamart_users.worker_idle_timeout = '300ms'");
open_gate($_) foreach @gates;
wait_for_sql($node, 'w', "SELECT workers = 1 FROM datamart_users_service", 'a worker that has nothing to do leaves');
wait_for_sql($node, 'w', workers() =~ s/count\(\*\)/count(*) = 1/r, 'and gives back its process');
$node->wait_for_log(qr/worker 3: gives back its process, because it had nothing to do for 300 ms/);
my $looks = $node->safe_psql('w', 'SELECT looks FROM datamart_users_service');
wait_for_sql($node, 'w', "SELECT looks > $looks + 20 FROM datamart_users_service", 'time goes by');
is($node->safe_psql('w', 'SELECT workers FROM datamart_users_service'), '1', 'the last one stays');
@gates = map { hold_gate($node, 'w', $_) } 1, 2;
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id <= 2');
wait_for_gate($node, 'w', 2);
pass('and two come again when there is work for two');
open_gate($_) foreach @gates;
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');

@gates = hold_two('SET datamart_users.worker_idle_timeout = 0');
open_gate($_) foreach @gates;
wait_for_sql($node, 'w', "SELECT state = 'idle' FROM datamart_users_service", 'it has nothing to do');
$looks = $node->safe_psql('w', 'SELECT looks FROM datamart_users_service');
wait_for_sql($node, 'w', "SELECT looks > $looks + 10 FROM datamart_users_service", 'time goes by');
is($node->safe_psql('w', 'SELECT workers FROM datamart_users_service'), '2', 'without a limit all stay');
is($node->safe_psql('w', 'SELECT datamart_users_stop_service()'), 't', 'it stops');
check_sane($node, 'w', 'idle workers');

$node->stop;
done_testing();
