# A build in another folder than that of the sources: it makes what a build in
# theirs makes, whatever is left there of earlier builds, writes nothing there,
# and installs and tests itself from where it is.

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# What the make that runs this test was told is not for those below.
delete @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES REGRESS ISOLATION TAP_TESTS PROVE_TESTS)};

my $source = abs_path("$FindBin::Bin/../..");
my $dir = PostgreSQL::Test::Utils::tempdir();
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my @options = ("PG_CONFIG=$pg_config", 'PROFILE=-O0', '-j2');

# The sources and no more, although somebody may have built in their folder.
sub copy_sources
{
	my ($to) = @_;

	mkdir $to or die "could not create $to: $!";
	system_or_bail('tar', '-C', $source, '--exclude=*.o', '--exclude=*.bc',
		'--exclude=*.so', '--exclude=/datamart_users--*.sql',
		'-cf', "$dir/sources.tar", qw(Makefile datamart_users.control doc monitoring sql src test));
	system_or_bail('tar', '-C', $to, '-xf', "$dir/sources.tar");
	return;
}

# Runs make, which must not fail, and returns its output.
sub make
{
	my ($what, @arguments) = @_;
	my ($stdout, $stderr) = ('', '');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok( IPC::Run::run([ 'make', @options, @arguments ], '<', \undef,
			'>', \$stdout, '2>', \$stderr),
		$what)
	  or diag("$stdout$stderr");
	return $stdout;
}

sub lines_of
{
	my (@command) = @_;

	return [ sort split /\n/, (run_command(\@command))[0] ];
}

# What a library exports: kinds and names, without addresses.
sub symbols_of
{
	my ($library) = @_;

	return [ map { /^(\S+ \w)/ } @{ lines_of('nm', '-D', '--defined-only', '-f', 'posix', $library) } ];
}

# Every file below, with its time.
sub state_of
{
	my ($where) = @_;

	return lines_of('find', $where, '-type', 'f', '-printf', '%P %s %T@\n');
}

copy_sources("$dir/plain");
make('builds in the folder of the sources', '-C', "$dir/plain");
make('and installs', '-C', "$dir/plain", 'install', "DESTDIR=$dir/plain_root");
my $symbols = symbols_of("$dir/plain/datamart_users.so");
my $installed = lines_of('find', "$dir/plain_root", '-type', 'f', '-printf', '%P\n');
is_deeply(
	[ grep { my $name = $_; !grep { $_ eq "$name T" } @$symbols }
		  qw(Pg_magic_func _PG_init datamart_users_run_cycle) ],
	[], 'with its functions');

copy_sources("$dir/clean");
mkdir "$dir/clean/b";
system_or_bail('chmod', '-R', 'a-w', "$dir/plain");

# Where the build is, and where make is told that the sources are.
foreach my $case (
	[ 'below the sources', "$dir/clean/b", '-f', '../Makefile', 'VPATH=..' ],
	[
		'beside sources built before and not to be written to',
		"$dir/beside", '-f', '../plain/Makefile', 'VPATH=../plain'
	])
{
	my ($what, $build, @where) = @$case;
	my $before = state_of("$dir/plain");

	mkdir $build;
	make("builds $what", '-C', $build, @where);
	is_deeply(symbols_of("$build/datamart_users.so"), $symbols, "the same functions $what");
	make("installs $what", '-C', $build, @where, 'install', "DESTDIR=$build/root");
	is_deeply(lines_of('find', "$build/root", '-type', 'f', '-printf', '%P\n'),
		$installed, "the same files $what");
	is_deeply(state_of("$dir/plain"), $before, "nothing is written to the sources $what");
}

# Other ways to say where they are come to the same.
mkdir "$dir/dry";
foreach my $where ([ '-f', "$dir/plain/Makefile", "VPATH=$dir/plain" ],
	[ '-f', '../plain/Makefile' ],
	[ '-f', "$dir/plain/Makefile" ])
{
	my $output = make("would build with @$where", '-n', '-C', "$dir/dry", @$where);

	is( scalar(() = $output =~ / -c -o src\/\w+\.o /g),
		scalar(() = glob "$source/src/*.c"),
		'every source');
}

make('removes what it built', '-C', "$dir/clean/b", '-f', '../Makefile', 'VPATH=..', 'clean');
ok(!-e "$dir/clean/b/datamart_users.so", 'and nothing is left of it');
ok(-e "$dir/plain/datamart_users.so", 'but of the other');

# Sources that are not there are no empty library.
mkdir "$dir/empty";
system_or_bail('cp', "$source/Makefile", "$dir/empty");
command_fails_like([ 'make', @options, '-C', "$dir/empty" ],
	qr/there is no \S*src\/caller\/\*\.c/, 'no library without sources');

# One test of each kind, against the extension that is installed.
my $node = PostgreSQL::Test::Cluster->new('elsewhere');
$node->init;
$node->start;
{
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	my ($spec) = map { /([^\/]+)\.spec$/ } sort glob "$source/test/isolation/specs/*.spec";

	make('tests itself from another folder',
		'-C', "$dir/beside", '-f', '../plain/Makefile', 'VPATH=../plain',
		'installcheck', 'REGRESS=setup', "ISOLATION=$spec", 'PROVE_TESTS=test/t/080_exporter.pl');
}
$node->stop;
system_or_bail('chmod', '-R', 'u+w', "$dir/plain");
done_testing();
