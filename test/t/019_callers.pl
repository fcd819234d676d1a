# Cycles as drivers, pools and schedulers call them: in the blocks that those
# begin by themselves, through the extended protocol and its pipelines, without
# a snapshot, and with an exit status that tells of failures.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('callers');
my ($gate, $caller, $status, $stdout, $stderr);

add_warehouse($node, 'w', 3);

#
# What the caller's backend holds while it waits.
#
sub is_xmin
{
	my ($sql, $condition, $what, %options) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE');
	$gate = hold_gate($node, 'w');
	$caller = start_psql($node, 'w', $sql);
	wait_for_gate($node, 'w', 1);
	wait_for_sql($node, 'w', <<"SQL", $what);
SELECT backend_xmin $condition FROM pg_stat_activity
 WHERE application_name = 'caller' AND state = 'active'
SQL
	open_gate($gate);
	($status, $stdout, $stderr) = finish($caller);
	is($status, 0, $what) or diag($stderr);
	is(last_cycle($node, 'w', 'status, processed'), 'completed|3', "$what: all are processed");
	return;
}

my $loop = <<'SQL';
DO $$
DECLARE
	v_row record;
BEGIN
	FOR v_row IN SELECT 1 FROM dwh.dimension_users LIMIT 1 LOOP
		CALL datamart_users_run(max_workers => 1);
		PERFORM count(*) FROM dwh.dimension_users;
	END LOOP;
END;
$$
SQL

is_xmin('SELECT datamart_users_run_cycle(max_workers => 1)', 'IS NOT NULL', 'a SELECT holds a snapshot');
is_xmin('CALL datamart_users_run(max_workers => 1)', 'IS NULL', 'CALL holds none');
like($stderr, qr/^INFO: .*\bcompleted: backlog 3, found 3, processed 3, failed 0, skipped 0, deferred 0$/m, 'and tells the counts');
is_xmin([ 'BEGIN', 'SELECT 1', 'CALL datamart_users_run(max_workers => 1)', 'COMMIT' ], 'IS NULL', 'nor in a block');
is_xmin($loop, 'IS NULL', 'nor in a loop of PL/pgSQL');
is_xmin([ "SET default_transaction_isolation = 'repeatable read'", 'CALL datamart_users_run(max_workers => 1)' ],
	'IS NULL', 'nor where transactions keep theirs');
check_sane($node, 'w', 'snapshots');

# It is cancelled as a SELECT is, in the block, too.
for my $block (0, 1)
{
	my $what = $block ? 'CALL in a block' : 'CALL';

	reset_warehouse($node, 'w', 3);
	$gate = hold_gate($node, 'w');
	$caller = start_psql($node, 'w', [ $block ? 'BEGIN' : (), 'CALL datamart_users_run(max_workers => 1)' ]);
	wait_for_gate($node, 'w', 1);
	$node->safe_psql('w', q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'caller'));
	($status, $stdout, $stderr) = finish($caller);
	is(sqlstate($stderr), '57014', "$what: cancelled");
	open_gate($gate);
	wait_for_idle($node);
	is(last_cycle($node, 'w', 'status, processed'), 'cancelled|0', "$what: and so is the cycle");
	check_sane($node, 'w', "$what, cancelled");
}

# A lock that no look at the block tells of.
($status, $stdout, $stderr) = run_psql($node, 'w',
	[ 'BEGIN', 'SELECT pg_advisory_xact_lock(4711, 2)', 'CALL datamart_users_run(max_workers => 1)' ]);
is(sqlstate($stderr), '40P01', 'a refresh waits for an advisory lock of the block');
check_sane($node, 'w', 'deadlock');

