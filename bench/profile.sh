# shellcheck shell=bash
#
# profile.sh
#		Where the time of a refresh goes, by perf: samples of the only
#		worker of a cycle that have a function among their callers.  Needs
#		linux-perf, which is installed if this experiment is asked for, and a
#		machine that lets it sample.

# The variables are the caller's.
# shellcheck disable=SC2034,SC2154

declare -A profile_label=(
	[dmu_flag_is_set]='look whether the flag is set'
	[ExecuteCallStmt]='CALL'
	[dmu_flag_clear]='clear the flag'
	[dmu_transaction_commit]='commit'
	[kill]='of that, the signal to the WAL writer'
	[dmu_residue_drop]='what the refresh left in the session'
	[rest]='all else'
	[heap_page_prune_opt]='anywhere: pruning dead versions'
	[LockAcquireExtended]='anywhere: taking locks'
	[GetCachedPlan]='anywhere: plans from the cache'
	[PrefetchSharedBuffer]='anywhere: prefetching'
	[standard_ExecutorStart]='anywhere: start of the executor'
)
profile_order=(dmu_flag_is_set ExecuteCallStmt dmu_flag_clear dmu_transaction_commit kill dmu_residue_drop rest
	heap_page_prune_opt LockAcquireExtended GetCachedPlan PrefetchSharedBuffer standard_ExecutorStart)

# profile_shares: of samples on standard input to "function percent", as far as
# they are refreshes.
profile_shares() {
	awk -v functions="${profile_order[*]}" '
		function sample() {
			if ("dmu_refresh" in stack) {
				all++
				found = 0
				for (i = 1; i <= n; i++)
					if (name[i] in stack) {
						count[name[i]]++
						found += (i <= 6)
					}
				if (!found)
					count["rest"]++
			}
			split("", stack)
		}
		BEGIN { n = split(functions, name, " ") }
		NF == 0 { sample(); next }
		{ sub(/\+0x.*/, "", $2); sub(/^__GI_/, "", $2); stack[$2] = 1 }
		END {
			sample()
			for (i = 1; i <= n; i++)
				if (all > 0)
					print name[i], 100 * count[name[i]] / all
		}'
}

# begin_sampling DATA, end_sampling: of the processes that the postmaster starts
# meanwhile.  perf ends with the command that it runs.
begin_sampling() {
	local postmaster
	read -r postmaster <"$workspace/data/postmaster.pid"
	rm -f "$1" "$workspace/tmp/sampling"
	# shellcheck disable=SC2016
	as_root perf record -q -e cpu-clock -F 1000 --call-graph dwarf,16384 -p "$postmaster" -o "$1" \
		bash -c 'touch "$0"; while [[ -e $0 ]]; do sleep 0.1; done' "$workspace/tmp/sampling" >/dev/null 2>&1 &
	sampler=$!
	while [[ ! -e $workspace/tmp/sampling ]]; do
		kill -0 "$sampler" || return
		sleep 0.1
	done
}

end_sampling() {
	as_root rm -f "$workspace/tmp/sampling"
	wait "$sampler" || true
}

measure_profile() {
	local kind procedure take sampler data=$workspace/tmp/perf.data name percent
	local -a turns
	if ! command -v perf >/dev/null; then
		prepare_machine '?linux-perf'
	fi
	if ! as_root perf record -q -e cpu-clock -o "$data" true >/dev/null 2>&1; then
		note 'leaving out the profile, perf cannot sample here'
		return
	fi
	create_row_procedure
	for ((round = 1; round <= rounds; round++)); do
		mapfile -t turns < <(printf '%s\n' light row heavy | shuf)
		for kind in "${turns[@]}"; do
			take=$light
			case $kind in
			light) procedure=$light_procedure ;;
			row) procedure=$row_procedure ;;
			heavy) procedure=$heavy_procedure take=$heavy ;;
			esac
			if [[ $kind = heavy ]]; then
				choose "$take"
			else
				choose "$take" 'actions <= 5'
			fi
			reset "$procedure" "$take"
			begin_sampling "$data"
			begin_measurement profile "$kind" 1
			run_cycle "$take" 1 "$procedure"
			end_measurement
			end_sampling
			{ as_root perf script -i "$data" -F ip,sym 2>/dev/null || true; } | profile_shares >"$workspace/tmp/shares"
			while read -r name percent; do
				record 'share of the time of a worker' "$name" "$kind" percent "$percent"
			done <"$workspace/tmp/shares"
		done
	done
}

show_profile() {
	local name group
	local -a cases=()
	for name in "${profile_order[@]}"; do
		cases+=("$name=${profile_label[$name]}")
	done
	while read -r group; do
		chapter 'Profile of refreshes'
		paragraph 'Percent of the samples, with the light procedure and one that writes a row, for datamart users with up to 5 actions; and with the heavy one, for a random sample:'
		columns='light row heavy' table "$group" percent 1 'what' "${cases[@]}" <"$scratch/summary" | page
	done < <(groups)
}
