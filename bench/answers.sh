#!/usr/bin/env bash
#
# answers.sh [--users N] [--facts N] [--cycles N] [--rounds N] [--no-index]
#
# Measures what it costs to ask: each of the queries that doc/monitoring.md
# answers a question with, in a warehouse where 1 %, 10 % or all of the datamart
# users wait, on a history of many cycles.  Prints milliseconds of processor
# time, without parallel workers, in the best of a few rounds: so other work on
# the machine matters less.
#
#	--users N	datamart users in the warehouse (default 200000)
#	--facts N	facts in the warehouse (default 2000000)
#	--cycles N	cycles in the history (default 2880, one every quarter of an
#				hour for a month)
#	--rounds N	(default 5)
#	--no-index	without the index on the facts that the doctor advises
#
# PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config selects another major.

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/../test/lib.sh"

users=200000
facts=2000000
cycles=2880
rounds=5
index=yes
database=warehouse

while [[ $# -gt 0 ]]; do
	case $1 in
	--users | --facts | --cycles | --rounds)
		value=$(positive_number "$1" "${2:-}")
		declare "${1#--}=$value"
		shift
		;;
	--no-index) index=no ;;
	-h | --help)
		usage
		exit
		;;
	*) die "unknown argument $1, see --help" ;;
	esac
	shift
done

# measure NAME STATEMENT: its best time, in a session that has asked before.
measure() {
	local round
	local -a arguments=(-c "$2" -c 'SET client_min_messages = log' -c 'SET log_statement_stats = on')
	for ((round = 0; round < rounds; round++)); do
		arguments+=(-c "$2")
	done
	printf '   %-58s %8s\n' "$1" "$(as_server_user psql -X -q -v ON_ERROR_STOP=1 -d "$database" \
		-c 'SET max_parallel_workers_per_gather = 0' \
		-c "SET datamart_users.freshness_objective = 'critical = 5min, high = 1h'" \
		"${arguments[@]}" 2>&1 | sed -n 's/^!\t\([0-9.]*\) s user, \([0-9.]*\) s system, .*/\1 \2/p' |
		awk '{ printf "%.1f\n", 1000 * ($1 + $2) }' | sort -n | head -n 1)"
}

# As many cycles as the history is to have, like the one that there was; and
# two thirds of the datamart users have failed or were deferred once a month.
fill_history() {
	say "A history of $cycles cycles and $users attempts"
	sql "$database" -v cycles="$cycles" -v users="$users" <<-'SQL' >/dev/null
		SELECT datamart_users_run_cycle(500, 1);
		SELECT max(cycle_id) AS model FROM datamart_users_cycles \gset
		INSERT INTO datamart_users_cycles
			(cycle_id, status, role_name, started_at, finished_at, max_users, backlog, found, processed, failed,
			 skipped, deferred, workers_requested, workers, prioritisation_time, users_oid, users_table)
		OVERRIDING SYSTEM VALUE
		SELECT :model + i, status, role_name, finished_at - (:cycles - i) * interval '15 min',
			   finished_at - (:cycles - i) * interval '15 min' + interval '1 min', 500, 5000 + i % 700, 500, 490 + i % 10,
			   i % 3, 0, 0, 2, 2, prioritisation_time, users_oid, users_table
		  FROM datamart_users_cycles, generate_series(1, :cycles) AS i WHERE cycle_id = :model;
		INSERT INTO datamart_users_cycle_profiles
		SELECT cycle_id + i, p50, p95, p99, bucket_upto, bucket_count, sample_width, samples
		  FROM datamart_users_cycle_profiles, generate_series(1, :cycles) AS i WHERE cycle_id = :model;
		INSERT INTO datamart_users_cycle_priorities
		SELECT c.cycle_id, d.priority, m.found, m.processed, m.failed, m.skipped, m.deferred, m.total_time, m.max_time,
			   m.p50, m.p95, m.p99, m.bucket_upto, m.bucket_count
		  FROM datamart_users_cycles AS c, unnest('{critical,high,medium,historical,low,lowest}'::text[]) AS d (priority),
			   (SELECT * FROM datamart_users_cycle_priorities WHERE cycle_id = :model ORDER BY found DESC LIMIT 1) AS m
		 WHERE c.cycle_id > :model;
		INSERT INTO datamart_users_attempts
		SELECT now() - i * interval '30 days' / :users, i % (:users / 3 * 2), CASE WHEN i % 3 = 0 THEN 'deferred' ELSE 'failed' END,
			   'P0001', 'a message of the usual length, as procedures have it', true, 1, users_oid, users_table
		  FROM generate_series(1, :users) AS i, datamart_users_cycles WHERE cycle_id = :model;
		SELECT setval('datamart_users_cycles_cycle_id_seq', :model + :cycles);
		VACUUM ANALYZE;
	SQL
}

