#!/usr/bin/env bash
#
# freshness.sh [--seconds N] [--patience N] [--backlog N] [--workers N]
#              [--poll MS] [--procedure heavy|light] [--users N] [--facts N]
#              [--ways LIST]
#
# How long after the ETL's commit is the row of a critical datamart user
# refreshed?  Each way works on the same backlog of low and lowest datamart
# users, while an ETL touches five others a second and commits each, and
# somebody analyzes the facts and creates and drops tables.  Who is refreshed of
# the backlog is flagged again within a second, so that it stays as long as it is.
#
# The indexes are those of bench/prioritise.sh: on the facts, which the doctor
# advises, and on the flag.
#
# A datamart user is touched once; its time is from the commit of that to the
# commit of its refresh, as the server notes them.  A way is watched until all
# are refreshed, or patience has run out: who is missing counts with the time
# until then, and figures with a > are at least that.
#
#	--seconds N		how long the ETL touches datamart users (default 60)
#	--patience N	seconds to wait for their refreshes afterwards (default 300)
#	--backlog N		(default 50000, or as many as there are)
#	--workers N		(default 1)
#	--poll MS		of the service, milliseconds (default 100)
#	--procedure P	heavy or light (default light)
#	--users N		datamart users in the warehouse (default 90000, of which more
#					than 50000 are low or lowest)
#	--facts N		facts in the warehouse (default 1000000)
#	--ways LIST		of service, cycles (with a time limit of a second, back to
#					back) and script (psql_per_user.sh, 1000 at a time); default all
#
# Defaults can come from the environment: BACKLOG, WORKERS, POLL, PROCEDURE, USERS,
# FACTS; and RESULTS, a folder for the times of all, the table, and what the views
# of a service show while it works (default a new one in /tmp).

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/../test/lib.sh"

seconds=60
patience=300
backlog=${BACKLOG:-50000}
workers=${WORKERS:-1}
poll=${POLL:-100}
users=${USERS:-90000}
facts=${FACTS:-1000000}
kind=${PROCEDURE:-light}
results=${RESULTS:-/tmp/datamart_users_freshness.$(date +%Y%m%d-%H%M%S)}
ways='service cycles script'
database=warehouse
per_second=5

while [[ $# -gt 0 ]]; do
	case $1 in
	--seconds | --patience | --backlog | --workers | --poll | --users | --facts)
		value=$(positive_number "$1" "${2:-}")
		declare "${1#--}=$value"
		shift
		;;
	--procedure)
		kind=${2:-}
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
case $kind in
light) procedure=dwh.update_datamart_user_light datamart=dwh.datamartusers_light ;;
heavy) procedure=dwh.update_datamart_user datamart=dwh.datamartusers ;;
*) die 'the procedure must be heavy or light' ;;
esac
for way in $ways; do
	[[ $way =~ ^(service|cycles|script)$ ]] || die "there is no way $way"
done

