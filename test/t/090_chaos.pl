# Chaos: a live ETL that empties a table and fills it again, cycles back to
# back, and in every other round a service in their place, a procedure that fails, sleeps, deadlocks, swallows errors, releases
# locks and leaves its session in disorder, and somebody who cancels, terminates, shoots
# and restarts whatever there is, at random.  After each round everything has
# to come to rest by itself, and then
#
#	a	no datamart user is lost: whoever is not modified has a datamart row
#		that agrees with all committed facts, no row is torn, and none was
#		made of a table that only looked empty;
#	b	what a cycle reports as processed is what was committed in it, and what
#		was returned to a caller has survived every crash since;
#	c	no process, lock or segment of a cycle is left;
#	d	the history adds up, and the next cycle closes what was left open.
#
# DMU_CHAOS_SECONDS	how long (default 100, about two minutes with all)
# DMU_CHAOS_ONLY	'cycles' or 'service': that in all rounds
# DMU_CHAOS_SEED	another seed draws another sequence of events (default 1)
#
# The seed decides what is done, not when it happens to the server, so a run
# cannot be repeated exactly.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use constant {
	USERS => 60,
	WRITERS => 2,
	ROUND => 6,    # seconds of chaos before everything comes to rest
	REST => 60,    # seconds that it may take to
};

my $seconds = $ENV{DMU_CHAOS_SECONDS} || 100;
my $seed = $ENV{DMU_CHAOS_SEED} || 1;
srand($seed);

# Nothing flushes asynchronous commits before a crash, but a synchronous one.
my $node = new_node('chaos', conf => <<'CONF');
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
deadlock_timeout = 100ms
log_min_messages = fatal
CONF

$node->safe_psql('postgres', 'CREATE DATABASE w');
$node->safe_psql('w', <<"SQL");
CREATE SCHEMA dwh;
CREATE TABLE dwh.dimension_users (
	dimension_user_id integer PRIMARY KEY,
	modified boolean NOT NULL DEFAULT TRUE,
	refreshes integer NOT NULL DEFAULT 0
);
INSERT INTO dwh.dimension_users SELECT generate_series(1, @{[USERS]});
CREATE TABLE dwh.facts (
	action_dimension_id_user integer,
	action_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	amount integer NOT NULL
);
CREATE INDEX ON dwh.facts (action_dimension_id_user);
CREATE TABLE dwh.datamartusers (
	dimension_user_id integer PRIMARY KEY,
	actions bigint,		-- by the first statement of a refresh
	amount bigint,		-- by the last one
	rates bigint		-- of a table that never has any other number of rows
);
CREATE TABLE dwh.rates AS SELECT generate_series(1, 3) AS rate;
CREATE TABLE dwh.staging (id integer);

-- Written by every refresh, in its transaction.
CREATE TABLE dwh.audit (cycle_id bigint, dimension_user_id integer);
CREATE TABLE dwh.shared (id integer PRIMARY KEY, touched integer);
INSERT INTO dwh.shared VALUES (1, 0), (2, 0);
CREATE SEQUENCE dwh.calls;
CREATE TABLE dwh.etl_stop (stop boolean);
SQL

# In a cycle with chaos.enabled, every other refresh does something strange between
# its first and its last statement.
$node->safe_psql('w', <<"SQL");
CREATE PROCEDURE dwh.misbehave(p_id integer)
LANGUAGE plpgsql
AS \$\$
DECLARE
	-- 0 to 999, from the number of the call and not from the process.
	v_dice integer := (hashint8extended(nextval('dwh.calls'), $seed) & 1073741823) % 1000;
