# Cycles run by pg_cron, over a connection and in a background worker of its
# own: one that waits, one that only starts a cycle, two at the same time, one
# where datamart users fail; and what cron.job_run_details shows of each.
# Schedules know no seconds in older versions, so this waits for the next
# minute.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../perl";

use DatamartUsersTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = qx(pg_config --pkglibdir);
chomp $library;
plan skip_all => 'pg_cron is not installed' unless -e "$library/pg_cron.so";

my %nodes;

for my $background ('off', 'on')
{
	my $node = new_node("cron_$background", stopped => 1, conf => <<"CONF");
shared_preload_libraries = 'pg_cron'
cron.database_name = 'w'
cron.use_background_workers = $background
max_worker_processes = 32
datamart_users.progress_interval = 500ms
CONF
	# Connections come from this machine, as the tests' own do.
	$node->append_conf('postgresql.conf', "cron.host = '" . $node->host . "'");
	$node->start;
	add_warehouse($node, 'w', 5);

	# Long enough for the job to look around while it waits.
	behave($node, 'w', 1, 'SELECT pg_sleep(2.5)');
	$node->safe_psql('w', <<'SQL');
CREATE EXTENSION pg_cron;
CREATE ROLE etl LOGIN;
GRANT USAGE ON SCHEMA dwh TO etl;
GRANT ALL ON ALL TABLES IN SCHEMA dwh TO etl;
GRANT EXECUTE ON PROCEDURE datamart_users_run TO etl;
SELECT cron.schedule('refresh', '* * * * *', 'CALL datamart_users_run(3, 2)');
UPDATE cron.job SET username = 'etl';
SQL

	# One whose jobs are to fail if datamart users do.
	add_warehouse($node, 'v', 3);
	behave($node, 'v', 2, q(DO $do$ BEGIN RAISE 'poison'; END; $do$));
	$node->safe_psql('v', 'ALTER DATABASE v SET datamart_users.error_on_failure = on');
	$node->safe_psql('w', "SELECT cron.schedule_in_database('tell', '* * * * *', 'CALL datamart_users_run()', 'v')");

	# One whose jobs only start cycles.
	add_warehouse($node, 's', 3);
	$node->safe_psql('w', "SELECT cron.schedule_in_database('start', '* * * * *', 'SELECT datamart_users_start_cycle()', 's')");

	# One with two jobs for the same minute, the first of which cannot end.
	add_warehouse($node, 'o', 3);
	$node->safe_psql('w', "SELECT cron.schedule_in_database('overlap ' || i, '* * * * *', 'CALL datamart_users_run()', 'o') FROM generate_series(1, 2) i");
	$node->safe_psql('o', 'ALTER DATABASE o SET statement_timeout = 0');
	$nodes{$background} = { node => $node, gate => hold_gate($node, 'o') };
}

# Of the two at the same time one is refused while the other one waits.  Told by
# the server's log, since pg_cron may write its own only when that has ended.
for my $background ('off', 'on')
{
	my ($node, $gate) = @{ $nodes{$background} }{qw(node gate)};

	$node->wait_for_log(qr/ERROR: .* (?:is already running|is just starting or ending) in this database/, 0);
	wait_for_gate($node, 'o', 1);
	is($node->safe_psql('o', 'SELECT count(*) FROM dwh.dimension_users WHERE NOT modified'), 0,
		"use_background_workers = $background: of two at the same time one fails, the other one is at work");
	open_gate($gate);
}

for my $background ('off', 'on')
{
	my $node = $nodes{$background}->{node};
	my $what = "use_background_workers = $background";

	wait_for_sql($node, 'w',
		"SELECT count(DISTINCT database) = 4 FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')",
		'the jobs have run');
	is($node->safe_psql('w', "SELECT status FROM cron.job_run_details WHERE database = 'w' ORDER BY runid LIMIT 1"),
		'succeeded', "$what: the job succeeded")
	  or diag($node->safe_psql('w', "SELECT return_message FROM cron.job_run_details WHERE database = 'w' ORDER BY runid LIMIT 1"));
	like($node->safe_psql('w', "SELECT status, return_message FROM cron.job_run_details WHERE database = 'v' ORDER BY runid LIMIT 1"),
		qr/^failed\|.*1 datamart user failed in cycle 1/, "$what: by error_on_failure a job tells of failures");
	is($node->safe_psql('v', 'SELECT processed, failed FROM datamart_users_cycles WHERE cycle_id = 1'),
		'2|1', "$what: what it has processed stays");
	is( $node->safe_psql('w', 'SELECT status, role_name, found, processed, failed, workers FROM datamart_users_cycles ORDER BY cycle_id LIMIT 1'),
		'completed|etl|3|3|0|2', "$what: history");
	is($node->safe_psql('w', q(SELECT string_agg(DISTINCT refreshed_by::text, ',') FROM dwh.datamartusers)),
		'etl', "$what: the rights are those of the job");

	is($node->safe_psql('w', "SELECT status FROM cron.job_run_details WHERE database = 's' ORDER BY runid LIMIT 1"),
		'succeeded', "$what: a job that starts a cycle succeeds");
	wait_for_sql($node, 's', q(SELECT status = 'completed' FROM datamart_users_cycles WHERE cycle_id = 1), 'that cycle has ended');
	is($node->safe_psql('s', 'SELECT found, processed, failed FROM datamart_users_cycles WHERE cycle_id = 1'),
		'3|3|0', "$what: and the cycle goes on without it");

	wait_for_sql($node, 'w', "SELECT count(DISTINCT status) = 2 FROM cron.job_run_details WHERE database = 'o' AND status IN ('succeeded', 'failed')",
		'the two at the same time have ended');
	like($node->safe_psql('w', "SELECT return_message FROM cron.job_run_details WHERE database = 'o' AND status = 'failed' ORDER BY runid LIMIT 1"),
		qr/^ERROR: .*cycle.* (?:running|just starting)/, "$what: the refused job says that a cycle runs");
	is($node->safe_psql('o', 'SELECT status, processed, failed FROM datamart_users_cycles WHERE cycle_id = 1'),
		'completed|3|0', "$what: which the refused one has not disturbed");

	$node->safe_psql('w', 'DELETE FROM cron.job');
	check_sane($node, $_, "$what, $_") for qw(w v s o);
	$node->stop;
}

done_testing();
