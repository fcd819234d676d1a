#!/usr/bin/env perl
#
# page.pl PAGE ANSWERS ask WHEN | show | write
#
# For test/week.sh.  "ask" runs the examples of the page that are to be asked
# then, in the database "warehouse" of the server that the environment names,
# and keeps what comes back in the folder ANSWERS; "show" prints all of them,
# "write" the page with them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/perl";

use MonitoringPage;

my ($path, $answers, $what, $when) = @ARGV;
my @parts = read_page($path);

binmode STDOUT, ':encoding(UTF-8)';

# All of an example in one session, since it may begin with settings.
sub ask
{
	my ($part, $file) = @_;
	my $script = "$file.sql";

	open my $out, '>:encoding(UTF-8)', $script or die "$script: $!";
	print $out "\\echo \@\@\n$_->{sql}" foreach @{ $part->{statements} };
	close $out or die "$script: $!";
	system("psql -X -q -v ON_ERROR_STOP=1 -P footer=off -d warehouse -f $script >$file 2>&1") == 0
	  or die "an example of $path fails:\n" . read_answer($file);
	return;
}

sub read_answer
{
	my ($file) = @_;

	local $/;
	open my $in, '<:encoding(UTF-8)', $file or die "$file: $!";
	return <$in>;
}

sub answered
{
	my ($part, $file) = @_;
	my (undef, @outputs) = split /^\@\@\n/m, read_answer($file);

	$part->{statements}->[$_]->{output} = $outputs[$_] // '' for 0 .. $#{ $part->{statements} };
	return;
}

foreach my $number (0 .. $#parts)
{
	my $part = $parts[$number];
	my $file = "$answers/$number";

	if (exists $part->{text}) { print $part->{text} if $what eq 'write'; }
	elsif ($what eq 'ask') { ask($part, $file) if $part->{when} eq $when; }
	else
	{
		answered($part, $file) if -e $file;
		print "\n== $part->{heading}\n\n" if $what eq 'show' && -e $file;
		print page_text($part) if $what eq 'write' || -e $file;
	}
}