BEGIN
	IF v_dice < 30 THEN
		RAISE EXCEPTION 'refresh fails';
	ELSIF v_dice < 40 THEN
		COMMIT;
	ELSIF v_dice < 45 THEN
		-- Does not heed a cancel.
		FOR i IN 1 .. 3 LOOP
			BEGIN
				PERFORM pg_sleep(1.5);
			EXCEPTION WHEN query_canceled THEN
				NULL;
			END;
		END LOOP;
	ELSIF v_dice < 140 THEN
		PERFORM pg_sleep(v_dice / 2000.0);
	ELSIF v_dice < 240 THEN
		-- Two workers in opposite order are a deadlock.
		PERFORM FROM dwh.shared WHERE id = 1 + v_dice % 2 FOR UPDATE;
		PERFORM pg_sleep(0.02);
		PERFORM FROM dwh.shared WHERE id = 2 - v_dice % 2 FOR UPDATE;
	ELSIF v_dice < 250 THEN
		-- Workers collide with each other.
		UPDATE dwh.shared SET touched = touched + 1 WHERE id = 1;
	ELSIF v_dice < 300 THEN
		BEGIN
			UPDATE dwh.dimension_users SET refreshes = refreshes + 1 WHERE dimension_user_id = p_id;
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	ELSIF v_dice < 350 THEN
		UPDATE dwh.dimension_users SET refreshes = refreshes + 1 WHERE dimension_user_id = p_id;
	ELSIF v_dice < 370 THEN
		RAISE serialization_failure;
	ELSIF v_dice < 375 THEN
		RAISE lock_not_available;
	ELSIF v_dice < 420 THEN
		BEGIN
			PERFORM pg_sleep(0.05);
			PERFORM 1 / 0;
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	ELSIF v_dice < 500 THEN
		PERFORM pg_sleep(0.01);

	-- What only the first refresh of a session could do, if it stayed.
	ELSIF v_dice < 515 THEN
		EXECUTE 'PREPARE leftover AS SELECT 1';
	ELSIF v_dice < 530 THEN
		CREATE TEMPORARY TABLE leftover (id integer);
	ELSIF v_dice < 545 THEN
		CREATE TEMPORARY TABLE facts AS SELECT 1 AS action_dimension_id_user, 1 AS amount LIMIT 0;
		SET search_path = pg_temp, dwh;
	ELSIF v_dice < 560 THEN
		RESET ALL;
	ELSIF v_dice < 575 THEN
		SET datamart_users.history_retention = 1;
		SET datamart_users.user_timeout = 0;
		SET session_replication_role = replica;
	ELSIF v_dice < 595 THEN
		PERFORM pg_advisory_unlock_all();
	ELSIF v_dice < 605 THEN
		PERFORM pg_advisory_lock(7);
	ELSIF v_dice < 615 THEN
		TRUNCATE dwh.staging;
		INSERT INTO dwh.staging VALUES (p_id);
	END IF;
END;
\$\$;

CREATE PROCEDURE dwh.update_datamart_user(p_id integer)
LANGUAGE plpgsql
AS \$\$
DECLARE
	v_cycle bigint := substring(current_setting('application_name') from 'cycle (\\d+)')::bigint;
BEGIN
	INSERT INTO dwh.datamartusers AS d (dimension_user_id, actions)
	SELECT p_id, count(*) FROM dwh.facts WHERE action_dimension_id_user = p_id
	ON CONFLICT (dimension_user_id) DO UPDATE SET actions = excluded.actions;
	IF current_setting('chaos.enabled', true) = 'true' THEN
		CALL dwh.misbehave(p_id);
	END IF;
	UPDATE dwh.datamartusers
	SET amount = (SELECT coalesce(sum(amount), 0) FROM dwh.facts WHERE action_dimension_id_user = p_id),
		rates = (SELECT count(*) FROM dwh.rates)
	WHERE dimension_user_id = p_id;
	INSERT INTO dwh.audit VALUES (v_cycle, p_id);
END;
\$\$;

-- Facts and flags in one transaction, the flags whether they are set or not.
CREATE PROCEDURE dwh.etl(p_writer integer, p_commit text)
LANGUAGE plpgsql
AS \$\$
DECLARE
	v_ids integer[];
	v_id integer;
BEGIN
	PERFORM setseed(($seed % 1000 + p_writer) / 2000.0);
	LOOP
		PERFORM set_config('synchronous_commit', p_commit, true);
		v_ids := ARRAY(SELECT DISTINCT 1 + floor(random() * @{[USERS]})::integer
					   FROM generate_series(1, 1 + floor(random() * 4)::integer) ORDER BY 1);
		INSERT INTO dwh.facts (action_dimension_id_user, amount) SELECT unnest(v_ids), 1;
		FOREACH v_id IN ARRAY v_ids LOOP
			UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = v_id;
		END LOOP;
		PERFORM pg_sleep(CASE WHEN random() < 0.01 THEN 1.3 ELSE random() * 0.03 END);
		IF random() < 0.1 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
		EXIT WHEN EXISTS (SELECT FROM dwh.etl_stop);
		COMMIT;
		IF random() < 0.05 THEN
			TRUNCATE dwh.rates;
			INSERT INTO dwh.rates SELECT generate_series(1, 3);
			COMMIT;
		END IF;
		PERFORM pg_sleep(random() * 0.03);
	END LOOP;
