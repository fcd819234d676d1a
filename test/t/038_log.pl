# What a cycle writes into the server log, where several databases and cycles
# write, and where the server is told to write much.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('log');
my ($offset, $log);

# Each line begins with what wrote it.
$node->append_conf('postgresql.conf', <<'CONF');
log_line_prefix = '<%b %p> '
log_lock_waits = on
deadlock_timeout = 10ms
log_min_messages = info
log_statement = all
log_duration = on
log_min_duration_statement = 0
log_min_error_statement = warning
CONF
$node->restart;
add_warehouse($node, 'w', 40);
$node->safe_psql('postgres', 'CREATE DATABASE "two words"');
$node->safe_psql('two words', 'CREATE EXTENSION datamart_users');

sub log_since
{
	my ($from) = @_;

	return slurp_file($node->logfile, $from);
}

# What the processes of cycles wrote, a message each, with the lines that
# belong to it.
sub messages
{
	my ($text) = @_;
	my @messages;

	foreach my $line (split /\n/, $text)
	{
		push @messages, $line if $line =~ /^<.*> (?:LOG|WARNING|INFO|ERROR|FATAL):/;
		$messages[-1] .= "\n$line" if @messages && $line !~ /^<.*> (?:LOG|WARNING|INFO|ERROR|FATAL):/;
	}
	return grep { /^<datamart_users / } @messages;
}

# A cycle of forty with one that fails: a line for each step and each failure,
# one for every tenth datamart user of a worker.
behave($node, 'w', 7, q(DO 'BEGIN RAISE ''bad data''; END'));
$offset = -s $node->logfile;
$node->safe_psql('w', 'ALTER DATABASE w SET datamart_users.log_every_users = 10');
my $cycle = $node->safe_psql('w', 'SELECT cycle_id FROM datamart_users_run_cycle(1000, 2)');
wait_for_idle($node);
my @lines = messages(log_since($offset));
my $begins = qr/datamart_users cycle $cycle in database "w"/;
is(scalar(grep { !/^<datamart_users \w+ \d+> \w+:  $begins(?:, worker [12])?: / } @lines), 0, 'each tells database and cycle')
  or diag(join "\n", @lines);
my @progress = grep { /: processed \d+ datamart users \(current/ } @lines;
cmp_ok(scalar @progress, '>=', 2, 'how far the workers are');
is(scalar @lines - @progress, 6, 'found, workers, a failure, the end of each worker and of the cycle')
  or diag(join "\n", @lines);
is(scalar(grep { /STATEMENT:/ && !/WARNING:/ } @lines), 0, 'no statement is behind what is about none');
is(scalar(grep { /CONTEXT:/ && !/WARNING:/ } @lines), 0, 'and no context');
my ($failure) = grep { /WARNING:/ } @lines;
like($failure, qr/, worker [12]: failed to process datamart user 7: bad data$/m, 'the failure');
like($failure, qr/CONTEXT:  PL\/pgSQL function/, 'has the context of the error');
like($failure, qr/STATEMENT:  CALL dwh\.update_datamart_user\(7\)/, 'and its statement');

# Two cycles at once.
$node->safe_psql('two words', <<'SQL');
CREATE SCHEMA dwh;
CREATE TABLE dwh.dimension_users (dimension_user_id int PRIMARY KEY, modified bool);
CREATE TABLE dwh.facts (action_dimension_id_user int, action_at timestamptz);
CREATE PROCEDURE dwh.update_datamart_user(int) LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(4711, 0)';
INSERT INTO dwh.dimension_users VALUES (1, true);
SQL
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = true WHERE dimension_user_id < 3');
my %gates = map { $_ => hold_gate($node, $_) } 'w', 'two words';
$offset = -s $node->logfile;
$node->safe_psql($_, 'SELECT datamart_users_start_cycle(1000, 1)') foreach keys %gates;
wait_for_gate($node, $_, 1) foreach keys %gates;
open_gate($_) foreach values %gates;
wait_for_idle($node);
@lines = messages(log_since($offset));
foreach my $database (keys %gates)
{
	is(scalar(grep { /datamart_users cycle \d+ in database "$database": completed, / } @lines), 1, "the end of the one in $database");
}

# A worker that waits for a lock says so once, however long it waits, though
# limits are set, and once more when it has got it.
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = dimension_user_id = 1');
my $gate = hold_gate($node, 'w', 1);
$offset = -s $node->logfile;
my $client = start_psql($node, 'w', ["SET datamart_users.user_timeout = '1h'", 'SELECT status FROM datamart_users_run_cycle(1, 1)']);
$node->wait_for_log(qr/<datamart_users coordinator \d+> LOG:  process \d+ still waiting for ShareLock/, $offset);
foreach my $other (1 .. 5)
{
	# It waits, and says so, later than the worker.
	my $from = -s $node->logfile;
	my $waiter = start_psql($node, 'w', 'SELECT pg_advisory_lock_shared(4711, 1)');
	$node->wait_for_log(qr/<client backend \d+> LOG:  process \d+ still waiting for ShareLock/, $from);
	$waiter->{run}->signal('TERM');
	eval { $waiter->{run}->finish };
}
open_gate($gate);
is((finish($client))[1], 'completed', 'a cycle that waits for a lock');
wait_for_idle($node);
@lines = messages(log_since($offset));
is(scalar(grep { /still waiting/ } @lines), 1, 'one line when it waits');
is(scalar(grep { /acquired ShareLock/ } @lines), 1, 'one when it does no longer');
is(scalar @lines, 6, 'and the four of a cycle') or diag(join "\n", @lines);

# So a wait while the cycle is to stop, for a procedure that does not heed the
# cancel.
behave($node, 'w', 1, q(DO $body$ BEGIN PERFORM pg_advisory_xact_lock(4711, 99); EXCEPTION WHEN query_canceled THEN PERFORM pg_advisory_xact_lock(4711, 99); END $body$));
$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = dimension_user_id = 1');
$gate = hold_gate($node, 'w', 99);
$offset = -s $node->logfile;
$cycle = $node->safe_psql('w', 'SELECT datamart_users_start_cycle(1, 1)');
$node->wait_for_log(qr/<datamart_users coordinator \d+> LOG:  process \d+ still waiting for ExclusiveLock/, $offset);
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', 'such a cycle is cancelled');
wait_for_idle($node);
open_gate($gate);
@lines = grep { /still waiting/ } messages(log_since($offset));
cmp_ok(scalar @lines, '<=', 2, 'a line for each of the two waits');

$node->stop;
done_testing();
