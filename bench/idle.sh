#!/usr/bin/env bash
#
# idle.sh [--seconds N] [--workers N] [--poll MS] [--users N] [--facts N]
#
# What a service costs that has nothing to do: processor time and wake-ups of
# its processes, and WAL, over some minutes, beside the same time without it.
#
#	--seconds N		how long each is watched (default 600)
#	--workers N		(default 2)
#	--poll MS		of the service, milliseconds (default 1000)
#	--users N		datamart users in the warehouse (default 20000)
#	--facts N		facts in the warehouse (default 200000)

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/../test/lib.sh"

seconds=600
workers=2
poll=1000
users=20000
facts=200000
database=warehouse

while [[ $# -gt 0 ]]; do
	case $1 in
	--seconds | --workers | --poll | --users | --facts)
		value=$(positive_number "$1" "${2:-}")
		declare "${1#--}=$value"
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

wal() { query "$database" 'SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '\''0/0'\'')'; }

# Processor time in clock ticks, and how often it slept, of a process.
used() {
	local stat
	stat=$(</proc/"$1"/stat)
	read -r -a stat <<<"${stat##*) }"
	printf '%s %s' "$((stat[11] + stat[12]))" "$(sed -n 's/^voluntary_ctxt_switches:\t//p' "/proc/$1/status")"
}

# Until the service has nobody to refresh, has closed its cycle, and its looks
# have read all that they need for the first time.
wait_until_idle() {
	local deadline=$((SECONDS + 600))
	until [[ $(query "$database" "SELECT count(*) FROM datamart_users_service WHERE state = 'idle'") = 1 ]]; do
		((SECONDS < deadline)) || die 'the service does not come to rest'
		sleep 1
	done
}

watch() {
	local before after pid ticks switches
	declare -A at_start
	sql "$database" -c CHECKPOINT
	for pid in "$@"; do
		at_start[$pid]=$(used "$pid")
	done
	before=$(wal)
	sleep "$seconds"
	after=$(wal)
	note "WAL: $((after - before)) bytes in $seconds s"
	for pid in "$@"; do
		[[ -e /proc/$pid ]] || continue
		read -r ticks switches <<<"$(used "$pid")"
		read -r -a before <<<"${at_start[$pid]}"
		note "$(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c 1-60): $(((ticks - before[0]) * 1000 / $(getconf CLK_TCK))) ms of processor time, $((switches - before[1])) wake-ups"
	done
}

prepare_machine
prepare_workspace
build_extension
install_extension
start_server 'autovacuum = off'
build_warehouse "$database" "$users" "$facts"

say "Without a service, $seconds s"
watch

say "With an idle service, up to $workers workers, poll $poll ms, $seconds s"
PGOPTIONS='-c datamart_users.procedure=dwh.update_datamart_user_light' \
	query "$database" "SELECT datamart_users_start_service($workers, '$poll ms')" >/dev/null
wait_until_idle
sql "$database" -c 'SELECT state, workers, cycles, looks, last_look_time FROM datamart_users_service'
mapfile -t pids < <(query postgres "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'datamart_users %'")
watch "${pids[@]}"
sql "$database" -c 'SELECT state, workers, cycles, looks, last_look_time FROM datamart_users_service'