END;
\$\$;
CREATE EXTENSION datamart_users;
SQL

my %count = map { $_ => 0 } qw(rounds cycles services cancels terminations crashes stops
  shot_clients etl_breaks checked);
my @violations;

# Of cycles that were returned to a caller: the row they had.
my %returned;

# Nothing but these may a caller be told.
my %expected = map { $_ => 1 } (
	'55006',    # another cycle runs
	'57014',    # cancelled
	'57P01',    # terminated
	'57P02',    # crash of another process
	'57P03',    # the server starts or shuts down
	'53000',    # no worker slot
	'');        # the connection broke

sub violation
{
	my ($what, $detail) = @_;

	push @violations, $what;
	diag("violation: $what", defined $detail && $detail ne '' ? "\n$detail" : '');
	return;
}

# On a server that may be down: the result, undef if there is none.
sub try_sql
{
	my ($sql, $database) = @_;
	my ($stdout, $stderr);

	# It dies where psql ends, for want of a server, before it has read.
	my $status = eval { $node->psql($database // 'w', $sql,
			stdout => \$stdout, stderr => \$stderr, on_error_die => 0) };

	return defined $status && $status == 0 ? $stdout : undef;
}

# Polls until it is true, for REST seconds at the most.
sub comes_true
{
	my ($condition) = @_;
	my $deadline = time + REST;

	until ($condition->())
	{
		return 0 if time > $deadline;
		usleep(50_000);
	}
	return 1;
}

# Whether a client has ended by itself.
sub has_ended
{
	my ($client) = @_;

	eval { $client->{run}->pump_nb if $client->{run}->pumpable };
	return !$client->{run}->pumpable;
}

sub random_of { return $_[ int rand @_ ]; }

#
# The ETL
#
my @writers;

sub tend_writers
{
	for my $i (0 .. WRITERS - 1)
	{
		next if $writers[$i] && !has_ended($writers[$i]);
		if ($writers[$i])
		{
			my (undef, undef, $stderr) = finish($writers[$i]);
			my $sqlstate = sqlstate($stderr);

			$count{etl_breaks}++;
			violation("the ETL got $sqlstate", $stderr)
			  unless $expected{$sqlstate} && $sqlstate ne '57014';
		}
		$writers[$i] = start_psql($node, 'w',
			"CALL dwh.etl($i, '" . random_of('on', 'off', 'off') . "')",
			name => "etl $i");
	}
	return;
}

sub stop_writers
{
	comes_true(sub { defined try_sql('INSERT INTO dwh.etl_stop VALUES (TRUE)') })
	  or violation('the server does not answer');
	violation('the ETL hangs', activity())
	  unless comes_true(sub { !grep { $_ && !has_ended($_) } @writers });
	foreach my $client (grep { $_ } @writers)
	{
		$client->{run}->kill_kill unless has_ended($client);
		finish($client);
	}
	@writers = ();
	return;
}

#
# The cycles
#
my $caller;

# In this round there is a service.
my $service = 0;

# The server goes down as soon as the next cycle has returned, so that only the
# cycle itself can have made durable what it reports.
my $ambush = 0;

sub start_caller
{
	my $timeout = random_of(0, 0, 0, 300);
	my $arguments = join ', ', random_of('NULL', 10, 30), random_of(1, 2, 3),
	  random_of('NULL', 'NULL', 'NULL', "'300ms'");
	my $columns = 'cycle_id, status, found, processed, failed, skipped, deferred';
	my $wait = "SELECT $columns FROM datamart_users_wait_cycle((SELECT max(cycle_id) FROM datamart_users_cycles))";
	my $kind = random_of(qw(run run run start start_and_wait));
	my @sql = (
		'SET chaos.enabled = true',
		"SET datamart_users.retry_delay = '1s'",
		"SET datamart_users.retry_delay_max = '1s'",
		"SET datamart_users.user_timeout = $timeout");

	push @sql, 'SET synchronous_commit = off' if rand() < 0.2;
	push @sql,
	  $kind eq 'run'
	  ? "SELECT $columns FROM datamart_users_run_cycle($arguments)"
	  : "SELECT 'started' FROM datamart_users_start_cycle($arguments)";
	push @sql, $wait if $kind eq 'start_and_wait';

	$caller = start_psql($node, 'w', \@sql, name => 'caller');
	$caller->{kind} = $kind;
	$caller->{started} = time;
	return;
}

