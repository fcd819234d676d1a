# Words.  One of a thing is not several.  Texts in other languages, in reports
# and in what the doctor says: every character that the client's encoding has is
# shown, none that would spoil a line, and nothing that the client lacks keeps
# the rest from arriving.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use Encode;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use utf8;

my $node = new_node('words', init => { extra => [ '--encoding=UTF8', '--no-locale' ] });

# What Perl calls the encodings.
my %perl_name = (
	UTF8 => 'UTF-8',
	LATIN1 => 'iso-8859-1',
	LATIN9 => 'iso-8859-15',
	EUC_JP => 'euc-jp',
	SJIS => 'shiftjis',
	KOI8R => 'koi8-r',
	WIN1251 => 'cp1251',
	SQL_ASCII => 'ascii');

my %texts = (
	german => 'Wert außerhalb des Bereichs für Länge – „größer“ als 5 €',
	russian => 'ошибка: деление на ноль',
	japanese => '関係"利用者"は存在しません');

# A text as a client can show it: a question mark for each character that it
# lacks.
sub as_shown
{
	my ($text, $encoding) = @_;

	return join '', map {
		my $character = $_;
		defined eval { encode($perl_name{$encoding}, $character, Encode::FB_CROAK | Encode::LEAVE_SRC) } ? $character : '?';
	} split //, $text;
}

# What a client of that encoding gets, as bytes.
sub ask
{
	my ($database, $encoding, $sql) = @_;
	my ($stdout, $stderr);

	local $ENV{PGCLIENTENCODING} = $encoding;
	my $status = $node->psql($database, $sql, stdout => \$stdout, stderr => \$stderr);
	is($status, 0, "$database, $encoding: no error") or diag($stderr);
	return $stdout;
}