#
# Exit status.
#
reset_warehouse($node, 'w', 3, 2 => q(DO $do$ BEGIN RAISE 'poison'; END; $do$));
for my $sql ('SELECT datamart_users_run_cycle()', 'CALL datamart_users_run()',
	'SELECT datamart_users_wait_cycle(datamart_users_start_cycle())')
{
	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE; SELECT datamart_users_retry()');
	($status, $stdout, $stderr) = run_psql($node, 'w', $sql);
	is($status, 0, "$sql: without the setting it ends well");

	$node->safe_psql('w', 'UPDATE dwh.dimension_users SET modified = TRUE; SELECT datamart_users_retry()');
	($status, $stdout, $stderr) = run_psql($node, 'w', [ 'SET datamart_users.error_on_failure = on', $sql ]);
	isnt($status, 0, "$sql: with it, it does not");
	is(sqlstate($stderr), '38000', "$sql: SQLSTATE");
	like($stderr, qr/^DETAIL: .*\bprocessed 2, failed 1\b/m, "$sql: counts");
	is($node->safe_psql('w', 'SELECT dimension_user_id FROM dwh.dimension_users WHERE modified'),
		'2', "$sql: everything processed stays");
}
check_sane($node, 'w', 'exit status');

#
# The extended protocol, in both forms that pgbench knows.
#
reset_warehouse($node, 'w', 3);

sub pgbench
{
	my ($mode, $script) = @_;
	my $file = $node->basedir . '/script';

	append_to_file("$file.new", $script);
	rename "$file.new", $file;
	my @command = ($node->installed_command('pgbench'), '-n', '-t', '2', '-M', $mode, '-f', $file, '-d', $node->connstr('w'));
	IPC::Run::run(\@command, '<', \undef, '>', \my $out, '2>', \my $err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $err;
}

my %scripts = (
	'alone' => 'SELECT datamart_users_run_cycle();',
	'procedure' => 'CALL datamart_users_run();',
	'block' => "BEGIN;\nSELECT datamart_users_run_cycle();\nCOMMIT;",
	'block with a statement before' => "BEGIN;\nSELECT 1;\nCALL datamart_users_run();\nSELECT datamart_users_run_cycle();\nCOMMIT;",
	'block in a pipeline' => "\\startpipeline\nBEGIN;\nSELECT 1;\nSELECT datamart_users_run_cycle();\nCOMMIT;\n\\endpipeline");

for my $mode ('extended', 'prepared')
{
	for my $what (sort keys %scripts)
	{
		my $messages = pgbench($mode, $scripts{$what});

		unlike($messages, qr/ERROR|aborted/, "$mode, $what") or diag($messages);
	}
	like(
		pgbench($mode, "\\startpipeline\nSELECT 1;\nSELECT datamart_users_run_cycle();\n\\endpipeline"),
		qr/cannot run inside a transaction block.*pipeline.*autocommit/s, "$mode: refused in a pipeline");
	like(
		pgbench($mode, "BEGIN;\nSELECT count(*) FROM dwh.facts;\nSELECT datamart_users_run_cycle();\nCOMMIT;"),
		qr/cannot run inside a transaction block.*"facts".*autocommit/s, "$mode: refused in a block that has read");
}
is($node->safe_psql('w', 'SELECT DISTINCT status FROM datamart_users_cycles WHERE cycle_id > (SELECT max(cycle_id) FROM datamart_users_cycles) - 20'),
	'completed', 'all those cycles were completed');
check_sane($node, 'w', 'pgbench');

# What no client here does, but pgjdbc with a fetch size: it leaves the unnamed
# portal of one statement there, and runs the next in one with a name.
sub message
{
	my ($type, $body) = @_;

	return $type . pack('N', length($body) + 4) . $body;
}

# One statement by the extended protocol; fetches "rows" of it, 0 for all.
sub statement
{
	my ($portal, $sql, $rows) = @_;

	return message('P', "\0$sql\0" . pack('n', 0))
	  . message('B', "$portal\0\0" . pack('nnn', 0, 0, 0))
	  . message('E', "$portal\0" . pack('N', $rows))
	  . message('S', '');
}

# All that the server answers to them, in one session.
sub converse
{
	my $socket = IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port)
	  or die "could not connect: $!";
	my $user = $node->safe_psql('w', 'SELECT session_user');
	my $answers = '';
	my $body = pack('N', 196608) . "user\0$user\0database\0w\0\0";

	for my $request (pack('N', length($body) + 4) . $body, @_)
	{
		my $type = '';

		$socket->print($request);
		$socket->flush;
		while ($type ne 'Z')
		{
			$socket->read(my $head, 5) == 5 or die 'the server has hung up';
			($type, my $length) = unpack('aN', $head);
			$socket->read(my $rest, $length - 4) if $length > 4;
			$answers .= $rest // '';
		}
	}
	$socket->close;
	return $answers =~ tr{\0-\37}{ }r;
}