# The backlog, those whom the ETL will touch, and who works beside them.  All of
# these go on until there is a row in bench_stop.
prepare_bench() {
	sql "$database" -c 'CREATE INDEX ON dwh.facts (action_dimension_id_user, action_at)' -c '
		CREATE INDEX ON dwh.dimension_users (dimension_user_id) WHERE modified' -c 'VACUUM ANALYZE dwh.facts'
	sql "$database" -c "
		CREATE TABLE bench_backlog AS
		SELECT dimension_user_id FROM datamart_users_queue($users)
		WHERE priority IN ('low', 'lowest') ORDER BY queue_position LIMIT $backlog" -c '
		ALTER TABLE bench_backlog ADD PRIMARY KEY (dimension_user_id)' -c "
		CREATE TABLE bench_touched AS
		SELECT dimension_user_id, row_number() OVER () AS position
		FROM dwh.dimension_users
		WHERE dimension_user_id NOT IN (SELECT dimension_user_id FROM bench_backlog)
		ORDER BY dwh.noise(dimension_user_id, 7) LIMIT $((seconds * per_second))" -c '
		CREATE TABLE bench_log (dimension_user_id integer)' -c '
		CREATE TABLE bench_kept (waiting integer)' -c '
		CREATE TABLE bench_stop ()' -c '
		CREATE PROCEDURE bench_etl(p_pause interval) LANGUAGE plpgsql AS $$
		DECLARE
			v_ids integer[] := ARRAY(SELECT dimension_user_id FROM bench_touched ORDER BY position);
			v_id integer;
			v_next timestamptz := clock_timestamp();
		BEGIN
			FOREACH v_id IN ARRAY v_ids LOOP
				PERFORM dwh.etl_add_facts(1, ARRAY[v_id]);
				INSERT INTO bench_log VALUES (v_id);
				COMMIT;
				v_next := v_next + p_pause;
				PERFORM pg_sleep(greatest(0, extract(epoch FROM v_next - clock_timestamp())));
			END LOOP;
		END $$' -c '
		CREATE PROCEDURE bench_refill() LANGUAGE plpgsql AS $$
		DECLARE
			v_ids integer[];
		BEGIN
			WHILE NOT EXISTS (SELECT FROM bench_stop) LOOP
				v_ids := ARRAY(SELECT dimension_user_id FROM dwh.dimension_users JOIN bench_backlog USING (dimension_user_id) WHERE NOT modified);
				INSERT INTO bench_kept SELECT count(*) - cardinality(v_ids) FROM bench_backlog;
				UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id = ANY (v_ids);
				COMMIT;
				PERFORM pg_sleep(0.5);
			END LOOP;
		END $$' -c '
		CREATE PROCEDURE bench_disturb() LANGUAGE plpgsql AS $$
		BEGIN
			WHILE NOT EXISTS (SELECT FROM bench_stop) LOOP
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
	sql "$database" -c "TRUNCATE $datamart, bench_log, bench_kept, bench_stop" -c '
		UPDATE dwh.dimension_users SET modified = (dimension_user_id IN (SELECT dimension_user_id FROM bench_backlog))' -c '
		VACUUM ANALYZE dwh.dimension_users' -c CHECKPOINT
}

export_settings() { export PGOPTIONS="-c datamart_users.procedure=$procedure -c datamart_users.progress_interval=0"; }

# The ways, each until it is killed or told to stop.

run_service() {
	export_settings
	query "$database" "SELECT datamart_users_start_service($workers, '$poll ms')" >/dev/null
}

stop_service() { query "$database" 'SELECT datamart_users_stop_service()' >/dev/null; }

run_cycles() {
	export_settings
	(
		while [[ ! -e $workspace/tmp/stop ]]; do
			query "$database" "SELECT status FROM datamart_users_run_cycle(100000, $workers, '1 s')" >/dev/null
		done
	) &
	runner=$!
}

stop_cycles() {
	touch "$workspace/tmp/stop"
	wait "$runner"
	rm "$workspace/tmp/stop"
}

# A group of its own, so that all that it has started ends with it.
run_script() {
	PGDATABASE=$database as_server_user setsid \
		bash -c "echo \$\$ >'$workspace/tmp/script.pid'; while true; do bash bench/psql_per_user.sh $workers 1000 $procedure >/dev/null; done" &
	runner=$!
}

stop_script() {
	as_server_user kill -TERM -- "-$(<"$workspace/tmp/script.pid")" || true
	wait "$runner" 2>/dev/null || true
}

# What people see of a service while it works.
record_views() {
	local view
	for view in datamart_users_service datamart_users_progress datamart_users_workers; do
		printf 'warehouse=> SELECT * FROM %s \\gx\n' "$view"
		sql "$database" -x -c "SELECT * FROM $view"
		printf '\n'
	done >"$results/views.txt"
}

missing() {
	query "$database" "SELECT count(*) FROM bench_log AS l LEFT JOIN $datamart AS d USING (dimension_user_id) WHERE d.dimension_user_id IS NULL"
}

