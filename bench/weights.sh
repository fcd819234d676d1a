# shellcheck shell=bash
#
# weights.sh
#		Generic plans or custom ones, by number of actions, with the heavy
#		procedure: single calls in one session, for the curve; and cycles over a
#		few heavy, some medium, many light datamart users and all of them, with
#		each plan_cache_mode, and with plans by weight where the extension has
#		datamart_users.custom_plan_actions.

# The variables are the caller's.
# shellcheck disable=SC2034,SC2154

declare -A weight_label=(
	[generic]='force_generic_plan'
	[custom]='force_custom_plan'
	[auto]='auto'
	[weights]='plans by weight'
)

# A datamart user for each power of two; the first calls, which plan, are
# not counted.
measure_calls() {
	local mode actions ms
	begin_measurement 'single calls' both "$round"
	PGOPTIONS=$worker_settings sql "$database" -c 'DROP TABLE IF EXISTS bench_calls' -c '
		CREATE TABLE bench_calls (mode text, actions bigint, ms float8)' -c "
		DO \$\$
		DECLARE
			called record;
			mode text;
			began timestamptz;
		BEGIN
			SELECT * INTO called FROM bench_counts ORDER BY actions, dimension_user_id LIMIT 1;
			CALL $heavy_procedure(called.dimension_user_id);
			FOR called IN
				SELECT * FROM (
					SELECT *, floor(log(2, actions)) AS power,
						   row_number() OVER (PARTITION BY floor(log(2, actions)) ORDER BY dwh.noise(dimension_user_id, $round)) AS n
					FROM bench_counts) AS numbered
				WHERE n = 1 ORDER BY random()
			LOOP
				FOREACH mode IN ARRAY CASE WHEN random() < 0.5 THEN '{generic,custom}' ELSE '{custom,generic}' END::text[] LOOP
					PERFORM set_config('plan_cache_mode', 'force_' || mode || '_plan', TRUE);
					began := clock_timestamp();
					CALL $heavy_procedure(called.dimension_user_id);
					INSERT INTO bench_calls VALUES (mode, (2 ^ called.power)::bigint, 1000 * extract(epoch FROM clock_timestamp() - began));
				END LOOP;
			END LOOP;
		END \$\$" -c CHECKPOINT >/dev/null
	end_measurement
	while read -r mode actions ms; do
		record 'single calls' "$mode" "$actions" ms "$ms"
	done < <(query "$database" "SELECT mode || ' ' || actions || ' ' || ms FROM bench_calls")
}

# measure_weights_cycle KIND MODE
measure_weights_cycle() {
	local kind=$1 mode=$2 take plan
	local -a more=()
	choose 1000000 "dimension_user_id IN (SELECT dimension_user_id FROM bench_kinds WHERE kind = '$kind' OR '$kind' = 'all')"
	take=$(query "$database" 'SELECT count(*) FROM bench_users')
	plan=force_${mode}_plan
	case $mode in
	auto) plan=auto ;;
	weights) plan=force_generic_plan ;;
	*)
		if [[ $by_weight = yes ]]; then
			more=(datamart_users.custom_plan_actions=0)
		fi
		;;
	esac
	reset "$heavy_procedure" "$take"
	begin_measurement "$group" "$mode" "$kind"
	run_cycle "$take" "${workers_list[0]}" "$heavy_procedure" "${more[@]}" \
		"datamart_users.worker_settings=jit = off, plan_cache_mode = $plan, max_parallel_workers_per_gather = 0, synchronous_commit = off"
	end_measurement
	verify "$mode" "$heavy_procedure" "$take"
	record "$group" "$mode" "$kind" seconds "$(calculate "($(elapsed_ms) - $(prioritisation_ms)) / 1000")"
	record "$group" "$mode" "$kind" cpu "$(calculate "$used_server / 1000")"
}

measure_weights() {
	local group by_weight=no turn kind mode
	local -a modes=(generic custom auto) turns
	if has_setting custom_plan_actions; then
		by_weight=yes
		modes+=(weights)
	else
		note 'this build has no datamart_users.custom_plan_actions'
	fi
	sql "$database" -c 'DROP TABLE IF EXISTS bench_kinds' -c "
		CREATE TABLE bench_kinds AS
		(SELECT 'heavy' AS kind, dimension_user_id FROM bench_counts ORDER BY actions DESC, dimension_user_id LIMIT 6)" -c "
		INSERT INTO bench_kinds
		SELECT 'medium', dimension_user_id FROM bench_counts WHERE actions BETWEEN 500 AND 3000
		AND dimension_user_id NOT IN (SELECT dimension_user_id FROM bench_kinds)
		ORDER BY dwh.noise(dimension_user_id, 3) LIMIT 24" -c "
		INSERT INTO bench_kinds
		SELECT 'light', dimension_user_id FROM bench_counts WHERE actions <= 5 ORDER BY dwh.noise(dimension_user_id, 3) LIMIT $((heavy * 2 < 300 ? heavy * 2 : 300))" >/dev/null
	group="heavy procedure, ${workers_list[0]} workers, $(size_name)"
	for ((round = 1; round <= rounds; round++)); do
		measure_calls
		mapfile -t turns < <(for kind in heavy medium light all; do printf "%s $kind\n" "${modes[@]}"; done | shuf)
		for turn in "${turns[@]}"; do
			read -r mode kind <<<"$turn"
			measure_weights_cycle "$kind" "$mode"
		done
	done
}

show_weights() {
	local group mode power
	local -a cases=() powers=()
	for mode in generic custom auto weights; do
		cases+=("$mode=${weight_label[$mode]}")
	done
	chapter 'Plans by weight: single calls in one session'
	paragraph 'Milliseconds of a call of the heavy procedure, by number of actions (from this power of two on):'
	# Long rather than wide.
	awk -F '\t' -v OFS='\t' '$1 == "single calls" { print $1, $3, $2, "value", $5, $6, $7, $8 }' "$scratch/summary" >"$scratch/calls"
	while read -r power; do
		powers+=("$power=$(thousands "$power")")
	done < <(cut -f 2 "$scratch/calls" | sort -nu)
	columns='generic custom' table 'single calls' value 1 'actions' "${powers[@]}" <"$scratch/calls" | page
	for mode in generic custom; do
		awk -F '\t' -v OFS='\t' -v mode="$mode" '$1 == "single calls" && $2 == mode { print $3, $6, $7, $8 }' "$scratch/summary" |
			sort -g >"$scratch/calls.$mode"
	done
	plot weights <<-END
		set title 'A call of the heavy procedure'
		set logscale xy
		set xlabel 'actions of the datamart user'
		set ylabel 'milliseconds'
		set key top left
		plot '$scratch/calls.generic' using 1:2:3:4 with yerrorlines lt 1 lw 2 pt 7 ps 0.6 title 'generic plans', \
			'$scratch/calls.custom' using 1:2:3:4 with yerrorlines lt 2 lw 2 pt 7 ps 0.6 title 'custom plans'
	END
	while read -r group; do
		[[ $group != 'single calls' ]] || continue
		chapter "Plans by weight: cycles, $group"
		paragraph 'Seconds of a cycle, without prioritisation:'
		columns='heavy medium light all' table "$group" seconds 2 'plan_cache_mode' "${cases[@]}" <"$scratch/summary" | page
		paragraph 'Processor time of the server, seconds:'
		columns='heavy medium light all' table "$group" cpu 2 'plan_cache_mode' "${cases[@]}" <"$scratch/summary" | page
	done < <(groups)
}