measure_history() {
	local last='(SELECT max(cycle_id) FROM datamart_users_cycles)'
	say 'From the history, ms'
	measure 'datamart_users_attempt_states, who failed this week' "
		SELECT dimension_user_id, count(*), max(attempted_at), max(state) FROM datamart_users_attempt_states
		 WHERE attempted_at > now() - interval '7 days' GROUP BY users_table, dimension_user_id"
	measure 'datamart_users_drain' 'SELECT * FROM datamart_users_drain'
	measure 'datamart_users_cycle_comparison, one cycle' "
		SELECT * FROM datamart_users_cycle_comparison WHERE cycle_id = $last"
	measure 'datamart_users_periods' 'SELECT * FROM datamart_users_periods'
	measure 'datamart_users_metrics, all of it' 'SELECT * FROM datamart_users_metrics'
	measure 'datamart_users_metrics, one cycle' "SELECT * FROM datamart_users_metrics WHERE cycle_id = $last"
	measure 'datamart_users_cycles, those not completed' "SELECT * FROM datamart_users_cycles WHERE status <> 'completed'"
	measure 'datamart_users_workers, datamart_users_progress' 'SELECT * FROM datamart_users_workers, datamart_users_progress'
	measure 'datamart_users_report()' 'SELECT datamart_users_report()'
	measure 'datamart_users_check()' 'SELECT * FROM datamart_users_check()'
}

# measure_warehouse PERCENT: so many wait, and cycles have seen them.
measure_warehouse() {
	say "$1 % of the datamart users wait, ms"
	sql "$database" -c "
		UPDATE dwh.dimension_users SET modified = FALSE" -c "
		UPDATE dwh.dimension_users SET modified = TRUE WHERE dwh.noise(dimension_user_id, 5) < $1 / 100.0" -c "
		TRUNCATE datamart_users_seen" -c "
		VACUUM ANALYZE dwh.dimension_users" -c "
		INSERT INTO datamart_users_seen
		SELECT 'dwh.dimension_users'::regclass, dimension_user_id, now() - dimension_user_id * interval '1 second'
		  FROM dwh.dimension_users WHERE modified" -c "
		VACUUM ANALYZE datamart_users_seen" >/dev/null
	measure 'datamart_users_stale(), the first 100' 'SELECT * FROM datamart_users_stale()'
	measure 'datamart_users_backlog, with ages and objectives' 'SELECT * FROM datamart_users_backlog'
	measure 'datamart_users_queue(1000), for comparison' 'SELECT * FROM datamart_users_queue(1000)'
}

prepare_machine
prepare_workspace
build_extension
install_extension
start_server 'shared_buffers = 1GB' 'max_wal_size = 4GB' 'fsync = off'
build_warehouse "$database" "$users" "$facts"
if [[ $index = yes ]]; then
	sql "$database" -c 'CREATE INDEX ON dwh.facts (action_dimension_id_user, action_at)' -c 'VACUUM ANALYZE dwh.facts'
fi
sql "$database" -c "ALTER DATABASE $database SET datamart_users.procedure = 'dwh.update_datamart_user_light'"
fill_history
measure_history
for percent in 1 10 100; do
	measure_warehouse "$percent"
done

say 'A tenth of the datamart users fail, another tenth is parked, and all of them wait, ms'
sql "$database" -v users="$users" <<-'SQL' >/dev/null
	INSERT INTO datamart_users_failures
	SELECT dimension_user_id, 1, now(), now(), now() + interval '1 day', 'P0001', 'bad data', NULL, 1, 'dwh.dimension_users'::regclass, 'dwh.dimension_users'
	  FROM dwh.dimension_users WHERE dimension_user_id % 10 = 1;
	INSERT INTO datamart_users_parked
	SELECT dimension_user_id, 'known', now(), 'dba', 'dwh.dimension_users'::regclass, 'dwh.dimension_users'
	  FROM dwh.dimension_users WHERE dimension_user_id % 10 = 2;
	ANALYZE datamart_users_failures, datamart_users_parked;
SQL
measure 'datamart_users_stale(), the first 100' 'SELECT * FROM datamart_users_stale()'
measure 'datamart_users_backlog, with ages and objectives' 'SELECT * FROM datamart_users_backlog'
measure 'datamart_users_queue(1000), for comparison' 'SELECT * FROM datamart_users_queue(1000)'
measure_history
