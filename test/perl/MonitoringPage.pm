# The examples of a page of the documentation: the fenced blocks that begin with
# a prompt of psql.  test/t/041_monitoring_page.pl tries their statements,
# test/week.sh renews their output by test/page.pl.
#
# A comment before a block says when it was asked, unless that was after all of
# the week: <!-- week: running -->, <!-- week: blocked -->, or <!-- week: no -->
# for what is not from there.
package MonitoringPage;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(read_page page_text);

my $prompt = qr/^warehouse(=>|->) ?/;

# Returns a list of parts in order: { text } for what is no example, and for
# those { heading, when, statements }, each statement with its text as psql
# takes it and its output as the page has it.
sub read_page
{
	my ($path) = @_;
	my (@parts, $heading, $when, $block);

	open my $file, '<:encoding(UTF-8)', $path or die "$path: $!";
	push @parts, { text => '' };
	while (my $line = <$file>)
	{
		if (defined $block && $line =~ /^```/)
		{
			push @parts, $block, { text => $line };
			$block = undef;
		}
		elsif (defined $block && $line =~ s/$prompt//)
		{
			if ($1 eq '=>') { push @{ $block->{statements} }, { sql => $line, output => '' }; }
			else { $block->{statements}->[-1]->{sql} .= $line; }
		}
		elsif (defined $block) { $block->{statements}->[-1]->{output} .= $line; }
		elsif ($line =~ $prompt && $parts[-1]->{text} =~ /^```\n\z/m)
		{
			$block = { heading => $heading, when => $when // 'afterwards', statements => [] };
			redo;
		}
		else
		{
			$heading = $1 if $line =~ /^##+ (.*)/;
			$when = $1 if $line =~ /^<!-- week: (\w+) -->$/;
			$when = undef if $line =~ /^```\n\z/ && $parts[-1]->{text} !~ /<!-- week: \w+ -->\n\z/;
			$parts[-1]->{text} .= $line;
		}
	}
	return @parts;
}

# An example as it stands in the page.
sub page_text
{
	my ($part) = @_;
	my $text = '';

	return $part->{text} if exists $part->{text};
	foreach my $statement (@{ $part->{statements} })
	{
		my $output = $statement->{output} =~ s/\n+\z/\n/r;
		my $sql = $statement->{sql} =~ s/\n(?=.)/\nwarehouse-> /gr;

		$text .= "\n" if $text =~ /\n\z/ && $text !~ /\n\n\z/ && $text !~ /^warehouse.*\n\z/m;
		$text .= "warehouse=> $sql$output";
		$text .= "\n" if $output ne '' && $statement != $part->{statements}->[-1];
	}
	return $text;
}

1;
