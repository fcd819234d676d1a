# The code of a refresh may release all advisory locks of its session; those
# by which a cycle is found, and kept the only one, are not among them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('kept_locks');
my ($caller, $stdout, $stderr);

add_warehouse($node, 'w', 6);
$node->safe_psql('w', <<'SQL');
CREATE FUNCTION dwh.unlock() RETURNS boolean LANGUAGE plpgsql VOLATILE AS
$$BEGIN PERFORM pg_advisory_unlock_all(); RETURN TRUE; END$$;
CREATE FUNCTION dwh.unlock_trigger() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN PERFORM pg_advisory_unlock_all(); RETURN NEW; END$$;
CREATE VIEW dwh.unlocking_users AS SELECT * FROM dwh.dimension_users WHERE dwh.unlock();
SQL

# The cycle is all there: locks, progress, and no other one beside it.
sub check_held
{
	my ($what, @settings) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( $node->safe_psql('w',
			q(SELECT string_agg(format('%s %s %s', objsubid, mode, count), ', ' ORDER BY objsubid) FROM
				(SELECT objsubid, mode, count(*) FROM pg_locks
				  WHERE locktype = 'advisory' AND objsubid > 2 AND granted GROUP BY 1, 2) l)),
		'3 ExclusiveLock 1, 4 ExclusiveLock 1, 5 ShareLock 1', "$what: all locks are held");
	is($node->safe_psql('w', 'SELECT count(*) FROM datamart_users_progress'), 1, "$what: the cycle is found");
	(undef, undef, $stderr) = run_psql($node, 'w', [ @settings, q(SET statement_timeout = '5s'), 'SELECT datamart_users_run_cycle()' ]);
	is(sqlstate($stderr), '55006', "$what: no second cycle");
	return;
}

# A cycle with two workers; looked at while both are in the midst of their
# first refresh, when they have some behind them, and when the coordinator has
# no more to do than to wait for the other one.
sub check_cycle
{
	my ($what, $unlock, %options) = @_;
	my $result = $options{result} // 'completed|6|6|0';
	my @settings = @{ $options{settings} // [] };
	my ($first, %last, $id);

	reset_warehouse($node, 'w', 6);
	$node->safe_psql('w', $options{before}) if defined $options{before};
	if (defined $unlock)
	{
		behave($node, 'w', $_, $unlock) for 1 .. 4;
	}
	$first = hold_gate($node, 'w') unless $options{fails};
	$last{$_} = hold_gate($node, 'w', $_) for 5, 6;
	$caller = start_psql($node, 'w',
		[ @settings, 'SELECT status, found, processed, failed FROM datamart_users_run_cycle(NULL, 2)' ]);
	unless ($options{fails})
	{
		wait_for_gate($node, 'w', 2);
		check_held("$what, in the first refresh", @settings);
		open_gate($first);
	}
	wait_for_sql($node, 'w',
		'SELECT count(*) = 2 FROM pg_locks WHERE locktype = \'advisory\' AND classid = '
		  . DatamartUsersTest::GATE . ' AND objid IN (5, 6) AND NOT granted',
		'both are at their last');
	check_held("$what, after some refreshes", @settings);
	$id = $node->safe_psql('w', 'SELECT dimension_user_id FROM datamart_users_workers WHERE worker = 1');
	open_gate(delete $last{$id});
	wait_for_sql($node, 'w', q(SELECT state = 'idle' FROM datamart_users_workers WHERE worker = 1), 'the coordinator has nothing to do');
	check_held("$what, between transactions", @settings);
	open_gate($_) for values %last;
	(undef, $stdout, $stderr) = finish($caller);
	is($stdout, $result, "$what: the cycle completes") or diag($stderr);
	$node->safe_psql('w', $options{after}) if defined $options{after};
	check_sane($node, 'w', $what);
	return;
}

my $all = 'SELECT pg_advisory_unlock_all()';

check_cycle('procedure', $all);
check_cycle('twice', "$all; SELECT pg_advisory_lock(pg_backend_pid()), pg_advisory_lock_shared(2, 3), pg_advisory_xact_lock_shared(4); $all; $all");
check_cycle('locks that stay', 'SELECT pg_advisory_lock_shared(1), pg_advisory_lock_shared(2, 3)');
check_cycle('exception block', <<'SQL');
DO 'BEGIN
	PERFORM pg_advisory_unlock_all();
	BEGIN
		PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_all();
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM pg_advisory_unlock_all();
	END;
END'
SQL
check_cycle('failing refresh', "DO 'BEGIN PERFORM pg_advisory_unlock_all(); RAISE division_by_zero; END'",
	fails => 1, result => 'completed|6|2|4');
check_cycle('failing at commit', undef, result => 'completed|6|0|6',
	before => <<'SQL',
CREATE FUNCTION dwh.fail() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN PERFORM pg_advisory_unlock_all(); RAISE division_by_zero; END$$;
CREATE CONSTRAINT TRIGGER fail AFTER UPDATE ON dwh.dimension_users DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION dwh.fail();
SQL
	after => 'DROP FUNCTION dwh.fail() CASCADE');
check_cycle('DISCARD', 'DISCARD ALL', fails => 1, result => 'completed|6|2|4');
check_cycle('triggers', undef, before => <<'SQL', after => 'DROP TRIGGER unlock ON dwh.dimension_users; DROP TRIGGER unlock_at_commit ON dwh.dimension_users');
CREATE TRIGGER unlock BEFORE UPDATE ON dwh.dimension_users FOR EACH ROW EXECUTE FUNCTION dwh.unlock_trigger();
CREATE CONSTRAINT TRIGGER unlock_at_commit AFTER UPDATE ON dwh.dimension_users DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION dwh.unlock_trigger();
SQL
check_cycle('prioritisation', undef, settings => [ "SET datamart_users.users_table = 'dwh.unlocking_users'" ]);

# A hold that was given away is missed when it is to be given back.
$node->stop;
unlike(slurp_file($node->logfile), qr/you don't own a lock/, 'no hold was missed');
done_testing();
