# The README: its first five minutes run as they stand; and doc/img/report.svg is
# what test/picture.sh draws of the report that it has in its description.

use strict;
use warnings;

use Cwd qw(abs_path);
use Encode qw(decode_utf8);
use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = abs_path("$FindBin::Bin/../..");
my $folder = PostgreSQL::Test::Utils::tempdir();
my $readme = slurp_file("$source/README.md");

#
# From CREATE EXTENSION to the report.
#
my ($minutes) = $readme =~ /^## Five minutes to the first cycle\n(.*?)^## /ms;
my @blocks = $minutes =~ /^```sql\n(.*?)^```$/gms;
my ($create) = grep { /CREATE EXTENSION/ } @blocks;
my ($grants) = grep { /^GRANT/m } @blocks;
my ($go) = grep { /FROM datamart_users_check/ } @blocks;
my ($service) = grep { /SELECT datamart_users_start_service/ } @blocks;

my $node = new_node('readme');
$node->safe_psql('postgres', 'CREATE DATABASE warehouse; CREATE ROLE etl LOGIN');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('warehouse'),
		'-v', 'users=60', '-v', 'facts=1500', '-f', "$source/test/fixtures/warehouse.sql" ], 'a warehouse');

# What these statements print and say, in a session of that role.
sub answer_of
{
	my ($role, $statements) = @_;
	my ($stdout, $stderr) = ('', '');

	IPC::Run::run([ $node->installed_command('psql'), '-XAtq', '-v', 'ON_ERROR_STOP=1', '-U', $role, '-d', $node->connstr('warehouse') ],
		'<', \$statements, '>', \$stdout, '2>', \$stderr, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	is($stderr =~ s/^NOTICE: .*\n//mgr, '', "run as $role: " . (split /\n/, $statements)[0]);
	return $stdout;
}

my $owner = $node->safe_psql('postgres', 'SELECT current_user');
answer_of($owner, $create);
answer_of($owner, $grants);
# "the role also needs those that the procedure uses"
answer_of($owner, 'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dwh TO etl');
my $answer = answer_of('etl', $go);
unlike($answer, qr/^[^|\n]*\|error\|/m, 'the doctor finds no error');
like($answer, qr/^Cycle 1: completed after /m, 'the report is that of the first cycle');
is($node->safe_psql('warehouse', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), '0', 'everybody is refreshed');
is(answer_of('etl', $service), "t\nt\n", 'a service starts and ends');
$node->stop;

#
# The picture.
#
sub draw
{
	my ($report) = @_;
	my ($stdout, $stderr) = ('', '');

	open my $out, '>:raw', "$folder/report" or die "$folder/report: $!";
	print $out $report;
	close $out or die "$folder/report: $!";
	IPC::Run::run([ 'bash', "$source/test/picture.sh", '--text', "$folder/report", '--output', '-' ],
		'<', \undef, '>', \$stdout, '2>', \$stderr)
	  or die "picture.sh failed: $stderr";
	is($stderr, '', 'drawn without a word');
	return $stdout;
}

sub unescape { return $_[0] =~ s/&lt;/</gr =~ s/&gt;/>/gr =~ s/&quot;/"/gr =~ s/&amp;/&/gr }

# What keeps a reader of XML from reading it, '' if nothing does.
sub fault
{
	my ($xml) = @_;
	my @open;

	while ($xml =~ /\G(?:<(\/?)(\w+)((?: [\w-]+="[^"<&]*")*)(\/?)>|((?:[^<&>]|&(?:amp|lt|gt|quot);)+))/gc)
	{
		next if defined $5 || $4;
		if (!$1) { push @open, $2 }
		elsif (($_ = pop @open) ne $2) { return "</$2> ends <$_>" }
	}
	return 'nothing like XML at: ' . substr($xml, pos($xml) // 0, 40) if (pos($xml) // 0) < length $xml;
	return @open ? "open: @open" : '';
}

like($readme, qr/\]\(doc\/img\/report\.svg\)/, 'the README shows it');

my $picture = slurp_file("$source/doc/img/report.svg");
my ($report) = $picture =~ /<desc id="desc">\n(.*?)<\/desc>/s;

like($report, qr/^Cycle 1: completed after .*^By priority .*^Refresh times: .*^The slowest datamart users/ms, 'it is the report of a cycle');
like($picture, qr/aria-labelledby="title desc"/, 'and has a title and a description for those who do not see it');
is(fault($picture), '', 'it can be read');
is(draw(unescape($report)), $picture, 'and is what picture.sh draws of that report');

# Nothing in a report can become a part of the drawing.
my $odd = <<'TEXT';
Cycle 1: failed after 1 s
  </desc><script>alert("&amp;")</script> & <b> > 'c' $(id) `id` \ % *  ██░░
  a message of more than eighty columns, ≤ 100 ms, äöü, and some words more so that it is long enough
TEXT
$picture = draw($odd);
is(fault($picture), '', 'a report with markup can be read');
unlike($picture, qr/<script|<b>/, 'and is none');
is(unescape(($picture =~ /<desc id="desc">\n(.*?)<\/desc>/s)[0]), $odd, 'its text is complete');

my ($width) = $picture =~ /viewBox="0 0 ([\d.]+)/;
my $right = 0;
my $characters = 0;
while ($picture =~ /<text class="[^"]*" x="([\d.]+)" y="[\d.]+" textLength="([\d.]+)">([^<]*)<\/text>/g)
{
	$right = $1 + $2 if $1 + $2 > $right;
	$characters += length(decode_utf8(unescape($3)) =~ s/\s//gr);
}
cmp_ok($right, '<', $width, 'nothing sticks out');
is($characters, length(decode_utf8($odd . 'psql warehouse=> SELECT datamart_users_report();') =~ s/\s//gr), 'all of it is drawn');

done_testing();
