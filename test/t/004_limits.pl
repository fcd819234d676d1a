# What limits a cycle, and what is done to its surroundings while it runs: a
# second caller, too few processes, DDL, DROP DATABASE, the caller's own locks.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use constant PROMPTLY => 30;

my $run1 = 'SELECT status, found, processed, failed, workers FROM datamart_users_run_cycle(NULL, 1)';
my $run2 = 'SELECT status, found, processed, failed, workers FROM datamart_users_run_cycle(NULL, 2)';
my $node = new_node('limits');
my ($gate, $gate2, $caller, $other, $third, $start, $status, $stdout, $stderr, $cycle);

add_warehouse($node, 'w', 4);
add_warehouse($node, 'v', 4);

sub wait_for_lock_wait
{
	my ($application) = @_;

	wait_for_sql($node, 'postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name ~ '$application' AND wait_event_type = 'Lock' AND wait_event <> 'advisory'",
		"$application waits for a lock");
	return;
}

sub failures
{
	return $node->safe_psql('w',
		'SELECT dimension_user_id, sqlstate FROM datamart_users_failures ORDER BY 1');
}

#
# One cycle of a datamart, and each database has its own
#
$gate = hold_gate($node, 'w');
$gate2 = hold_gate($node, 'v');
$caller = start_psql($node, 'w', $run2);
wait_for_gate($node, 'w', 2);
$cycle = last_cycle($node, 'w', 'cycle_id');
for my $sql ($run2, 'SELECT datamart_users_start_cycle()')
{
	$start = time;
	(undef, $stdout, $stderr) = run_psql($node, 'w', $sql);
	cmp_ok(time - $start, '<', PROMPTLY, 'second caller is refused at once');
	is(sqlstate($stderr), '55006', 'with its SQLSTATE');
	like($stderr, qr/ERROR:  55006: cycle $cycle of datamart_users is already running/, 'and the number of the cycle');
	is(last_cycle($node, 'w', 'cycle_id, status'), "$cycle|running", 'and no trace in the history');
}
$other = start_psql($node, 'v', $run2);
wait_for_gate($node, 'v', 2);
is($node->safe_psql('postgres', workers_sql()), '4', 'two databases at the same time');
is($node->safe_psql('w', 'SELECT datamart_users_cancel_cycle()'), 't', 'one is cancelled');
(undef, $stdout) = finish($caller);
is($stdout, 'cancelled|4|0|0|2', 'and ends');
open_gate($gate2);
(undef, $stdout) = finish($other);
is($stdout, 'completed|4|4|0|2', 'the other one completes');
open_gate($gate);
check_sane($node, $_, 'side by side') for ('w', 'v');

#
# Arguments
#
for (
	[ 'datamart_users_run_cycle(0)', '22023' ],
	[ 'datamart_users_run_cycle(-1)', '22023' ],
	[ 'datamart_users_run_cycle(10000001)', '22023' ],
	[ 'datamart_users_run_cycle(2147483647)', '22023' ],
	[ 'datamart_users_run_cycle(1, 0)', '22023' ],
	[ 'datamart_users_run_cycle(1, 100000)', '22023' ],
	[ "datamart_users_run_cycle(1, 1, '-1 s')", '22023' ],
	[ 'datamart_users_queue(10000001)', '22023' ])
{
	my ($call, $sqlstate) = @$_;
	(undef, undef, $stderr) = run_psql($node, 'w', "SELECT $call");
	is(sqlstate($stderr), $sqlstate, $call);
}
(undef, undef, $stderr) = run_psql($node, 'w', [ 'LOAD \'datamart_users\'', 'SET datamart_users.max_users_per_cycle = 10000001' ]);
is(sqlstate($stderr), '22023', 'max_users_per_cycle over the limit');
is($node->safe_psql('w', 'SELECT status, found FROM datamart_users_run_cycle(10000000, 1)'),
	'completed|4', 'the limit itself takes what there is');

#
# Transactions that a cycle cannot be called from
#
for (
	[ 'transaction block that has read', '25001', 'BEGIN', 'SELECT count(*) FROM dwh.facts', $run1 ],
	[ 'exception block', '25001', "DO 'BEGIN PERFORM datamart_users_run_cycle(); EXCEPTION WHEN no_data_found THEN NULL; END'" ],
	[ 'after a write', '25001', "DO 'BEGIN INSERT INTO dwh.behaviour VALUES (9, \$\$SELECT\$\$); PERFORM datamart_users_run_cycle(); END'" ],
	[ 'read-only', '25006', 'SET default_transaction_read_only = on', $run1 ])
{
	my ($what, $sqlstate, @sql) = @$_;
	(undef, undef, $stderr) = run_psql($node, 'w', \@sql);
	is(sqlstate($stderr), $sqlstate, "called from: $what");
}

