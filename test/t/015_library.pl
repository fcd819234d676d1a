# Another build of the library, with another layout of the shared memory, is
# installed under open sessions: they keep the old one, new processes load the
# new one.  One clear error, and every build sees and stops a cycle of another.
#
# A worker looks in dynamic_library_path.  A session's functions name $libdir,
# but from 18 on that is only a default; so sessions have a path of their own.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use Cwd qw(abs_path);
use DatamartUsersTest;
use File::Temp;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use constant PROMPTLY => 30;

$ENV{PGOPTIONS} = '-c dynamic_library_path=$libdir';

my $root = abs_path("$FindBin::Bin/../..");
chomp(my $pgxs = `pg_config --pgxs`);
plan skip_all => 'the sources are not here' unless -e "$root/src/shared/queue.h" && -e "$root/Makefile";
plan skip_all => 'the development files of the server are not here' unless -e $pgxs;
plan skip_all => 'make or a compiler is missing' if system('(make --version && cc --version) >/dev/null 2>&1') != 0;

# Builds the sources once more; "change" is what sed does to src/shared/queue.h.
# Returns the folder with the library.
sub build
{
	my ($name, $change, @arguments) = @_;
	my $directory = File::Temp->newdir("dmu_${name}_XXXX", TMPDIR => 1, CLEANUP => 1);
	my $log = "$directory/build.log";

	system_or_bail('cp', '-R', "$root/Makefile", "$root/src", "$root/sql", "$root/test", "$root/datamart_users.control", "$directory/");
	system("rm -f $directory/src/*/*.o $directory/src/*/*.bc $directory/*.so");
	system_or_bail('sed', '-i', $change, "$directory/src/shared/queue.h") if defined $change;
	system("env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s -C $directory with_llvm=no @arguments datamart_users.so >$log 2>&1") == 0
	  or BAIL_OUT("could not build: " . slurp_file($log));
	return $directory;
}

my %builds = (
	'another checksum' => build('checksum', undef, 'LAYOUT=4711'),
	'another field' => build('field', 's/^\tDmuRequest\trequest;/\tint64\t\tanother[3];\n&/'));
my $run = 'SELECT status, found, processed, failed, workers FROM datamart_users_run_cycle(NULL, 2)';
my $node = new_node('library', conf => 'log_min_messages = log');
my ($gate, $caller, $other, $start, $stdout, $stderr, $cycle, $pid);

add_warehouse($node, 'w', 6);

# Where new processes of cycles find their library.
sub lead_workers
{
	my ($directory) = @_;
	my $path = defined $directory ? "$directory:\$libdir" : '$libdir';

	$node->append_conf('postgresql.conf', "dynamic_library_path = '$path'");
	$node->reload;
	local $ENV{PGOPTIONS} = '';
	wait_for_sql($node, 'w', "SELECT current_setting('dynamic_library_path') = '$path'", 'the path is set');
	return;
}

