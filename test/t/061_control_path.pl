# Installed into folders that the server knows by extension_control_path and
# dynamic_library_path (18), and nowhere else: the processes of a cycle find it
# there as well as the session does.

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my ($major) = qx($pg_config --version) =~ /^PostgreSQL (\d+)/;
plan skip_all => 'the server has no extension_control_path' if $major < 18;

# What the make that runs this test was told is not for the one below.
delete @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES REGRESS ISOLATION TAP_TESTS PROVE_TESTS)};

my $source = abs_path("$FindBin::Bin/../..");
my $folder = PostgreSQL::Test::Utils::tempdir();

# As the guide has it.
system_or_bail('make', '-s', '-C', $source, "PG_CONFIG=$pg_config", 'with_llvm=no',
	"datadir=$folder/share", "pkglibdir=$folder/lib", 'install');
ok(-f "$folder/share/extension/datamart_users.control", 'the control file is there');
ok(-f "$folder/lib/datamart_users.so", 'so is the library');

# Another file in its place tells which one was read.
my $control = "$folder/share/extension/datamart_users.control";
my $text = slurp_file($control) =~ s/^comment = '/comment = 'from the other folder: /mr;
unlink $control;
append_to_file($control, $text);

my $node = new_node('paths', conf => <<"CONF");
extension_control_path = '$folder/share:\$system'
dynamic_library_path = '$folder/lib:\$libdir'
CONF
add_warehouse($node, 'w', 20);
like($node->safe_psql('w', "SELECT comment FROM pg_available_extensions WHERE name = 'datamart_users'"),
	qr/^from the other folder/, 'the server takes it from there');
is($node->safe_psql('w', 'SELECT status, processed, workers FROM datamart_users_run_cycle(NULL, 2)'),
	'completed|20|2', 'a cycle runs');
is($node->safe_psql('w', "SELECT count(*) FROM datamart_users_check() WHERE status = 'error'"), 0, 'and the doctor is content');
SKIP:
{
	skip 'no /proc', 1 unless -e '/proc/self/maps';
	my $session = $node->background_psql('w');
	my $pid = $session->query_safe("SELECT pg_backend_pid() FROM datamart_users_progress RIGHT JOIN (VALUES (1)) v ON true");
	like(slurp_file("/proc/$pid/maps"), qr/\Q$folder\E\/lib\/datamart_users\.so/, 'the session has the library from there');
	$session->quit;
}
check_sane($node, 'w', 'paths');
$node->stop;

done_testing();