#
# DDL on the warehouse in the midst of a cycle
#

# The facts get a column; the worker at work is waited for.
reset_warehouse($node, 'w', 4);
$gate = hold_gate($node, 'w', 1);
$caller = start_psql($node, 'w', $run1);
wait_for_gate($node, 'w', 1);
$other = start_psql($node, 'w', 'ALTER TABLE dwh.facts ADD COLUMN remark text', name => 'ddl');
wait_for_lock_wait('ddl');
open_gate($gate);
(undef, $stdout) = finish($caller);
is($stdout, 'completed|4|4|0|1', 'ALTER TABLE facts ADD COLUMN: the cycle completes');
is((finish($other))[2], '', 'and the column is there');
check_sane($node, 'w', 'ADD COLUMN');

# The facts are rewritten.  Who began before that and reads after it must not
# see an empty table, as snapshots from before the rewrite do.
reset_warehouse($node, 'w', 4);
$gate = hold_gate($node, 'w', 1);
$caller = start_psql($node, 'w', $run1);
wait_for_gate($node, 'w', 1);
$third = $node->background_psql('w');
$third->query_until(qr/begun/, "BEGIN;\nSELECT 'begun';\nALTER TABLE dwh.facts ALTER COLUMN action_dimension_id_user TYPE bigint;\n");
wait_for_sql($node, 'w', "SELECT count(*) = 1 FROM pg_locks WHERE relation = 'dwh.facts'::regclass AND NOT granted", 'the rewrite waits');
open_gate($gate);
wait_for_lock_wait('worker 1');
is($node->safe_psql('w', "SELECT dimension_user_id FROM dwh.dimension_users WHERE NOT modified"), '1', 'rewrite: the next worker waits for it');
$third->query_safe('COMMIT');
$third->quit;
(undef, $stdout) = finish($caller);
is($stdout, 'completed|4|4|0|1', 'rewrite: the cycle completes');
check_sane($node, 'w', 'rewrite');

# Another version of the procedure.
reset_warehouse($node, 'w', 4);
$gate = hold_gate($node, 'w', 2);
$caller = start_psql($node, 'w', $run1);
wait_for_gate($node, 'w', 1);
my $definition = $node->safe_psql('w', "SELECT pg_get_functiondef('dwh.update_datamart_user'::regproc)");
(my $changed = $definition) =~ s/d\.refreshes \+ 1;/d.refreshes + 1;\n\tUPDATE dwh.datamartusers SET refreshes = 100 WHERE dimension_user_id = p_id;/
  or die 'no place to change the procedure';
$node->safe_psql('w', $changed);
open_gate($gate);
(undef, $stdout) = finish($caller);
is($stdout, 'completed|4|4|0|1', 'CREATE OR REPLACE PROCEDURE: the cycle completes');
is($node->safe_psql('w', "SELECT string_agg(refreshes::text, ',' ORDER BY dimension_user_id) FROM dwh.datamartusers"),
	'1,1,100,100', 'with the new version from the next datamart user on');
$node->safe_psql('w', $definition);
check_sane($node, 'w', 'CREATE OR REPLACE PROCEDURE');

# The procedure, or a table, goes: that is nobody's failure.
for (
	[ 'DROP PROCEDURE dwh.update_datamart_user', $definition, '42883' ],
	[ 'ALTER TABLE dwh.facts RENAME TO facts_old', 'ALTER TABLE dwh.facts_old RENAME TO facts', '42P01' ],
	[ 'ALTER SCHEMA dwh RENAME TO old', 'ALTER SCHEMA old RENAME TO dwh', '' ])
{
	my ($ddl, $undo, $sqlstate) = @$_;

	reset_warehouse($node, 'w', 4);
	$gate = hold_gate($node, 'w', 2);
	$caller = start_psql($node, 'w', $run1);
	wait_for_gate($node, 'w', 1);
	# A procedure is not locked by its callers, a table is.
	$other = start_psql($node, 'w', $ddl, name => 'ddl');
	if ($ddl =~ /TABLE/) { wait_for_lock_wait('ddl') } else { finish($other) }
	open_gate($gate);
	finish($other) if $ddl =~ /TABLE/;
	(undef, $stdout, $stderr) = finish($caller);
	$node->safe_psql('w', $undo);
	if ($sqlstate ne '')
	{
		is(sqlstate($stderr), $sqlstate, "$ddl: the caller gets its error");
		is(last_cycle($node, 'w', 'status, processed, failed'), 'failed|2|0', "$ddl: history");
		isnt(last_cycle($node, 'w', 'message'), '', "$ddl: with a message");
	}
	else
	{
		like(last_cycle($node, 'w', 'status, failed'), qr/^(?:failed|completed)\|0$/, "$ddl: history");
	}
	is(failures(), '', "$ddl: no back-off for anybody");
	check_sane($node, 'w', $ddl);
	is($node->safe_psql('w', 'SELECT status, processed = backlog, failed FROM datamart_users_run_cycle()'), 'completed|t|0', "$ddl: undone");
}

