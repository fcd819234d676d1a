# What a release says of itself: META.json is what PGXN takes, names files that
# are there, and every file that has the version has the same one.

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = abs_path("$FindBin::Bin/../..");
my $meta = decode_json(slurp_file("$source/META.json"));

#
# https://pgxn.org/spec/, version 1.0.0: the keys there are, with their types;
# no others but X_ ones.
#
my $semver = qr/^(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-?[a-z][-0-9a-z]*)?$/i;
my $range = qr/^(?:(?:[<>]=?|[!=]=)?\s*\d+(?:\.\d+){0,2}(?:,\s*|$))+$/;
my $term = qr/^[^\/\\\s\x00-\x1f]{2,}$/;
my $uri = qr/^https?:\/\/[^\s]+$/;

sub text { return defined $_[0] && !ref $_[0] && length $_[0] }
sub one_of { my ($what, @names) = @_; return text($what) && grep { $_ eq $what } @names }

sub texts
{
	my ($what) = @_;
	return text($what) || ref $what eq 'ARRAY' && @$what && !grep { !text($_) } @$what;
}

# map_of VALUE NAME CHECK: an object of such names, whose values pass.
sub map_of
{
	my ($what, $name, $check) = @_;
	return ref $what eq 'HASH' && %$what
	  && !grep { $_ !~ $name || !$check->($what->{$_}) } grep { !/^x_/i } keys %$what;
}

# keys_of VALUE CHECKS REQUIRED: an object of these keys.
sub keys_of
{
	my ($what, $checks, @required) = @_;
	return ref $what eq 'HASH'
	  && !(grep { !exists $what->{$_} } @required)
	  && !grep { !$checks->{$_} || !$checks->{$_}->($what->{$_}) } grep { !/^x_/i } keys %$what;
}

sub like_text { my ($pattern) = @_; return sub { text($_[0]) && $_[0] =~ $pattern } }

my %spec = (
	'name' => like_text($term),
	'abstract' => \&text,
	'description' => \&text,
	'version' => like_text($semver),
	'maintainer' => sub { texts($_[0]) && !grep { !/^[^<>]+ <[^<>@\s]+@[^<>@\s]+>$/ } ref $_[0] ? @{ $_[0] } : $_[0] },
	'license' => sub { texts($_[0]) || map_of($_[0], qr/./, like_text($uri)) },
	'release_status' => sub { one_of($_[0], qw(stable testing unstable)) },
	'generated_by' => \&text,
	'tags' => sub { ref $_[0] eq 'ARRAY' && @{ $_[0] } && !grep { !text($_) || length > 255 } @{ $_[0] } },
	'no_index' => sub { map_of($_[0], qr/^(?:file|directory)$/, \&texts) },
	'provides' => sub {
		map_of($_[0], $term, sub {
			keys_of($_[0], { 'file' => \&text, 'version' => like_text($semver), 'abstract' => \&text, 'docfile' => \&text },
				'file', 'version');
		});
	},
	'prereqs' => sub {
		map_of($_[0], qr/^(?:configure|build|test|runtime|develop)$/, sub {
			map_of($_[0], qr/^(?:requires|recommends|suggests|conflicts)$/, sub { map_of($_[0], $term, like_text($range)) });
		});
	},
	'resources' => sub {
		keys_of($_[0], {
			'homepage' => like_text($uri),
			'bugtracker' => sub { %{ $_[0] } && keys_of($_[0], { 'web' => like_text($uri), 'mailto' => like_text(qr/^[^@\s]+@[^@\s]+$/) }) },
			'repository' => sub {
				keys_of($_[0], { 'url' => like_text(qr/^\w+:\/\/\S+$/), 'web' => like_text($uri), 'type' => like_text(qr/^[a-z]+$/) })
				  && (!exists $_[0]->{url} || exists $_[0]->{type});
			} });
	},
	'meta-spec' => sub { keys_of($_[0], { 'version' => like_text(qr/^1\.0\.\d+$/), 'url' => like_text($uri) }, 'version') });

