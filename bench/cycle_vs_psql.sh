#!/usr/bin/env bash
#
# cycle_vs_psql.sh [--take N] [--workers N] [--rounds N] [--procedure heavy|light]
#                  [--users N] [--facts N] [--sample]
#
# Measures a cycle against the scheme it replaces, a psql per datamart user
# (psql_per_user.sh): the same datamart users in the same private server,
# both once a round, taking turns at going first.  Times include the
# prioritisation.  Before every run the same datamart users are flagged, the
# datamart is empty, and tables are vacuumed and on disk.
#
#	--take N		datamart users that a run refreshes (default 1000)
#	--workers N		parallel workers of both (default 2)
#	--rounds N		(default 4)
#	--procedure P	heavy or light (default heavy)
#	--users N		datamart users in the warehouse (default 20000)
#	--facts N		facts in the warehouse (default 1000000)
#	--sample		take a random sample, not the head of the queue

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/../test/lib.sh"

take=1000
workers=2
rounds=4
users=20000
facts=1000000
procedure=dwh.update_datamart_user
datamart=dwh.datamartusers
sample=no
database=warehouse

while [[ $# -gt 0 ]]; do
	case $1 in
	--take | --workers | --rounds | --users | --facts)
		value=$(positive_number "$1" "${2:-}")
		declare "${1#--}=$value"
		shift
		;;
	--procedure)
		[[ ${2:-} =~ ^(heavy|light)$ ]] || die '--procedure needs heavy or light'
		if [[ $2 = light ]]; then
			procedure=dwh.update_datamart_user_light
			datamart=dwh.datamartusers_light
		fi
		shift
		;;
	--sample) sample=yes ;;
	-h | --help)
		usage
		exit
		;;
	*) die "unknown argument $1, see --help" ;;
	esac
	shift
done

# Chooses the datamart users that every run refreshes.
choose_datamart_users() {
	local order=queue_position
	if [[ $sample = yes ]]; then
		order='dwh.noise(dimension_user_id, 7)'
	fi
	# Those without facts are not in the queue of the older scheme.
	sql "$database" -c "
		CREATE TABLE bench_users AS
		SELECT dimension_user_id
		FROM datamart_users_queue($users)
		WHERE action_count > 0
		ORDER BY $order
		LIMIT $take"
	take=$(query "$database" 'SELECT count(*) FROM bench_users')
}

reset() {
	sql "$database" -c "TRUNCATE $datamart" -c '
		UPDATE dwh.dimension_users SET modified = FALSE WHERE modified' -c '
		UPDATE dwh.dimension_users SET modified = TRUE
		WHERE dimension_user_id IN (SELECT dimension_user_id FROM bench_users)' -c '
		VACUUM ANALYZE dwh.dimension_users' -c CHECKPOINT
}

run_psql() {
	PGDATABASE=$database as_server_user bash bench/psql_per_user.sh "$workers" "$take" "$procedure"
}

run_cycle() {
	PGOPTIONS="-c datamart_users.procedure=$procedure -c datamart_users.progress_interval=0" \
		query "$database" "SELECT failed FROM datamart_users_run_cycle($take, $workers)"
}

# measure NAME: runs run_NAME, prints a line about it and keeps its speed.
measure() {
	local load failures left started elapsed
	reset
	read -r load _ </proc/loadavg
	started=$(date +%s%N)
	failures=$("run_$1")
	elapsed=$(($(date +%s%N) - started))
	left=$(query "$database" "
		SELECT (SELECT count(*) FROM dwh.dimension_users WHERE modified)
			   + (SELECT count(*) FROM dwh.stale_datamart_users('$datamart') WHERE datamart IS NOT NULL)
			   + $take - (SELECT count(*) FROM $datamart)")
	awk -v users="$take" -v ns="$elapsed" 'BEGIN { print users / ns * 1e9 }' |
		tee -a "$results/$1" |
		awk -v round="$round" -v name="$1" -v ns="$elapsed" -v failed="$failures" -v left="$left" -v load="$load" \
			'{ printf "%5d  %-5s  %8.2f s  %8.1f users/s  %d failed  %d not done  load %s\n", round, name, ns / 1e9, $1, failed, left, load }'
}

# median NAME: of the users per second.
median() {
	sort -g "$results/$1" |
		awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'
}

prepare_machine
prepare_workspace
build_extension
install_extension
start_server
build_warehouse "$database" "$users" "$facts"
choose_datamart_users
results=$workspace/results
mkdir "$results"

say "$take datamart users, $workers workers, $procedure"
for ((round = 1; round <= rounds; round++)); do
	if ((round % 2)); then
		measure psql
		measure cycle
	else
		measure cycle
		measure psql
	fi
done

say 'Medians'
awk -v psql="$(median psql)" -v cycle="$(median cycle)" 'BEGIN {
	printf "   a psql per datamart user  %8.1f users/s\n", psql
	printf "   a cycle                   %8.1f users/s, %.1f times as fast\n", cycle, cycle / psql
}'