# Compares characters, as bytes that the output of the test can have.
sub same
{
	my ($got, $expected, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(encode('UTF-8', $got), encode('UTF-8', $expected), $what);
}

sub add_database
{
	my ($database, $encoding) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	$node->safe_psql($database, <<'SQL');
CREATE EXTENSION datamart_users;
INSERT INTO datamart_users_cycles (cycle_id, status, role_name, started_at, finished_at, found, backlog, processed, failed, skipped, deferred, users_oid, users_table)
OVERRIDING SYSTEM VALUE VALUES (1, 'failed', 'etl', now(), now(), 8, 9, 8, 0, 0, 0, 0, 'dwh.dimension_users');
INSERT INTO datamart_users_cycle_priorities (cycle_id, priority, found, processed, failed, skipped, deferred, total_time, max_time)
VALUES (1, 'high', 8, 4, 4, 0, 0, '1s', '1s');
INSERT INTO datamart_users_cycle_profiles (cycle_id, p50, p95, p99, bucket_upto, bucket_count, sample_width, samples)
VALUES (1, '9ms', '790ms', '790ms', '{9ms,917ms}', '{5,1}', '1s', '{1,2,3,4,5,6,7,8}');
SQL
	return;
}

# The message of the cycle, given as bytes of the database's encoding, and the
# line that a client of an encoding gets for it.
sub message_of
{
	my ($database, $encoding, $bytes) = @_;

	$node->safe_psql($database,
		sprintf q(UPDATE datamart_users_cycles SET message = convert_from('\x%s', getdatabaseencoding())), unpack 'H*', $bytes);
	return (split /\n/, ask($database, $encoding, 'SELECT datamart_users_report(1)'))[1] =~ s/^  //r;
}

sub shows
{
	my ($database, $database_encoding, $client, $text, $expected, $what) = @_;
	my $line = message_of($database, $client, encode($perl_name{$database_encoding}, $text, Encode::FB_CROAK | Encode::LEAVE_SRC));

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	same(decode($perl_name{$client}, $line), $expected, "$database_encoding to $client: $what");
	return;
}

#
# What all have in common is shown to each.
#
my %databases = (
	UTF8 => {
		clients => [qw(UTF8 LATIN1 LATIN9 EUC_JP SJIS KOI8R WIN1251 SQL_ASCII)],
		texts => \%texts
	},
	LATIN1 => {
		clients => [qw(UTF8 LATIN1 SQL_ASCII)],
		texts => { german => 'Wert außerhalb des Bereichs: »größer« als 5 §' }
	},
	EUC_JP => {
		clients => [qw(UTF8 EUC_JP SJIS SQL_ASCII)],
		texts => { russian => $texts{russian}, japanese => $texts{japanese} }
	},
	WIN1251 => {
		clients => [qw(UTF8 WIN1251 KOI8R)],
		texts => { russian => "$texts{russian} – 5 €" }
	});
foreach my $encoding (sort keys %databases)
{
	my $database = lc "db_$encoding";
	my ($clients, $texts) = @{ $databases{$encoding} }{qw(clients texts)};

	add_database($database, $encoding);
	foreach my $client (@$clients)
	{
		shows($database, $encoding, $client, $texts->{$_}, as_shown($texts->{$_}, $client), $_)
		  foreach sort keys %$texts;
	}
}

#
# What is not to be seen is not, in whichever encoding it comes.
#
foreach my $client (qw(UTF8 LATIN1 EUC_JP KOI8R SQL_ASCII))
{
	shows('db_utf8', 'UTF8', $client, "a\x{202e}b\x{200b}c\x{2028}d\x{3000}e\x{00ad}f\x{0085}g\x{00a0}h",
		'a?b?c d e?f g h', 'invisible');
}
shows('db_latin1', 'LATIN1', 'UTF8', "a\x{ad}b\x{85}c\x{a0}d", 'a?b c d', 'invisible');
shows('db_latin1', 'LATIN1', 'LATIN1', "a\x{ad}b\x{85}c\x{a0}d", 'a?b c d', 'invisible');
shows('db_euc_jp', 'EUC_JP', 'EUC_JP', "関\x{3000}係", '関 係', 'blank');
shows('db_win1251', 'WIN1251', 'WIN1251', "a\x{ad}b\x{a0}c", 'a?b c', 'invisible');

#
# A text that is too long is cut by the columns that it takes.
#
shows('db_utf8', 'UTF8', $_, '関係' x 40, '関係' x 18 . '関...', 'cut') foreach qw(UTF8 EUC_JP);
shows('db_utf8', 'UTF8', 'LATIN1', 'ж' x 80, '?' x 75 . '...', 'cut');
shows('db_utf8', 'UTF8', 'LATIN1', 'ä' x 78, 'ä' x 78, 'not cut');

#
# A database in SQL_ASCII has bytes: they are shown to a client in whose
# encoding they are characters.
#
add_database('db_ascii', 'SQL_ASCII');
foreach my $text (map { $texts{$_} } sort keys %texts)
{
	my $bytes = encode('UTF-8', $text);
	same(decode('UTF-8', message_of('db_ascii', 'UTF8', $bytes)), $text, 'SQL_ASCII to UTF8');
	is(message_of('db_ascii', 'SQL_ASCII', $bytes), $bytes =~ s/[\x80-\xff]/?/gr, 'SQL_ASCII to SQL_ASCII');
}
is(message_of('db_ascii', 'UTF8', "au\xdfer"), 'au?er', 'bytes of another encoding');
is(message_of('db_ascii', 'UTF8', "\xc3"), '?', 'half a character');
is(message_of('db_ascii', 'LATIN1', "au\xdfer"), "au\xdfer", 'bytes of that encoding');
is(message_of('db_ascii', 'UTF8', "a\xe2\x80\xaeb"), 'a?b', 'direction');
is(message_of('db_ascii', 'LATIN1', "a\xadb\x9bc"), 'a?b c', 'controls');

#
# Block characters are drawn where they can be.
#
sub drawn
{
	my ($database, $client) = @_;
	my $report = decode($perl_name{$client}, ask($database, $client, 'SELECT datamart_users_report(1)'));

	return join ' ', $report =~ /^  high .* (\S+)$/m, $report =~ /^  (\S+) 1 s\b/m, $report =~ /highest.*\n  (\S+)/;
}
same(drawn('db_utf8', 'UTF8'), '██████░░░░░░ ≤ ▁▂▃▄▅▆▇█', 'blocks in UTF8');
same(drawn('db_utf8', 'KOI8R'), '██████░░░░░░ ≤ .:-=+*#@', 'those that KOI8R has');
same(drawn($_->[0], $_->[1]), '######...... <= .:-=+*#@', "none in $_->[0] to $_->[1]")
  foreach ([qw(db_utf8 LATIN1)], [qw(db_utf8 SQL_ASCII)], [qw(db_latin1 UTF8)], [qw(db_ascii UTF8)]);

#
# The doctor does not stumble over names that his client lacks.
#
$node->safe_psql('db_utf8', encode('UTF-8', <<'SQL'));
CREATE SCHEMA "склад";
CREATE TABLE "склад"."Größe" (action_dimension_id_user integer, action_at timestamptz);
CREATE TABLE "склад"."пользователи" (dimension_user_id integer PRIMARY KEY, modified boolean);
CREATE PROCEDURE "склад"."обновить"(integer) LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
SQL
$node->safe_psql('postgres', encode('UTF-8',
	q(ALTER DATABASE db_utf8 SET datamart_users.facts_table = 'склад."Größe"';
	  ALTER DATABASE db_utf8 SET datamart_users.users_table = 'склад.пользователи';
	  ALTER DATABASE db_utf8 SET datamart_users.procedure = 'склад.обновить')));
foreach my $client (qw(UTF8 LATIN1 KOI8R SQL_ASCII))
{
	my $findings = ask('db_utf8', $client, q(SELECT item, detail, hint FROM datamart_users_check() WHERE item LIKE '%table' OR item = 'facts index'));
	next if $client eq 'SQL_ASCII';
	my $name = as_shown('"склад"."Größe"', $client);
	like(decode($perl_name{$client}, $findings), qr/^facts table\|\Q$name\E, a table/m, "a detail for $client");
	like(decode($perl_name{$client}, $findings), qr/CREATE INDEX .* ON \Q$name\E/, "a hint for $client");
}

#
# One worker, one datamart user, one partition, one row.
#
add_warehouse($node, 'w', 2);
$node->safe_psql('w', <<'SQL');
ALTER TABLE dwh.facts RENAME TO facts_1;
CREATE TABLE dwh.facts (LIKE dwh.facts_1) PARTITION BY RANGE (action_at);
CREATE INDEX ON dwh.facts (action_dimension_id_user, action_at);
ALTER TABLE dwh.facts ATTACH PARTITION dwh.facts_1 DEFAULT;
TRUNCATE dwh.facts;
INSERT INTO dwh.facts VALUES (1, now());
CREATE TABLE dwh.one_user (LIKE dwh.dimension_users INCLUDING ALL);
INSERT INTO dwh.one_user VALUES (1);
ANALYZE;
SQL

# Findings of the doctor by their items.
sub findings
{
	my (@settings) = @_;

	return map { split /\|/, $_, 2 } split /\n/,
	  $node->safe_psql('w', join '', map({ "SET $_;" } @settings), 'SELECT item, detail FROM datamart_users_check()');
}

my $offset = -s $node->logfile;
my $gate = hold_gate($node, 'w');
my $client = start_psql($node, 'w', [ 'SET datamart_users.log_every_users = 1', 'SELECT datamart_users_run_cycle(1, 1)' ]);
wait_for_gate($node, 'w', 1);
my %said = findings('datamart_users.max_workers = 1', 'datamart_users.users_table = \'dwh.one_user\'');
like($said{locks}, qr/^1 worker waits for locks of process \d+$/, 'the doctor on locks');
like($said{'users table'}, qr/, a table with about 1 row$/, 'on rows');
is($said{'facts partitions'}, 'the only partition has the index', 'on partitions');
like($said{history}, qr/^1 cycle in /, 'on the history');
open_gate($gate);
finish($client);
my $log = substr slurp_file($node->logfile), $offset;
like($log, qr/\Q$_\E/, "log: $_")
  foreach (
	'found 1 datamart user to process',
	'using 1 worker for datamart users',
	'processed 1 datamart user (current: datamart user ',
	'completed successfully (1 datamart user processed)',
	'processed 1 of 1 datamart user (0 failed, 0 skipped, 0 deferred) with 1 worker in ');
my $report = $node->safe_psql('w', 'SELECT datamart_users_report()');
like($report, qr/^  asked for up to 1 datamart user, 1 worker$/m, 'the report on what was asked for');
like($report, qr/^  1 of the backlog still waits; held by back-off now: 0$/m, 'and on what is left');

# The rest of them, and many.
finish(start_psql($node, 'w', [ 'SET datamart_users.log_every_users = 1', 'SELECT datamart_users_run_cycle(1, 1)' ]));
%said = findings();
like($said{history}, qr/^2 cycles in /, 'two cycles');
like($said{'users table'}, qr/, a table with about 2 rows$/, 'two rows');
like($node->safe_psql('w', 'SELECT datamart_users_report()'), qr/^  0 of the backlog still wait;/m, 'none waits');

$node->stop;
done_testing();
