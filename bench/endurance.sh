#!/usr/bin/env bash
#
# endurance.sh
#
# Does a service stay as it is?  One with the light procedure refreshes very many
# datamart users, because an ETL flags those who were refreshed again and again.
# Time and again it is written down how much memory its processes have for
# themselves (RssAnon), how many dynamic shared memory segments the server has, and
# how large the tables of the extension are.  At the end: the first, the middle and
# the last of these, and the last by the middle one.
#
# Sizes come from the environment:
#
#	REFRESHES		to be done (50000)
#	SAMPLES			how often it is written down (20)
#	WORKERS			of the service (2)
#	POLL			of the service, milliseconds (200)
#	USERS, FACTS	datamart users and facts of the warehouse (20000, 100000)
#	RESULTS			folder for the samples (a new one in /tmp)
#
# A million takes some minutes: REFRESHES=1000000 bash bench/endurance.sh
#
# PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config selects another major.

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/../test/lib.sh"

if [[ $# -gt 0 ]]; then
	[[ $1 = -h || $1 = --help ]] || die "unknown argument $1, see --help"
	usage
	exit
fi
refreshes=$(positive_number REFRESHES "${REFRESHES:-50000}")
samples=$(positive_number SAMPLES "${SAMPLES:-20}")
workers=$(positive_number WORKERS "${WORKERS:-2}")
poll=$(positive_number POLL "${POLL:-200}")
users=$(positive_number USERS "${USERS:-20000}")
facts=$(positive_number FACTS "${FACTS:-100000}")
results=${RESULTS:-/tmp/datamart_users_endurance.$(date +%Y%m%d-%H%M%S)}
database=warehouse

# The ETL adds a fact for one in ten, and flags all who are not flagged any more.
prepare_bench() {
	sql "$database" -c 'CREATE TABLE bench_stop ()' -c '
		CREATE PROCEDURE bench_etl() LANGUAGE plpgsql AS $$
		BEGIN
			WHILE NOT EXISTS (SELECT FROM bench_stop) LOOP
				PERFORM dwh.etl_add_facts(20);
				COMMIT;
				UPDATE dwh.dimension_users SET modified = TRUE WHERE NOT modified;
				COMMIT;
				PERFORM pg_sleep(0.5);
			END LOOP;
		END $$'
}

# Refreshes so far: those of cycles that have ended, and of the one at work.
done_so_far() {
	query "$database" '
		SELECT (SELECT coalesce(sum(processed), 0) FROM datamart_users_cycles WHERE finished_at IS NOT NULL)
			 + (SELECT coalesce(sum(processed), 0) FROM datamart_users_progress)'
}

# memory_of PID...: the most that one of them has for itself, kB.
memory_of() {
	local pid key kb most=0
	for pid in "$@"; do
		while read -r key kb _; do
			if [[ $key = RssAnon: && $kb -gt $most ]]; then
				most=$kb
			fi
		done 2>/dev/null <"/proc/$pid/status" || true
	done
	printf '%s' "$most"
}

pids_of() { query postgres "SELECT pid FROM pg_stat_activity WHERE backend_type = 'datamart_users $1'"; }

# Segments are files, because the server is told so.
segments() { find "$workspace/data/pg_dynshmem" -name 'mmap.*' | wc -l; }

tables() {
	query "$database" "
		SELECT sum(pg_total_relation_size(c.oid)) / 1024
		FROM pg_depend AS d
		JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'datamart_users'
		JOIN pg_class AS c ON c.oid = d.objid AND c.relkind = 'r'
		WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass"
}

# sample DONE: refreshes, then kB of the coordinator and of the largest worker,
# segments, and kB of tables.
sample() {
	local -a coordinator worker
	mapfile -t coordinator < <(pids_of service)
	mapfile -t worker < <(pids_of worker)
	printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$(memory_of "${coordinator[@]}")" "$(memory_of "${worker[@]}")" \
		"$(segments)" "$(tables)" "$((SECONDS - began))" | tee -a "$results/endurance.tsv" |
		awk -F '\t' '{ printf "   %8d refreshes, %5d s: coordinator %6d kB, worker %6d kB, %d segments, tables %d kB\n", $1, $6, $2, $3, $4, $5 }'
}

watch_service() {
	local so_far=0 next=$((refreshes / samples)) last idle_since=
	while ((so_far < refreshes)); do
		last=$so_far
		so_far=$(done_so_far)
		if [[ -z $(pids_of service) ]]; then
			cat "$workspace/server.log"
			die 'the service has ended'
		fi
		if ((so_far >= next && so_far > 0)); then
			sample "$so_far"
			next=$((so_far + refreshes / samples))
		fi
		((so_far > last)) || idle_since=${idle_since:-$SECONDS}
		((so_far == last)) || idle_since=
		((SECONDS - ${idle_since:-$SECONDS} < 300)) || die 'nobody was refreshed for five minutes'
		sleep 0.5
	done
	sample "$so_far"
}

show_table() {
	awk -F '\t' '
		{ for (i = 1; i <= 6; i++) v[NR, i] = $i }
		END {
			split("|coordinator, kB|largest worker, kB|segments|tables, kB|seconds", name, "|")
			middle = int((NR + 1) / 2)
			printf "| after refreshes | %d | %d | %d | last by middle |\n| --- | --- | --- | --- | --- |\n", v[1, 1], v[middle, 1], v[NR, 1]
			for (i = 2; i <= 6; i++)
				printf "| %s | %d | %d | %d | %s |\n", name[i], v[1, i], v[middle, i], v[NR, i],
					(i < 6 && v[middle, i] > 0 ? sprintf("%.2f", v[NR, i] / v[middle, i]) : "")
		}' "$results/endurance.tsv"
}

prepare_machine
prepare_workspace
mkdir -p "$results"
rm -f "$results/endurance.tsv"
build_extension
install_extension
start_server 'dynamic_shared_memory_type = mmap' 'autovacuum_naptime = 10s' 'max_wal_size = 4GB' 'shared_buffers = 256MB'
build_warehouse "$database" "$users" "$facts"
prepare_bench

say "$refreshes refreshes, up to $workers workers, poll $poll ms"
began=$SECONDS
PGOPTIONS='-c datamart_users.procedure=dwh.update_datamart_user_light -c datamart_users.log_every_users=0' \
	query "$database" "SELECT datamart_users_start_service($workers, '$poll ms')" >/dev/null
query "$database" 'CALL bench_etl()' &
etl=$!
watch_service
sql "$database" -c 'INSERT INTO bench_stop DEFAULT VALUES'
wait "$etl"
query "$database" 'SELECT datamart_users_stop_service()' >/dev/null
show_table | tee "$results/endurance.md"
note "$(query "$database" 'SELECT format($$%s cycles, %s failed, %s deferred$$, count(*), sum(failed), sum(deferred)) FROM datamart_users_cycles')"
say "Results are in $results"
