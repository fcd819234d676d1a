# What the TAP tests share: a small warehouse whose refresh can be held in its
# midst, clients that run beside the test, and what must hold after whatever
# a test does to a cycle.
#
# The procedure of the warehouse counts the facts, writes the datamart row,
# and then does what dwh.behaviour says of the datamart user (SQL text, any);
# before it returns it passes a gate: advisory locks that the test can hold.
# So a worker at the gate has written, and has not committed.
package DatamartUsersTest;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

our @EXPORT = qw(
  new_node add_warehouse reset_warehouse behave start_psql run_psql finish sqlstate
  hold_gate open_gate wait_for_gate wait_for_idle wait_for_sql backend_pid
  worker_pid worker_user last_cycle check_sane wait_for_server workers_sql pids_sql control_segments
);

use constant GATE => 4711;

# The processes of cycles, of all databases; 'coordinator' or 'worker' for those
# of one kind.  By the locks that they hold: pg_stat_activity does not know what
# a background worker is until the postmaster has noted down its pid.
sub pids_sql
{
	my ($kind) = @_;
	my $field = { coordinator => '= 3', worker => '= 5' }->{ $kind // '' } // '> 2';

	return "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid $field";
}

# How many there are, with those that have just begun or are about to exit.
sub workers_sql
{
	return "SELECT count(*) FROM (@{[pids_sql()]} UNION SELECT pid FROM pg_stat_activity"
	  . " WHERE backend_type IS NULL OR backend_type LIKE 'datamart_users %') p";
}

# A running server; settings are lines of postgresql.conf.  Options: conf,
# stopped, and for PostgreSQL::Test::Cluster what its new() and init() take.
sub new_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, %{ $options{new} // {} });

	$node->init(%{ $options{init} // {} });

	# Every dynamic segment is a file in the data directory, so that those
	# left over can be told from those of other servers on this machine.  And
	# whatever hangs ends in an error, since safe_psql() waits for ever.
	$node->append_conf('postgresql.conf', <<"CONF");
statement_timeout = ${PostgreSQL::Test::Utils::timeout_default}s
dynamic_shared_memory_type = mmap
restart_after_crash = on
max_connections = 30
max_worker_processes = 16
autovacuum = off
log_statement = none
datamart_users.progress_interval = 0
CONF
	$node->append_conf('postgresql.conf', $options{conf})
	  if defined $options{conf};
	$node->start unless $options{stopped};
	return $node;
}

# The small warehouse with that many datamart users, numbered from 1, each
# with one fact, the first one first in the queue; and the extension.  The
# database may be there already.
sub add_warehouse
{
	my ($node, $database, $users) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database")
	  if $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_database WHERE datname = '$database'") == 0;
	$node->safe_psql($database, <<"SQL");
CREATE SCHEMA dwh;
CREATE TABLE dwh.dimension_users (
	dimension_user_id integer PRIMARY KEY,
	modified boolean NOT NULL DEFAULT TRUE
);
CREATE TABLE dwh.facts (
	action_dimension_id_user integer,
	action_at timestamptz NOT NULL
);
CREATE INDEX ON dwh.facts (action_dimension_id_user, action_at);
CREATE TABLE dwh.datamartusers (
	dimension_user_id integer PRIMARY KEY,
	actions bigint NOT NULL,
	refreshed_by name NOT NULL DEFAULT current_user,
	refreshes integer NOT NULL DEFAULT 1
);
CREATE TABLE dwh.behaviour (
	dimension_user_id integer PRIMARY KEY,
	what text NOT NULL
);
CREATE PROCEDURE dwh.update_datamart_user(p_id integer)
LANGUAGE plpgsql
AS \$\$
DECLARE
	v_what text;
BEGIN
	INSERT INTO dwh.datamartusers AS d (dimension_user_id, actions)
	SELECT p_id, count(*) FROM dwh.facts WHERE action_dimension_id_user = p_id
	ON CONFLICT (dimension_user_id) DO UPDATE
	SET actions = excluded.actions, refreshed_by = excluded.refreshed_by,
		refreshes = d.refreshes + 1;

	SELECT what INTO v_what FROM dwh.behaviour WHERE dimension_user_id = p_id;
	IF FOUND THEN
		EXECUTE v_what;
	END IF;

	PERFORM pg_advisory_xact_lock_shared(@{[GATE]}, 0);
	PERFORM pg_advisory_xact_lock_shared(@{[GATE]}, p_id);
END;
\$\$;
CREATE EXTENSION datamart_users;
SQL
	fill_warehouse($node, $database, $users);
	return;
}

sub fill_warehouse
{
	my ($node, $database, $users) = @_;

	$node->safe_psql($database, <<"SQL");
INSERT INTO dwh.dimension_users SELECT generate_series(1, $users);
INSERT INTO dwh.facts
SELECT i, CURRENT_DATE - make_interval(secs => i) FROM generate_series(1, $users) i;
ANALYZE dwh.dimension_users, dwh.facts;
SQL
	return;
}

# The warehouse as it was, with that many datamart users; the history stays.
sub reset_warehouse
{
	my ($node, $database, $users, %behaviour) = @_;

	$node->safe_psql($database, <<"SQL");
TRUNCATE dwh.dimension_users, dwh.facts, dwh.datamartusers, dwh.behaviour;
DELETE FROM datamart_users_failures;
SQL
	fill_warehouse($node, $database, $users);
	behave($node, $database, $_, $behaviour{$_}) for keys %behaviour;
	return;
}

sub behave
{
	my ($node, $database, $id, $what) = @_;

	$node->safe_psql($database,
		"INSERT INTO dwh.behaviour VALUES ($id, \$what\$$what\$what\$)");
	return;
}

# A psql that runs beside the test, with one statement after the other in one
# session.  Options: name (of the application), user.
sub start_psql
{
	my ($node, $database, $sql, %options) = @_;
	my $client = { stdout => '', stderr => '' };
	my @command = (
		$node->installed_command('psql'),
		'-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose',
		'-d', $node->connstr($database));

	push @command, '-U', $options{user} if defined $options{user};
	push @command, '-c', $_ for (ref $sql ? @$sql : $sql);
	local $ENV{PGAPPNAME} = $options{name} // 'caller';
	$client->{run} = IPC::Run::start(
		\@command, '<', \undef,
		'>', \$client->{stdout},
		'2>', \$client->{stderr},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$client->{pid} = $client->{run}->{KIDS}->[0]->{PID};
	return $client;
}

# Waits for it to end; returns exit status, output, messages.
sub finish
{
	my ($client) = @_;

	$client->{run}->finish;
	chomp $client->{stdout};
	return ($client->{run}->full_result(0), $client->{stdout},
		$client->{stderr});
}

sub run_psql
{
	my ($node, $database, $sql, %options) = @_;

	return finish(start_psql($node, $database, $sql, %options));
}

# The SQLSTATE of the first error in messages, '' if there is none.
sub sqlstate
{
	my ($stderr) = @_;

	return $stderr =~ /(?:ERROR|FATAL|PANIC):\s+(\w{5}):/ ? $1 : '';
}

# Keeps every refresh (or that of one datamart user) from going on.
sub hold_gate
{
	my ($node, $database, $id) = @_;
	my $gate = $node->background_psql($database);

	$gate->query_safe(
		'SELECT pg_advisory_lock(' . GATE . ', ' . ($id // 0) . ')');
	return $gate;
}

# The server may have crashed under it.
sub open_gate
{
	my ($gate) = @_;

	eval { $gate->quit };
	return;
}

sub wait_for_sql
{
	my ($node, $database, $sql, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->poll_query_until($database, $sql)
	  or give_up("timed out waiting until $what");
	return;
}

sub give_up
{
	my ($message) = @_;

	fail($message);
	die $message;
}

# Until that many workers are in the midst of a refresh.
sub wait_for_gate
{
	my ($node, $database, $workers) = @_;

	wait_for_sql($node, $database, <<"SQL", "$workers workers are at the gate");
SELECT count(*) = $workers FROM pg_locks
WHERE locktype = 'advisory' AND classid = @{[GATE]} AND NOT granted
  AND database = (SELECT oid FROM pg_database WHERE datname = '$database')
SQL
	return;
}

# Until no process of any cycle is left.  Returns the seconds it took.
sub wait_for_idle
{
	my ($node) = @_;
	my $start = time;

	wait_for_sql($node, 'postgres', "SELECT (@{[workers_sql()]}) = 0",
		'no worker is left');
	return time - $start;
}

# After a crash: until it accepts connections again.
sub wait_for_server
{
	my ($node) = @_;

	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	# A psql that finds no server ends before it has read, which dies.
	until (eval { $node->psql('postgres', 'SELECT true') == 0 })
	{
		give_up('timed out waiting until the server is up again') if time > $deadline;
		usleep(50_000);
	}
	return;
}

sub backend_pid
{
	my ($node, $name) = @_;

	return $node->safe_psql('postgres', <<"SQL");
SELECT pid FROM pg_stat_activity
WHERE application_name = '$name' AND backend_type = 'client backend'
SQL
}

# Worker 1 is the coordinator.
sub worker_pid
{
	my ($node, $number) = @_;

	return $node->safe_psql('postgres', <<"SQL");
SELECT pid FROM pg_stat_activity
WHERE application_name ~ 'datamart_users cycle \\d+ worker $number\$'
SQL
}

# The datamart user that it is at.
sub worker_user
{
	my ($node, $number) = @_;

	return $node->safe_psql('postgres', <<"SQL");
SELECT substring(query from 'CALL dwh.update_datamart_user\\((\\d+)\\)')
FROM pg_stat_activity
WHERE application_name ~ 'datamart_users cycle \\d+ worker $number\$'
SQL
}

# Columns of the newest cycle's history row, joined by |.
sub last_cycle
{
	my ($node, $database, $columns) = @_;

	return $node->safe_psql($database,
		"SELECT $columns FROM datamart_users_cycles ORDER BY cycle_id DESC LIMIT 1"
	);
}

# Control segments of cycles, told by their magic (src/shared/queue.c) from those of
# the server itself.
sub control_segments
{
	my ($node) = @_;
	my $directory = $node->data_dir . '/pg_dynshmem';
	my $count = 0;

	foreach my $name (grep { /^mmap\./ } slurp_dir($directory))
	{
		open my $file, '<:raw', "$directory/$name" or next;
		read $file, my $magic, 8;
		close $file;
		$count++ if $magic eq "\x01tramtad";
	}
	return $count;
}

# What must hold whenever no cycle runs: no process, lock or segment left, and
# whoever is not modified has a right datamart row.
sub check_sane
{
	my ($node, $database, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for_idle($node);
	wait_for_sql($node, $database,
		"SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2",
		"no lock of a cycle is left");

	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	usleep(20_000) while (control_segments($node) > 0 && time < $deadline);
	is(control_segments($node), 0, "$what: no dynamic segment left");

	is( $node->safe_psql($database, <<'SQL'), '', "$what: nothing is lost");
SELECT dimension_user_id FROM dwh.dimension_users u
WHERE NOT modified AND (SELECT d.actions FROM dwh.datamartusers d
						WHERE d.dimension_user_id = u.dimension_user_id)
	IS DISTINCT FROM (SELECT count(*) FROM dwh.facts f
					  WHERE f.action_dimension_id_user = u.dimension_user_id)
ORDER BY 1
SQL
	return;
}

1;
