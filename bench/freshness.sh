#!/usr/bin/env bash
#
# freshness.sh [--seconds N] [--backlog N] [--workers N] [--poll MS]
#              [--procedure heavy|light] [--users N] [--facts N] [--ways LIST]
#
# How long after the ETL's commit is the row of a critical datamart user
# refreshed?  Each way works on the same backlog of low and lowest datamart
# users, while an ETL touches five others a second and commits each, and
# somebody analyzes the facts and creates and drops tables.  A datamart user is
# touched once; its time is from the commit of that to the commit of its
# refresh, as the server notes them.  Who was not refreshed by the end counts
# with the time until then.
#
#	--seconds N		how long each way is watched (default 60)
#	--backlog N		(default 20000, or as many as there are)
#	--workers N		(default 1)
#	--poll MS		of the service, milliseconds (default 100)
#	--procedure P	heavy or light (default light)
#	--users N		datamart users in the warehouse (default 25000)
#	--facts N		facts in the warehouse (default 1000000)
#	--ways LIST		of service, cycles (with a time limit of a second, back to
#					back) and script (psql_per_user.sh, 1000 at a time); default all

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/../test/lib.sh"

seconds=60
backlog=20000
workers=1
poll=100
users=25000
facts=1000000
ways='service cycles script'
procedure=dwh.update_datamart_user_light
datamart=dwh.datamartusers_light
database=warehouse
per_second=5

while [[ $# -gt 0 ]]; do
	case $1 in
	--seconds | --backlog | --workers | --poll | --users | --facts)
		value=$(positive_number "$1" "${2:-}")
		declare "${1#--}=$value"
		shift
		;;
	--procedure)
		[[ ${2:-} =~ ^(heavy|light)$ ]] || die '--procedure needs heavy or light'
		if [[ $2 = heavy ]]; then
			procedure=dwh.update_datamart_user
			datamart=dwh.datamartusers
		fi
		shift
		;;
	--ways)
		ways=${2:-}
		shift
		;;
	-h | --help)
		usage
		exit
		;;
	*) die "unknown argument $1, see --help" ;;
	esac
	shift
done

# The backlog, and those whom the ETL will touch.
prepare_bench() {
	sql "$database" -c "
		CREATE TABLE bench_backlog AS
		SELECT dimension_user_id FROM datamart_users_queue($users)
		WHERE priority IN ('low', 'lowest') ORDER BY queue_position LIMIT $backlog" -c "
		CREATE TABLE bench_touched AS
		SELECT dimension_user_id, row_number() OVER () AS position
		FROM dwh.dimension_users
		WHERE dimension_user_id NOT IN (SELECT dimension_user_id FROM bench_backlog)
		ORDER BY dwh.noise(dimension_user_id, 7) LIMIT $((seconds * per_second))" -c '
		CREATE TABLE bench_log (dimension_user_id integer)' -c '
		CREATE PROCEDURE bench_etl(p_pause double precision) LANGUAGE plpgsql AS $$
		DECLARE
			v_ids integer[] := ARRAY(SELECT dimension_user_id FROM bench_touched ORDER BY position);
			v_id integer;
		BEGIN
			FOREACH v_id IN ARRAY v_ids LOOP
				PERFORM dwh.etl_add_facts(1, ARRAY[v_id]);
				INSERT INTO bench_log VALUES (v_id);
				COMMIT;
				PERFORM pg_sleep(p_pause);
			END LOOP;
		END $$' -c '
		CREATE PROCEDURE bench_disturb(p_seconds integer) LANGUAGE plpgsql AS $$
		DECLARE
			v_end timestamptz := clock_timestamp() + make_interval(secs => p_seconds);
		BEGIN
			WHILE clock_timestamp() < v_end LOOP
				FOR i IN 1 .. 20 LOOP
					CREATE TABLE bench_gone (id integer PRIMARY KEY);
					DROP TABLE bench_gone;
					COMMIT;
				END LOOP;
				ANALYZE dwh.facts;
				COMMIT;
				PERFORM pg_sleep(5);
			END LOOP;
		END $$'
	backlog=$(query "$database" 'SELECT count(*) FROM bench_backlog')
}

reset() {
	sql "$database" -c "TRUNCATE $datamart, bench_log" -c '
		UPDATE dwh.dimension_users SET modified = (dimension_user_id IN (SELECT dimension_user_id FROM bench_backlog))' -c '
		VACUUM ANALYZE dwh.dimension_users' -c CHECKPOINT
}

settings="-c datamart_users.procedure=$procedure -c datamart_users.progress_interval=0"

run_service() {
	PGOPTIONS=$settings query "$database" "SELECT datamart_users_start_service($workers, '$poll ms')" >/dev/null
	sleep "$seconds"
	sql "$database" -c 'SELECT state, workers, cycles, looks, last_look_time FROM datamart_users_service'
	query "$database" 'SELECT datamart_users_stop_service()' >/dev/null
}

run_cycles() {
	local end=$((SECONDS + seconds))
	while ((SECONDS < end)); do
		PGOPTIONS=$settings query "$database" "SELECT status FROM datamart_users_run_cycle(1000, $workers, '1 s')" >/dev/null
	done
}

run_script() {
	PGDATABASE=$database as_server_user timeout "$seconds" \
		bash -c "while true; do bash bench/psql_per_user.sh $workers 1000 $procedure >/dev/null; done" || true
}

# The times in milliseconds of all whom the ETL has touched.
report() {
	sql "$database" -c "
		WITH times AS (
			SELECT extract(epoch FROM coalesce(pg_xact_commit_timestamp(d.xmin), clock_timestamp())
						   - pg_xact_commit_timestamp(l.xmin)) * 1000 AS ms,
				   d.dimension_user_id IS NULL AS missing
			FROM bench_log AS l
			LEFT JOIN $datamart AS d USING (dimension_user_id))
		SELECT '$1' AS way, count(*) AS touched, count(*) FILTER (WHERE missing) AS missing,
			   round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)) AS p50_ms,
			   round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)) AS p99_ms,
			   round(max(ms)) AS max_ms,
			   (SELECT count(*) FROM $datamart) AS refreshed
		FROM times"
}

measure() {
	local etl disturber
	reset
	query "$database" "CALL bench_disturb($seconds)" &
	disturber=$!
	(
		sleep 1
		query "$database" "CALL bench_etl(1.0 / $per_second)"
	) &
	etl=$!
	"run_$1"
	report "$1"
	wait "$etl" "$disturber"
}

prepare_machine
prepare_workspace
build_extension
install_extension
start_server 'track_commit_timestamp = on' 'autovacuum = off'
build_warehouse "$database" "$users" "$facts"
prepare_bench

say "Backlog of $backlog, $procedure, $workers workers, poll $poll ms, $seconds s each"
for way in $ways; do
	measure "$way"
done
