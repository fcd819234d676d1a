# Every query of doc/monitoring.md can be run, and has the columns that the page
# shows; so can those that the alerts name.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use IPC::Run;
use MonitoringPage;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = "$FindBin::Bin/../..";
my $node = new_node('page');

# A script of psql; returns what it prints and its messages.
sub run_script
{
	my ($script) = @_;
	my ($stdout, $stderr) = ('', '');

	IPC::Run::run(
		[ $node->installed_command('psql'), '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('warehouse') ],
		'<', \$script, '>', \$stdout, '2>', \$stderr);
	return ($stdout, $stderr);
}

# The names of columns in what psql has printed, whether in rows or by \gx.
sub columns_shown
{
	my ($output) = @_;
	my ($header, $rule) = split /\n/, $output;

	if (($header // '') =~ /^-\[ RECORD 1 \]/)
	{
		my ($record) = split /^-\[ RECORD 2 \].*$/m, $output;
		return map { /^(\w+) *\|/ ? $1 : () } split /\n/, $record;
	}
	return () unless ($rule // '') =~ /^-+(\+-+)*$/;
	return map { s/^\s+|\s+$//gr } split /\|/, $header;
}

sub columns_of
{
	my ($sql) = @_;
	my ($stdout) = run_script("$sql \\gdesc\n");

	return map { (split /\|/)[0] } split /\n/, $stdout;
}

add_warehouse($node, 'warehouse', 3);
behave($node, 'warehouse', 3, q(DO 'BEGIN RAISE ''bad data''; END'));
$node->safe_psql('warehouse', 'SELECT datamart_users_run_cycle(NULL, 1)') for 1 .. 2;

#
# The examples.
#
my $compared = 0;

foreach my $part (grep { exists $_->{statements} } read_page("$source/doc/monitoring.md"))
{
	my (undef, $stderr) = run_script(join '', map { $_->{sql} } @{ $part->{statements} });

	is($stderr, '', "under \"$part->{heading}\": runs");
	foreach my $statement (@{ $part->{statements} })
	{
		my @shown = columns_shown($statement->{output});
		my $sql = $statement->{sql} =~ s/\s*(?:;|\\g\w*(?: \(.*\))?)\s*\z//r;

		next unless @shown && $sql =~ /^SELECT/;
		is_deeply(\@shown, [ columns_of($sql) ], "under \"$part->{heading}\": the columns are " . join(', ', @shown));
		$compared++;
	}
}
cmp_ok($compared, '>=', 12, 'examples with columns');

#
# What stands in the text, and in the alerts.
#
my $text = slurp_file("$source/doc/monitoring.md");
my $alerts = slurp_file("$source/monitoring/alerts.yaml");
my @queries = ($text =~ /`(SELECT [^`]+)`/g, $alerts =~ /(SELECT [^;"]+;)/g);

cmp_ok(scalar @queries, '>=', 8, 'queries in the text and the alerts');
foreach my $query (@queries)
{
	$query =~ s/\{\{.*?\}\}/dwh.dimension_users/g;
	my (undef, $stderr) = run_script("$query;\n");
	is($stderr, '', $query);
}
foreach my $statements ($text =~ /^```sql\n(.*?)^```/msg)
{
	my (undef, $stderr) = run_script("BEGIN;\n$statements\nROLLBACK;\n");
	is($stderr, '', 'statements of the page: ' . (split /\n/, $statements)[0]);
}

$node->stop;
done_testing();