# One line for each whom the ETL has touched: way, milliseconds, missing or not.
record_times() {
	query "$database" "
		SELECT format(E'%s\t%s\t%s', '$1',
					  round(extract(epoch FROM coalesce(pg_xact_commit_timestamp(d.xmin), clock_timestamp())
											   - pg_xact_commit_timestamp(l.xmin)) * 1000, 3),
					  CASE WHEN d.dimension_user_id IS NULL THEN 'missing' ELSE 'refreshed' END)
		FROM bench_log AS l
		LEFT JOIN $datamart AS d USING (dimension_user_id)" >>"$results/freshness.tsv"
	query "$database" "
		SELECT format(E'%s\t%s\t%s\t%s', '$1', min(waiting), round(avg(waiting)), (SELECT count(*) FROM $datamart))
		FROM bench_kept" >>"$results/backlog.tsv"
}

measure() {
	local etl refill disturber deadline
	reset
	query "$database" 'CALL bench_disturb()' &
	disturber=$!
	query "$database" 'CALL bench_refill()' &
	refill=$!
	"run_$1"
	# A way is to be at work, not at its beginning.
	sleep 3
	query "$database" "CALL bench_etl(interval '1 s' / $per_second)" &
	etl=$!
	sleep "$((seconds / 2))"
	if [[ $1 = service ]]; then
		record_views
	fi
	wait "$etl"
	deadline=$((SECONDS + patience))
	while ((SECONDS < deadline)) && [[ $(missing) -gt 0 ]]; do
		sleep 1
	done
	record_times "$1"
	sql "$database" -c 'INSERT INTO bench_stop DEFAULT VALUES'
	"stop_$1"
	wait "$refill" "$disturber"
}

# Percentiles of a way, and how many times better the service is.
show_table() {
	sort -t $'\t' -k1,1 -k2,2g "$results/freshness.tsv" |
		awk -F '\t' -v ways="$ways" '
			function rank(share, n) { n = int(count[w] * share); return n < count[w] * share ? n + 1 : n }
			function shown(ms) { return (ms >= first[w] ? ">" : "") sprintf("%.0f", ms) }
			function ratio(ms, base) { return base > 0 ? (ms >= first[w] ? ">" : "") sprintf("%.1f", ms / base) : "" }
			NR == FNR { kept[$1] = $2 " / " $3; next }
			{ ms[$1, ++count[$1]] = $2; first[$1] += 0 }
			$3 == "missing" { if (!missing[$1]++) first[$1] = $2 }
			END {
				names["service"] = "service"; names["cycles"] = "cycles of a second, back to back"
				names["script"] = "bash queue, cycles of 1000"
				print "| | touched | missing | p50 ms | p99 ms | max ms | times the service, p50 | p99 | backlog, least / mean |"
				print "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
				n = split(ways, way, " ")
				for (i = 1; i <= n; i++) {
					w = way[i]
					if (!count[w]) continue
					if (!missing[w]) first[w] = 1e300
					p50 = ms[w, rank(0.5)]; p99 = ms[w, rank(0.99)]
					if (w == "service") { base50 = p50; base99 = p99 }
					printf "| %s | %d | %d | %s | %s | %s | %s | %s | %s |\n", names[w], count[w], missing[w],
						shown(p50), shown(p99), shown(ms[w, count[w]]), ratio(p50, base50), ratio(p99, base99), kept[w]
				}
			}' "$results/backlog.tsv" -
}

prepare_machine
prepare_workspace
mkdir -p "$results"
rm -f "$results"/{freshness,backlog}.tsv
build_extension
install_extension
start_server 'track_commit_timestamp = on' 'shared_buffers = 512MB' 'max_wal_size = 4GB' 'autovacuum_naptime = 10s'
build_warehouse "$database" "$users" "$facts"
prepare_bench

say "Backlog of $backlog, $procedure, $workers workers, poll $poll ms, $seconds s each"
for way in $ways; do
	note "$way"
	measure "$way"
done
show_table | tee "$results/freshness.md"
say "Results are in $results"