#
# The caller's own locks
#
$node->safe_psql('w', 'CREATE TABLE dwh.t AS SELECT 1 AS c');
my $holding = 'SELECT r.* FROM (SELECT count(*) FROM dwh.t) AS x, LATERAL datamart_users_run_cycle((NULLIF(x.count, x.count))::integer, 1) AS r';

reset_warehouse($node, 'w', 4, 2 => 'LOCK TABLE dwh.t IN ACCESS EXCLUSIVE MODE');
$start = time;
(undef, undef, $stderr) = run_psql($node, 'w', $holding);
cmp_ok(time - $start, '<', PROMPTLY, "caller's own lock: noticed promptly");
is(sqlstate($stderr), '40P01', "caller's own lock: an error");
like($stderr, qr/DETAIL:  .*datamart user 2, waits for relation "t"/, "caller's own lock: who and what");
wait_for_idle($node);
is(last_cycle($node, 'w', 'status, processed, failed'), 'cancelled|1|0', "caller's own lock: history");
check_sane($node, 'w', "caller's own lock");

# Behind a third session that waits for the caller.
reset_warehouse($node, 'w', 4, 2 => 'SELECT pg_advisory_xact_lock_shared(4711, 99); SELECT count(*) FROM dwh.t');
$gate = hold_gate($node, 'w', 99);
$caller = start_psql($node, 'w', $holding);
wait_for_gate($node, 'w', 1);
$other = start_psql($node, 'w', 'ALTER TABLE dwh.t ADD COLUMN d integer', name => 'ddl');
wait_for_lock_wait('ddl');
open_gate($gate);
(undef, undef, $stderr) = finish($caller);
is(sqlstate($stderr), '40P01', 'lock behind a third session: an error');
like($stderr, qr/DETAIL:  .*datamart user 2, waits for relation "t"/, 'lock behind a third session: who and what');
is((finish($other))[2], '', 'lock behind a third session: which gets its way');
check_sane($node, 'w', 'lock behind a third session');

# Who waits for another's cycle may hold locks; that cycle goes on.
reset_warehouse($node, 'w', 4, 2 => 'LOCK TABLE dwh.t IN ACCESS EXCLUSIVE MODE');
$gate = hold_gate($node, 'w', 1);
$cycle = $node->safe_psql('w', 'SELECT datamart_users_start_cycle(NULL, 1)');
wait_for_gate($node, 'w', 1);
$caller = start_psql($node, 'w', [ 'BEGIN', 'SELECT count(*) FROM dwh.t', "SELECT datamart_users_wait_cycle($cycle)" ]);
wait_for_sql($node, 'w',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'caller' AND wait_event = 'Extension'",
	'somebody with a lock waits for the cycle');
open_gate($gate);
(undef, undef, $stderr) = finish($caller);
is(sqlstate($stderr), '40P01', 'lock of one who waits: an error');
is($node->safe_psql('w', "SELECT status, processed FROM datamart_users_wait_cycle($cycle)"),
	'completed|4', 'lock of one who waits: the cycle goes on');
check_sane($node, 'w', 'lock of one who waits');

#
# DROP EXTENSION and ALTER EXTENSION
#
reset_warehouse($node, 'w', 4);
$gate = hold_gate($node, 'w');
$caller = start_psql($node, 'w', $run2);
wait_for_gate($node, 'w', 2);
my $alter = start_psql($node, 'w', 'ALTER EXTENSION datamart_users UPDATE', name => 'alter');
is(sqlstate((finish($alter))[2]), '', 'ALTER EXTENSION UPDATE');
$other = start_psql($node, 'w', 'DROP EXTENSION datamart_users', name => 'drop');
wait_for_lock_wait('drop');
is($node->safe_psql('w', 'SELECT count(*) FROM pg_extension WHERE extname = \'datamart_users\''), 1, 'DROP EXTENSION waits');
open_gate($gate);
(undef, $stdout) = finish($caller);
is($stdout, 'completed|4|4|0|2', 'DROP EXTENSION: the cycle completes');
is((finish($other))[2], '', 'DROP EXTENSION: and then it is dropped');
is($node->safe_psql('w', q(SELECT count(*) FROM pg_class WHERE relname LIKE 'datamart\_users%')), 0, 'DROP EXTENSION: nothing is left');
check_sane($node, 'w', 'DROP EXTENSION');