# Somebody who sees to it that there is a service, and now and then stops it.
sub start_keeper
{
	my $timeout = random_of(0, 0, 0, 300);
	my @sql = (
		'SET chaos.enabled = true',
		"SET datamart_users.retry_delay = '1s'",
		"SET datamart_users.retry_delay_max = '1s'",
		"SET datamart_users.user_timeout = $timeout");

	push @sql, 'SET synchronous_commit = off' if rand() < 0.2;
	push @sql, 'SELECT datamart_users_stop_service()' if rand() < 0.2;
	push @sql,
	  "SELECT 'began' WHERE datamart_users_start_service(" . random_of(1, 2, 3) . ", '20 ms')";
	push @sql, 'SELECT pg_sleep(0.3)';
	$caller = start_psql($node, 'w', \@sql, name => 'service');
	$caller->{kind} = 'service';
	$caller->{started} = time;
	return;
}

# True if it has got the row of a cycle that it ran itself.
sub end_caller
{
	my (undef, $stdout, $stderr) = finish($caller);
	my $sqlstate = sqlstate($stderr);

	$count{cycles}++ if $stdout ne '' && $caller->{kind} ne 'service';
	$count{services}++ if $stdout =~ /began/;
	violation("a caller got $sqlstate", $stderr) unless $expected{$sqlstate};

	# Somebody else's wait may have met a cycle without a coordinator.
	my $has_row = $caller->{kind} eq 'run' && $stdout =~ /^(\d+)\|(.*)$/m;
	$returned{$1} = $2 if $has_row;
	undef $caller;
	return $has_row;
}

sub tend_caller
{
	if ($caller && !has_ended($caller))
	{
		return if time - $caller->{started} < REST;
		violation('a caller hangs', activity());
		$caller->{run}->kill_kill;
	}
	my $returned = $caller && end_caller();
	if ($returned && $ambush)
	{
		$ambush = 0;
		stop_and_start();
	}
	$service ? start_keeper() : start_caller();
	return;
}

#
# What befalls them
#
sub backends
{
	my ($which) = @_;

	return "FROM pg_stat_activity WHERE datname = 'w' AND "
	  . { caller => "application_name IN ('caller', 'service')",
		worker => "pid IN (@{[pids_sql('worker')]})",
		coordinator => "pid IN (@{[pids_sql('coordinator')]})" }->{$which}
	  . ' ORDER BY random() LIMIT 1';
}

sub signal_backend
{
	my ($function, $counter) = @_;
	my $result = try_sql(
		"SELECT $function(pid) " . backends(random_of(qw(caller worker worker coordinator))),
		'postgres');

	$count{$counter}++ if defined $result && $result eq 't';
	return;
}

# SIGKILL, after which the postmaster restarts all processes.
sub shoot
{
	my $pid = try_sql('SELECT pid ' . backends(random_of(qw(caller worker worker coordinator))),
		'postgres');

	return unless defined $pid && $pid =~ /^\d+$/;
	return unless kill 'KILL', $pid;
	$count{crashes}++;
	wait_for_restart();
	return;
}

sub wait_for_restart
{
	comes_true(sub { defined try_sql('SELECT 1', 'postgres') })
	  or violation('the server does not come up again');
	return;
}

sub stop_and_start
{
	$node->stop('immediate');
	$count{stops}++;
	$node->start;
	return;
}

sub shoot_client
{
	return if !$caller || has_ended($caller);
	kill 'KILL', $caller->{pid} and $count{shot_clients}++;
	return;
}