my $begin = statement('', 'BEGIN', 0);
my $run = statement('a name', 'SELECT status FROM datamart_users_run_cycle()', 0);

like(converse($begin, statement('', 'SELECT 1', 0), $run), qr/completed/, 'an unnamed portal that was read to its end');
like(converse($begin, statement('', 'SELECT generate_series(1, 3)', 1), $run),
	qr/25001.*The block has cursor "" open/s, 'one that was not');
like(converse($begin, statement('other', 'SELECT 1', 0), $run), qr/25001.*The block has cursor "other" open/s, 'one with a name');

#
# The drivers of Python, with the defaults that people have.
#
my %python = (
	psycopg2 => <<'PYTHON',
import psycopg2, sys
connection = psycopg2.connect(sys.argv[1])
cursor = connection.cursor()
cursor.execute("SELECT status FROM datamart_users_run_cycle(%s)", (2,))
print(cursor.fetchone()[0])
cursor.execute("CALL datamart_users_run(%s, max_workers => %s)", (2, 1))
print(connection.notices[-1].split(":")[0])
connection.commit()
cursor.execute("SELECT count(*) FROM dwh.facts")
try:
    cursor.execute("SELECT * FROM datamart_users_run_cycle()")
except psycopg2.Error as error:
    print(error.pgcode, "autocommit" in error.diag.message_hint)
connection.rollback()
with connection.cursor("named") as named:
    named.execute("SELECT status FROM datamart_users_run_cycle()")
    print(named.fetchall()[0][0])
connection.rollback()
connection.autocommit = True
cursor.execute("CALL datamart_users_run()")
print("done")
PYTHON
	psycopg => <<'PYTHON',
import psycopg, sys
connection = psycopg.connect(sys.argv[1])
notices = []
connection.add_notice_handler(lambda notice: notices.append(notice.severity))
print(connection.execute("SELECT status FROM datamart_users_run_cycle(%s)", (2,)).fetchone()[0])
connection.execute("CALL datamart_users_run(%s, max_workers => %s)", (2, 1), prepare=True)
print(notices[-1])
connection.commit()
connection.execute("SELECT count(*) FROM dwh.facts")
try:
    connection.execute("SELECT * FROM datamart_users_run_cycle()")
except psycopg.Error as error:
    print(error.sqlstate, "autocommit" in error.diag.message_hint)
connection.rollback()
with connection.cursor("named") as named:
    named.execute("SELECT status FROM datamart_users_run_cycle()")
    print(named.fetchall()[0][0])
connection.rollback()
connection.autocommit = True
connection.execute("CALL datamart_users_run()", binary=True)
print("done")
PYTHON
);
my @pythons = ('python3', '/usr/bin/python3');

for my $module (sort keys %python)
{
	my ($python) = grep { system("$_ -c 'import $module' 2>/dev/null") == 0 } @pythons;

  SKIP:
	{
		skip "$module is not installed", 1 unless defined $python;
		reset_warehouse($node, 'w', 3);
		IPC::Run::run([ $python, '-c', $python{$module}, $node->connstr('w') ], '>', \$stdout, '2>', \$stderr,
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
		is($stdout, "completed\nINFO\n25001 True\ncompleted\ndone\n", "$module: in its block, refused, with a cursor of the server, in autocommit")
		  or diag($stderr);
		check_sane($node, 'w', $module);
	}
}

$node->stop;
done_testing();