for my $what (sort keys %builds)
{
	my $directory = $builds{$what};

	#
	# The session has the old one, its coordinator would have the new one
	#
	reset_warehouse($node, 'w', 6);
	lead_workers($directory);
	for my $sql ($run, 'SELECT datamart_users_start_cycle()')
	{
		my $offset = -s $node->logfile;

		$start = time;
		(undef, $stdout, $stderr) = run_psql($node, 'w', $sql);
		cmp_ok(time - $start, '<', PROMPTLY, "$what: at once");
		is(sqlstate($stderr), '55000', "$what: a clear error") or diag($stderr);
		like($stderr, qr/ERROR:  \w{5}: the library of datamart_users was replaced.*HINT:  Reconnect/s, "$what: with a hint");
		like(slurp_file($node->logfile, $offset), qr/LOG:  datamart_users: the library was replaced/, "$what: the log has it");
		is($node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), 6, "$what: nothing happens");
		check_sane($node, 'w', $what);
	}
	is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_progress'), 0, "$what: no cycle is seen");

	#
	# Replaced between the coordinator and its workers: it works alone
	#
	lead_workers(undef);
	$other = $node->background_psql('w');
	$other->query_safe($_) for 'BEGIN', 'LOCK TABLE dwh.facts IN ACCESS EXCLUSIVE MODE';
	$gate = hold_gate($node, 'w', 6);
	$caller = start_psql($node, 'w', $run);
	wait_for_sql($node, 'w', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name LIKE 'datamart_users cycle % worker 1' AND wait_event_type = 'Lock'), 'the coordinator waits');
	lead_workers($directory);
	$other->quit;
	wait_for_gate($node, 'w', 1);
	open_gate($gate);
	(undef, $stdout, $stderr) = finish($caller);
	is($stdout, 'completed|6|6|0|1', "$what, for workers only: the coordinator works alone") or diag($stderr);

	# What ends such a cycle is called by its name.
	lead_workers(undef);
	reset_warehouse($node, 'w', 6);
	$other = $node->background_psql('w');
	$other->query_safe($_) for 'BEGIN', 'LOCK TABLE dwh.facts IN ACCESS EXCLUSIVE MODE';
	$gate = hold_gate($node, 'w', 6);
	$caller = start_psql($node, 'w', $run);
	wait_for_sql($node, 'w', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name LIKE 'datamart_users cycle % worker 1' AND wait_event_type = 'Lock'), 'the coordinator waits');
	lead_workers($directory);
	$other->quit;
	wait_for_gate($node, 'w', 1);
	$node->safe_psql('w', 'SELECT pg_terminate_backend(' . worker_pid($node, 1) . ')');
	(undef, $stdout, $stderr) = finish($caller);
	is(sqlstate($stderr), '57P01', "$what, for workers only: a coordinator that is terminated");
	open_gate($gate);
	check_sane($node, 'w', "$what, for workers only");

	#
	# A running cycle of the new one, seen from a session with the old one
	#
	for my $function ('start_cycle', 'run_cycle')
	{
		my $definition = $node->safe_psql('w', "SELECT pg_get_functiondef('datamart_users_$function'::regproc)");

		$definition =~ s/public\.datamart_users_$function/public.other_$function/ or die $definition;
		$definition =~ s/'\$libdir\/datamart_users'/'$directory\/datamart_users'/ or die $definition;
		$node->safe_psql('w', $definition);
	}
	reset_warehouse($node, 'w', 6);
	$gate = hold_gate($node, 'w');
	$cycle = $node->safe_psql('w', 'SELECT other_start_cycle(NULL, 2)');
	wait_for_gate($node, 'w', 2);
	for my $view (qw(progress workers))
	{
		(undef, $stdout, $stderr) = run_psql($node, 'w', "SELECT count(*) FROM datamart_users_$view");
		is($stdout, '0', "$what: no row in $view");
		like($stderr, qr/WARNING:  \w{5}: cycle $cycle of datamart_users was started by another build/, "$what: but a warning");
	}
	(undef, $stdout, $stderr) = run_psql($node, 'w', $run);
	is(sqlstate($stderr), '55006', "$what: no second cycle");
	like($stderr, qr/cycle $cycle of datamart_users is already running.*another build/s, "$what: which is named");
	like($node->safe_psql('w', "SELECT status, cycle_id FROM datamart_users_wait_cycle($cycle, '100 ms')"), qr/^running\|$cycle$/, "$what: it can be waited for");
	is(last_cycle($node, 'w', 'cycle_id, status'), "$cycle|running", "$what: and goes on");
	$caller = start_psql($node, 'w', "SELECT status, processed FROM datamart_users_wait_cycle($cycle)");
	wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'caller' AND wait_event = 'Extension'", 'somebody waits for the cycle');
	open_gate($gate);
	(undef, $stdout, $stderr) = finish($caller);
	is($stdout, 'completed|6', "$what: to its end") or diag($stderr);
	check_sane($node, 'w', $what);

	reset_warehouse($node, 'w', 6);
	$gate = hold_gate($node, 'w');
	$caller = start_psql($node, 'w', 'SELECT status, processed FROM other_run_cycle(NULL, 2)');
	wait_for_gate($node, 'w', 2);
	is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', "$what: it can be cancelled");
	(undef, $stdout, $stderr) = finish($caller);
	is($stdout, 'cancelled|0', "$what: its caller is told") or diag($stderr);
	is(last_cycle($node, 'w', 'status'), 'cancelled', "$what: so is the history");
	open_gate($gate);

	lead_workers(undef);
	is($node->safe_psql('w', $run), 'completed|6|6|0|2', "$what: with one library for all it works again");
	check_sane($node, 'w', $what);
	$node->safe_psql('w', 'DROP FUNCTION other_start_cycle, other_run_cycle');
}

$node->stop;
done_testing();
