# shellcheck shell=bash
#
# first.sh
#		From the call of a cycle to its first commit, less the prioritisation
#		and the first call of the procedure: what the machinery takes to start.
#
# The procedure writes down when it was called and when it was done; an
# asynchronous commit follows within microseconds.

# The variables are the caller's.
# shellcheck disable=SC2034,SC2154

measure_first() {
	local group workers kind procedure called stamps start first total
	local -a turns
	sql "$database" -c 'DROP TABLE IF EXISTS bench_stamps' -c '
		CREATE TABLE bench_stamps (began timestamptz, ended timestamptz)' >/dev/null
	for kind in light heavy; do
		procedure=$heavy_procedure
		if [[ $kind = light ]]; then
			procedure=$light_procedure
		fi
		sql "$database" -c "
			CREATE OR REPLACE PROCEDURE bench_stamped_$kind(id integer) LANGUAGE plpgsql AS '
			DECLARE
				began timestamptz := clock_timestamp();
			BEGIN
				CALL $procedure(id);
				INSERT INTO public.bench_stamps VALUES (began, clock_timestamp());
			END'"
	done
	choose 20
	for ((round = 1; round <= rounds; round++)); do
		mapfile -t turns < <(for workers in "${workers_list[@]}"; do printf '%s\n' "light $workers" "heavy $workers"; done | shuf)
		for turn in "${turns[@]}"; do
			read -r kind workers <<<"$turn"
			procedure=$heavy_procedure
			if [[ $kind = light ]]; then
				procedure=$light_procedure
			fi
			group="$kind procedure of $(size_name)"
			sql "$database" -c 'TRUNCATE bench_stamps'
			reset "$procedure" 20
			begin_measurement "$group" cycle "$workers"
			called=$(as_server_user psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" \
				-c "SET datamart_users.procedure = 'bench_stamped_$kind'" \
				-c 'SELECT extract(epoch FROM clock_timestamp())' \
				-c "SELECT cycle_id FROM datamart_users_run_cycle(20, $workers)")
			end_measurement
			verify first "$procedure" 20
			cycle_id=${called##*$'\n'}
			called=${called%%$'\n'*}
			# ms: call to first CALL, and that CALL.
			stamps=$(query "$database" "
				SELECT 1000 * (extract(epoch FROM began) - $called) || ' ' || 1000 * extract(epoch FROM ended - began)
				FROM bench_stamps ORDER BY ended LIMIT 1")
			read -r start first <<<"$stamps"
			total=$(prioritisation_ms)
			record "$group" cycle "$workers" prioritisation "$total"
			record "$group" cycle "$workers" first_call "$first"
			record "$group" cycle "$workers" machinery "$(calculate "$start - $total")"
			record "$group" cycle "$workers" first_commit "$(calculate "$start + $first")"
		done
	done
}

show_first() {
	local group
	awk -F '\t' -v OFS='\t' '{ print $1, $4, $3, "value", $5, $6, $7, $8 }' "$scratch/summary" >"$scratch/first"
	while read -r group; do
		chapter "First commit: $group"
		paragraph 'Milliseconds, by number of workers:'
		table "$group" value 1 'workers' 'first_commit=from the call to the first commit' 'prioritisation=of that, prioritisation' \
			'first_call=of that, the first call of the procedure' 'machinery=of that, all else' <"$scratch/first" | page
	done < <(groups)
}
