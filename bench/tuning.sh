# shellcheck shell=bash
#
# tuning.sh
#		Settings that could matter for light refreshes, one at a time: of the
#		server, of the caller and of the workers; and the isolation level, which
#		a cycle does not leave to its caller, in sessions of pgbench.

# The variables are the caller's.
# shellcheck disable=SC2034,SC2154

declare -A tuning_label=(
	[plain]='as it comes'
	[work_mem]='work_mem = 64MB'
	[no_parallel]='max_parallel_workers_per_gather = 0'
	[parallel_4]='max_parallel_workers_per_gather = 4'
	[no_counts]='track_counts = off'
	[no_activities]='track_activities = off'
	[wal_writer_10ms]='wal_writer_delay = 10ms'
	[wal_writer_2s]='wal_writer_delay = 2s'
	[no_flush_after]='wal_writer_flush_after = 0'
	[synchronous]='synchronous_commit = on, in worker_settings'
	[pgbench_rc]='one session of pgbench, read committed'
	[pgbench_rr]='the same, repeatable read'
)
tuning_order=(plain work_mem no_parallel parallel_4 no_counts no_activities wal_writer_10ms wal_writer_2s no_flush_after
	synchronous pgbench_rc pgbench_rr)

# server_setting NAME VALUE: without a value, as it was.
server_setting() {
	if [[ -n ${2:-} ]]; then
		sql "$database" -c "ALTER SYSTEM SET $1 = '$2'"
	else
		sql "$database" -c "ALTER SYSTEM RESET $1"
	fi
	sql "$database" -c 'SELECT pg_reload_conf()' >/dev/null
}

# How often the WAL writer has slept so far; each commit may wake it.
sleeps_of_wal_writer() {
	local pid
	pid=$(query "$database" "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
	sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "/proc/$pid/status"
}

tuned_cycle() {
	run_cycle "$light" "${workers_list[0]}" "$light_procedure" "$@"
}

# tuning_run CASE
tuning_run() {
	case $1 in
	plain | wal_writer_* | no_flush_after) tuned_cycle ;;
	work_mem) tuned_cycle work_mem=64MB ;;
	no_parallel) tuned_cycle max_parallel_workers_per_gather=0 ;;
	parallel_4) tuned_cycle max_parallel_workers_per_gather=4 ;;
	no_counts) tuned_cycle track_counts=off ;;
	no_activities) tuned_cycle track_activities=off ;;
	synchronous)
		tuned_cycle 'datamart_users.worker_settings=jit = off, plan_cache_mode = force_generic_plan, max_parallel_workers_per_gather = 0, synchronous_commit = on'
		;;
	pgbench_rc) prepared "$worker_settings" 1 "$light" ;;
	pgbench_rr) prepared "$worker_settings -c default_transaction_isolation=repeatable\\ read" 1 "$light" ;;
	esac
}

measure_tuning() {
	local group case refresh_ms slept procedure=$light_procedure
	local -a turns
	if [[ ${#cases[@]} -eq 0 ]]; then
		cases=("${tuning_order[@]}")
	fi
	for case in "${cases[@]}"; do
		[[ -n ${tuning_label[$case]:-} ]] || die "unknown case $case, there are: ${tuning_order[*]}"
	done
	choose "$light"
	light=$(query "$database" "SELECT count(*) - count(*) % ${workers_list[0]} FROM bench_users")
	group="light procedure, $(thousands "$light") datamart users of $(size_name), ${workers_list[0]} workers"
	for ((round = 1; round <= rounds; round++)); do
		mapfile -t turns < <(printf '%s\n' "${cases[@]}" | shuf)
		for case in "${turns[@]}"; do
			case $case in
			wal_writer_10ms) server_setting wal_writer_delay 10ms ;;
			wal_writer_2s) server_setting wal_writer_delay 2s ;;
			no_flush_after) server_setting wal_writer_flush_after 0 ;;
			esac
			reset "$light_procedure" "$light"
			slept=$(sleeps_of_wal_writer)
			begin_measurement "$group" "$case" "${workers_list[0]}"
			tuning_run "$case"
			end_measurement
			verify "$case" "$light_procedure" "$light"
			refresh_ms=$elapsed
			if [[ $case != pgbench_* ]]; then
				refresh_ms=$(calculate "$(elapsed_ms) - $(prioritisation_ms)")
				record "$group" "$case" prioritisation ms "$(prioritisation_ms)"
			fi
			record "$group" "$case" refreshes ms "$refresh_ms"
			record "$group" "$case" processor ms "$used_server"
			record "$group" "$case" wake-ups ms "$(($(sleeps_of_wal_writer) - slept))"
			server_setting wal_writer_delay
			server_setting wal_writer_flush_after
		done
	done
}

show_tuning() {
	local group case
	local -a cases=()
	for case in "${tuning_order[@]}"; do
		cases+=("$case=${tuning_label[$case]}")
	done
	while read -r group; do
		chapter "Settings: $group"
		paragraph 'Milliseconds of prioritisation, of the refreshes, and of processor time of the server; and how often the WAL writer was woken:'
		columns='prioritisation refreshes processor wake-ups' table "$group" ms 0 'setting' "${cases[@]}" <"$scratch/summary" | page
	done < <(groups)
}