for my $key (sort grep { !/^x_/i } keys %$meta)
{
	ok($spec{$key} && $spec{$key}->($meta->{$key}), "META.json: $key is as PGXN specifies");
}
# What PGXN demands, and what its pages show.
ok(exists $meta->{$_}, "META.json: has $_")
  for qw(name abstract version maintainer license provides meta-spec description release_status resources tags prereqs);

#
# The same version and the same files everywhere.
#
sub found
{
	my ($file, $pattern) = @_;
	return slurp_file("$source/$file") =~ $pattern ? $1 : "nothing like $pattern in $file";
}

my $provided = $meta->{provides}->{ $meta->{name} };
my ($short) = $meta->{version} =~ /^(\d+\.\d+)/;
my @pages = map { s/^\Q$source\E\///r } glob("$source/*.md $source/doc/*.md");

ok(-f "$source/$provided->{$_}", "META.json: its $_ is there") for qw(file docfile);
is($provided->{version}, $meta->{version}, 'what is provided has the version of the release');
is(found('datamart_users.control', qr/^default_version = '(.*)'$/m), $short, 'so has the control file');
is(found('Makefile', qr/^EXTVERSION = (.*)$/m), $short, 'and the Makefile');
is(found('CHANGELOG.md', qr/^## (\S+)/m), $short, 'and the first of the changes');
is($meta->{abstract} =~ s/^R/r/r, found('datamart_users.control', qr/^comment = '(.*)'$/m), 'the abstract is the comment of the extension');
SKIP:
{
	skip 'a release comes without debian/', 2 unless -d "$source/debian";
	is(found('debian/changelog', qr/^datamart-users \(([^)]*)-/), $meta->{version}, 'and the Debian package');
	my $template = slurp_file("$source/debian/control.in");
	my $control = slurp_file("$source/debian/control");
	$control =~ s/^Package: postgresql-\K\d+(?=-)/PGVERSION/m;
	is($control, $template, 'debian/control is what pg_buildext makes of its template');
}

# The workflow has no step but the scripts that are here.
SKIP:
{
	my $workflow = "$source/.github/workflows/ci.yml";

	skip 'a release comes without its workflow', 2 unless -e $workflow;
	my @runs = slurp_file($workflow) =~ /^ *(?:- )?run: *(.*)$/mg;
	my @others = grep { !/^bash (test\/\w+\.sh)( [-\w \${}.]+)?$/ || !-f "$source/$1" } @runs;
	is("@others", '', 'what the workflow runs is here');
	cmp_ok(scalar @runs, '>', 4, 'all of it');
}

# Links between the pages, and from them to what is here; an anchor is made of a
# heading as GitHub does it.  What stands in code is neither.
sub text_of { return slurp_file($_[0]) =~ s/^```.*?^```$//msgr }

sub anchors_of
{
	my %anchors;

	for my $heading (text_of($_[0]) =~ /^#+ (.*)$/mg)
	{
		my $anchor = lc($heading) =~ s/[^\w\s-]//gr =~ s/ /-/gr;
		my $before = $anchors{$anchor}++;
		$anchors{"$anchor-$before"} = 1 if $before;
	}
	return \%anchors;
}

my %linked;
for my $page (@pages)
{
	my $text = text_of("$source/$page") =~ s/`[^`]*`//gr;
	my ($folder) = $page =~ /^(.*\/)?/;
	my @lost;

	$folder //= '';
	while ($text =~ /\]\(([^()#\s]*)(?:#([^()\s]*))?\)/g)
	{
		my ($file, $anchor) = ($1, $2);
		next if $file =~ /^\w+:/;
		my $target = $file eq '' ? "$source/$page" : "$source/$folder$file";
		if (!-e $target)
		{
			push @lost, $file;
			next;
		}
		$linked{ abs_path($target) } = 1 if $file ne '';
		push @lost, "$file#$anchor"
		  if defined $anchor && $target =~ /\.md$/ && !anchors_of($target)->{$anchor};
	}
	is("@lost", '', "$page: its links lead somewhere");
}
is(join(' ', grep { $_ ne 'README.md' && !$linked{"$source/$_"} } @pages), '', 'each page is linked from another one');
is(join(' ', grep { !$linked{$_} } glob("$source/doc/img/*")), '', 'and each picture shown');

done_testing();