# What others do meanwhile: nothing of it fails as long as there is a server.
sub look
{
	my ($stdout, $stderr);
	my $status = $node->psql('w',
		random_of(
			'SELECT * FROM datamart_users_progress',
			'SELECT * FROM datamart_users_service',
			'SELECT * FROM datamart_users_workers',
			'SELECT * FROM datamart_users_queue(10)',
			'SELECT datamart_users_retry()'),
		stdout => \$stdout,
		stderr => \$stderr,
		on_error_die => 0,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	violation('looking on: ' . sqlstate($stderr), $stderr)
	  unless $status == 0 || $expected{ sqlstate($stderr) };
	return;
}

my @events = (
	(sub { signal_backend('pg_cancel_backend', 'cancels') }) x 5,
	(sub { signal_backend('pg_terminate_backend', 'terminations') }) x 4,
	(sub {
			my $result = try_sql('SELECT datamart_users_cancel_cycle()');
			$count{cancels}++ if defined $result && $result eq 't';
	}) x 2,
	(\&look) x 5,
	(sub { $ambush = 1 }),
	\&shoot_client,
	\&shoot,
	\&stop_and_start);

sub activity
{
	return try_sql(<<'SQL', 'postgres') // 'the server does not answer';
SELECT pid, backend_type, application_name, state, wait_event_type, wait_event,
	   pg_blocking_pids(pid), left(query, 100)
FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()
SQL
}

#
# What must hold
#
sub settle
{
	stop_writers();
	if ($caller)
	{
		violation('a caller hangs', activity())
		  unless comes_true(sub { has_ended($caller) });
		$caller->{run}->kill_kill unless has_ended($caller);
		end_caller();
	}
	comes_true(sub { defined try_sql('SELECT datamart_users_stop_service()') })
	  or violation('the server does not answer');
	violation('c: a process is left', activity())
	  unless comes_true(sub { (try_sql(workers_sql()) // -1) eq '0' });
	violation('c: a lock is left')
	  unless comes_true(sub {
			(try_sql(q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2)) // -1) eq '0'
	  });
	violation('c: a segment is left') unless comes_true(sub { control_segments($node) == 0 });
	return;
}

# No row of the result may be there.
sub must_be_none
{
	my ($what, $sql) = @_;
	my $result = $node->safe_psql('w', $sql);

	violation($what, $result) if $result ne '';
	return;
}

sub check_data
{
	must_be_none('a: lost', <<'SQL');
SELECT u, d, f FROM dwh.dimension_users u
LEFT JOIN dwh.datamartusers d USING (dimension_user_id),
	 LATERAL (SELECT count(*) AS actions, coalesce(sum(amount), 0) AS amount
			  FROM dwh.facts WHERE action_dimension_id_user = u.dimension_user_id) f
WHERE NOT u.modified AND (d.actions IS DISTINCT FROM f.actions OR d.amount IS DISTINCT FROM f.amount)
SQL

	must_be_none('a: made of a table that looked empty',
		'SELECT * FROM dwh.datamartusers WHERE rates <> 3');
	must_be_none('a: met what another refresh had left',
		q(SELECT * FROM datamart_users_failures WHERE sqlstate IN ('42P05', '42P07')));

	# Every fact has the amount 1.
	must_be_none('a: torn',
		'SELECT * FROM dwh.datamartusers WHERE actions IS DISTINCT FROM amount');
	$count{checked} += $node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE NOT modified');
	return;
}

sub check_history
{
	# The coordinator of the others did not get to the end of its cycle, and at
	# best has saved the counts of some seconds before.
	must_be_none('b: processed is not what was committed', <<'SQL');
SELECT c.cycle_id, c.status, c.processed, a.refreshes FROM datamart_users_cycles c,
	 LATERAL (SELECT count(*) AS refreshes FROM dwh.audit WHERE cycle_id = c.cycle_id) a
WHERE c.counted_at = c.finished_at AND c.processed <> a.refreshes
SQL
	must_be_none('b: processed twice in a cycle',
		q(SELECT cycle_id, dimension_user_id FROM dwh.audit JOIN datamart_users_cycles USING (cycle_id)
		  WHERE application_name <> 'service' GROUP BY 1, 2 HAVING count(*) > 1));
	must_be_none('b: without a cycle', <<'SQL');
SELECT DISTINCT a.cycle_id FROM dwh.audit a
WHERE NOT EXISTS (SELECT FROM datamart_users_cycles c WHERE c.cycle_id = a.cycle_id)
SQL

	foreach my $cycle (sort { $a <=> $b } keys %returned)
	{
		# Nothing was found yet by one that was canceled before it looked.
		my $kept = $node->safe_psql('w',
			"SELECT status, coalesce(found, 0), processed, failed, skipped, deferred FROM datamart_users_cycles WHERE cycle_id = $cycle");

		next if $kept eq $returned{$cycle};
		violation("b: cycle $cycle is not what was returned", "$returned{$cycle}\n$kept");
		delete $returned{$cycle};
	}

	must_be_none('d: history does not add up', <<'SQL');
SELECT * FROM (SELECT *, processed + failed + skipped + deferred AS done FROM datamart_users_cycles) c
WHERE workers IS NOT NULL
  AND (status = 'running' OR done > found OR status = 'completed' AND done IS DISTINCT FROM found)
SQL
	must_be_none('d: priorities do not add up', <<'SQL');
SELECT c.cycle_id, c.found, p FROM datamart_users_cycles c,
	 LATERAL (SELECT coalesce(sum(found), 0) AS found, coalesce(sum(processed), 0) AS processed,
					 coalesce(sum(failed), 0) AS failed, coalesce(sum(skipped + deferred), 0) AS others
			  FROM datamart_users_cycle_priorities WHERE cycle_id = c.cycle_id) p
WHERE c.workers IS NOT NULL AND c.found IS NOT NULL
  AND (p.found, p.processed, p.failed, p.others) <> (c.found, c.processed, c.failed, c.skipped + c.deferred)
SQL
	return;
}

# A cycle of which nothing is in the way does all there is.
sub check_next_cycle
{
	my $result;

	# Those that were at work in two crashes running fail when it begins; with
	# no delay it takes them even so.
	$node->safe_psql('w', 'TRUNCATE dwh.etl_stop; SELECT datamart_users_retry()');
	$result = try_sql(<<'SQL');
SET datamart_users.retry_delay = 0;
SELECT status, processed = backlog, failed, skipped, deferred FROM datamart_users_run_cycle(NULL, 3);
SQL
	violation('d: the next cycle does not do what is left', $result)
	  unless ($result // '') eq 'completed|t|0|0|0';
	must_be_none('a: left by a cycle that did everything',
		'SELECT dimension_user_id FROM dwh.dimension_users WHERE modified');
	must_be_none('d: failures are left', 'SELECT * FROM datamart_users_failures');
	must_be_none('d: suspects are left', 'SELECT * FROM datamart_users_suspects');
	must_be_none('d: contention is left', 'SELECT * FROM datamart_users_contention');
	must_be_none('d: undo is left', 'SELECT * FROM datamart_users_failures_undo');
	must_be_none('d: running though nothing runs',
		q(SELECT * FROM datamart_users_cycles WHERE status = 'running'));
	check_data();
	check_history();
	return;
}

my $end = time + $seconds;
while (time < $end)
{
	my $violations = @violations;
	my $round_end = time + ROUND;
	my $next_event = time;

	$service = $ENV{DMU_CHAOS_ONLY} ? $ENV{DMU_CHAOS_ONLY} eq 'service' : $count{rounds} % 2;
	while (time < $round_end)
	{
		tend_writers();
		tend_caller();
		if (time >= $next_event)
		{
			random_of(@events)->();
			$next_event = time + rand(0.5);
		}
		usleep(10_000);
	}
	settle();
	check_data();
	check_history();
	check_next_cycle();
	$count{rounds}++;
	is(@violations - $violations, 0, "round $count{rounds}");
	last if @violations >= 20;
}

# Only those that we shot may have died.
my $deaths = () = slurp_file($node->logfile) =~ /was terminated by signal (?!9\b)|TRAP:|PANIC:/g;
is($deaths, 0, 'nobody died by himself');

$count{refreshes} = $node->safe_psql('w', 'SELECT count(*) FROM dwh.audit');
diag(join ', ', "seed $seed", (map { "$_ $count{$_}" } sort keys %count),
	'statuses ' . $node->safe_psql('w',
		q(SELECT string_agg(status || ' ' || n, ' ' ORDER BY status) FROM (SELECT status, count(*) n FROM datamart_users_cycles GROUP BY 1) s)),
	'outcomes ' . $node->safe_psql('w',
		q(SELECT concat_ws(' ', 'failed', sum(failed), 'skipped', sum(skipped), 'deferred', sum(deferred)) FROM datamart_users_cycles)),
	'violations ' . @violations);
is(@violations, 0, 'no violation');

$node->stop;
done_testing();
