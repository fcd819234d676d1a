# shellcheck shell=bash
#
# growth.sh
#		Cost of a datamart user and memory of a worker, by length of the queue,
#		with the light procedure.  Memory is what a process has for itself
#		(RssAnon), of a worker early and at its most.  The coordinator, who has
#		counted everybody, keeps that until it has written it down.

# The variables are the caller's.
# shellcheck disable=SC2154

# watch_memory FILE: the memory of each process of a cycle, kB, time and again
# while there is a file FILE.on.  Without the server, which is at work.
watch_memory() {
	local postmaster kind pid key kb
	read -r postmaster <"$workspace/data/postmaster.pid"
	while [[ -e $1.on ]]; do
		for kind in worker coordinator; do
			for pid in $(pgrep -P "$postmaster" -f "datamart_users $kind" || true); do
				while read -r key kb _; do
					if [[ $key = RssAnon: ]]; then
						printf '%s\t%s\t%s\n' "$kind" "$pid" "$kb" >>"$1"
					fi
				done 2>/dev/null <"/proc/$pid/status" || true
			done
		done
		sleep 0.3
	done
}

# record_memory FILE: what was watched; a short cycle may be over before anybody
# looks.
record_memory() {
	local figure value
	# The first sample of a worker may be from before its plans.
	while read -r figure value; do
		record "$group" cycle "$length" "$figure" "$value"
	done < <(awk -F '\t' '
		$1 == "coordinator" { if ($3 > c) c = $3 }
		$1 == "worker" { n[$2]++; if (!($2 in early) || n[$2] == 2) early[$2] = $3; if ($3 > most[$2]) most[$2] = $3 }
		END {
			for (pid in most) { if (most[pid] > m) m = most[pid]; if (early[pid] > e) e = early[pid] }
			if (m > 0) { print "mb_early", e / 1024; print "mb_most", m / 1024 }
			if (c > 0) print "mb_coordinator", c / 1024
		}' "$1")
}

measure_growth() {
	local group length watcher file=$workspace/tmp/memory filled
	local -a lengths
	group="light procedure, ${workers_list[0]} workers, $(size_name)"
	for ((round = 1; round <= rounds; round++)); do
		mapfile -t lengths < <(printf '%s\n' "${growth[@]}" | shuf)
		for length in "${lengths[@]}"; do
			# Also those without facts, who are cheaper; a random mixture in any
			# case.
			sql "$database" -c "TRUNCATE $(datamart_of "$light_procedure")"
			flag "dimension_user_id IN (SELECT dimension_user_id FROM dwh.dimension_users ORDER BY dwh.noise(dimension_user_id, 13) LIMIT $length)"
			: >"$file"
			: >"$file.on"
			watch_memory "$file" &
			watcher=$!
			begin_measurement "$group" cycle "$length"
			run_cycle "$length" "${workers_list[0]}" "$light_procedure"
			end_measurement
			rm "$file.on"
			wait "$watcher" || true
			filled=$(query "$database" "SELECT count(*) FROM $(datamart_of "$light_procedure")")
			[[ $filled -eq $length ]] || die "growth: $filled of $length are done"
			record "$group" cycle "$length" us_each \
				"$(calculate "($(elapsed_ms) - $(prioritisation_ms)) * 1000 * ${workers_list[0]} / $length")"
			record "$group" cycle "$length" us_refresh "$(query "$database" "
				SELECT 1000000 * extract(epoch FROM sum(total_time) - (
					SELECT sum(elapsed) FROM (
						SELECT elapsed FROM datamart_users_slowest WHERE cycle_id = $cycle_id
						ORDER BY elapsed DESC LIMIT ${workers_list[0]}) AS first_calls)) / sum(processed)
				FROM datamart_users_cycle_priorities WHERE cycle_id = $cycle_id")"
			record "$group" cycle "$length" us_prioritise "$(calculate "$(prioritisation_ms) * 1000 / $length")"
			record "$group" cycle "$length" cpu_each "$(calculate "$used_server * 1000 / $length")"
			record_memory "$file"
		done
	done
}

show_growth() {
	local group
	# One row a figure reads better than a table a figure.
	awk -F '\t' -v OFS='\t' '{ print $1, $4, $3, "value", $5, $6, $7, $8 }' "$scratch/summary" >"$scratch/growth"
	while read -r group; do
		chapter "Growth: $group"
		paragraph 'By length of the queue:'
		table "$group" value 1 'datamart users' 'us_each=microseconds of a worker for each, without prioritisation' \
			'us_refresh=of that, its refresh, without the slowest of each worker' \
			'us_prioritise=microseconds of prioritisation for each' 'cpu_each=microseconds of processor time for each, all of it' \
			'mb_early=memory of the largest worker early, MB' 'mb_most=and at its most' \
			'mb_coordinator=of the coordinator, at its most' <"$scratch/growth" | page
		awk -F '\t' -v OFS='\t' -v group="$group" '$1 == group && $2 == "us_refresh" { print $3, $6, $7, $8 }' "$scratch/growth" |
			sort -g >"$scratch/growth.cost"
		awk -F '\t' -v OFS='\t' -v group="$group" '$1 == group && $2 == "mb_most" { print $3, $6, $7, $8 }' "$scratch/growth" |
			sort -g >"$scratch/growth.memory"
		plot growth <<-END
			set title 'Growth: $group'
			set logscale x
			set xlabel 'datamart users in the queue'
			set ylabel 'microseconds of a worker for each'
			set y2label 'memory of a worker, MB'
			set ytics nomirror
			set y2tics
			set yrange [0:*]
			set y2range [0:*]
			set key bottom left
			plot '$scratch/growth.cost' using 1:2:3:4 with yerrorlines lt 1 lw 2 pt 7 ps 0.6 title 'time', \
				'$scratch/growth.memory' using 1:2:3:4 axes x1y2 with yerrorlines lt 2 lw 2 pt 7 ps 0.6 title 'memory'
		END
	done < <(groups)
}