# Failures give up the protection for a moment, so the extension may go in the
# midst of the cycle.
for my $workers (1, 2)
{
	$node->safe_psql('w', 'CREATE EXTENSION datamart_users');
	reset_warehouse($node, 'w', 6, map { $_ => q(DO 'BEGIN RAISE division_by_zero; END') } 1 .. 6);
	$node->safe_psql('w', "UPDATE dwh.behaviour SET what = 'SELECT pg_advisory_xact_lock_shared(4711, 0); ' || what");
	$gate = hold_gate($node, 'w');
	$caller = start_psql($node, 'w', $workers == 1 ? $run1 : $run2);
	wait_for_gate($node, 'w', $workers);
	$other = start_psql($node, 'w', 'DROP EXTENSION datamart_users', name => 'drop');
	wait_for_lock_wait('drop');
	open_gate($gate);
	(undef, $stdout, $stderr) = finish($caller);
	ok($stdout =~ /^completed\|6\|0\|6\|$workers$/ || sqlstate($stderr) eq '55000', "DROP EXTENSION between failures, $workers workers: the caller is told")
	  or diag("stdout: $stdout\nstderr: $stderr");
	is((finish($other))[2], '', "DROP EXTENSION between failures, $workers workers: it is dropped");
	wait_for_idle($node);
	is($node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), 6, 'all stay modified');
	$node->safe_psql('w', 'DELETE FROM dwh.behaviour');
	check_sane($node, 'w', 'DROP EXTENSION between failures');
}
$node->safe_psql('w', 'CREATE EXTENSION datamart_users');
is($node->safe_psql('w', $run2), 'completed|6|6|0|2', 'created again, it works again');

#
# The database
#
reset_warehouse($node, 'v', 4);
$gate2 = hold_gate($node, 'v');
$caller = start_psql($node, 'v', [ 'SELECT datamart_users_start_cycle(NULL, 2)' ]);
finish($caller);
wait_for_gate($node, 'v', 2);
for my $sql ('DROP DATABASE v', 'ALTER DATABASE v RENAME TO u')
{
	(undef, undef, $stderr) = run_psql($node, 'postgres', $sql);
	is(sqlstate($stderr), '55006', "$sql is refused");
}
is(last_cycle($node, 'v', 'status'), 'running', 'and does not touch the cycle');
is($node->safe_psql('v', 'SELECT datamart_users_cancel_cycle()'), 't', 'which is cancelled');
$caller = start_psql($node, 'v', $run2);
wait_for_gate($node, 'v', 2);
$start = time;
(undef, undef, $stderr) = run_psql($node, 'postgres', 'DROP DATABASE v WITH (FORCE)');
is($stderr, '', 'DROP DATABASE WITH FORCE');
wait_for_idle($node);
cmp_ok(time - $start, '<', PROMPTLY, 'DROP DATABASE WITH FORCE: promptly');
(undef, undef, $stderr) = finish($caller);
is(sqlstate($stderr), '57P01', 'DROP DATABASE WITH FORCE: the caller is told');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_database WHERE datname = 'v'"), 0, 'DROP DATABASE WITH FORCE: it has gone');
open_gate($gate2);
check_sane($node, 'w', 'DROP DATABASE WITH FORCE');

#
# Few processes.  One is the logical replication launcher's.
#
for (
	[ 1, undef ],
	[ 2, 1 ],
	[ 3, 2 ],
	[ 5, 4 ])
{
	my ($processes, $workers) = @$_;

	$node->append_conf('postgresql.conf', "max_worker_processes = $processes");
	$node->restart;
	reset_warehouse($node, 'w', 6);
	(undef, $stdout, $stderr) = run_psql($node, 'w',
		'SELECT status, found, processed, failed, workers FROM datamart_users_run_cycle(NULL, 4)');
	if (!defined $workers)
	{
		is(sqlstate($stderr), '53000', 'no process is free');
		like($stderr, qr/HINT:  .*max_worker_processes/, 'with a hint');
		is($node->safe_psql('w', 'SELECT count(*) FROM dwh.dimension_users WHERE modified'), 6, 'nothing happens');
	}
	else
	{
		is($stdout, "completed|6|6|0|$workers", "$workers of 4 workers complete the cycle");
		is(scalar(() = $stderr =~ /WARNING/g), $workers < 4 ? 1 : 0, 'how many warnings');
		like($stderr, qr/WARNING:  53000: started $workers of 4 workers/, 'what it says') if $workers < 4;
		is(last_cycle($node, 'w', 'workers_requested, workers'), "4|$workers", 'history');
	}
	check_sane($node, 'w', "max_worker_processes = $processes");
}

$node->stop;
done_testing();
