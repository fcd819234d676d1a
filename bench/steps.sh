# shellcheck shell=bash
#
# steps.sh
#		What a light refresh is made of: one session that calls the procedure in
#		a loop, in one transaction; the same with one step more each, until it
#		does what a cycle does; and a cycle with one worker.  With the light
#		procedure, and with one that only writes a row.

# The variables are the caller's.
# shellcheck disable=SC2034,SC2154

declare -A step_label=(
	[call]='CALL, all in one transaction'
	[clear]='and the flag is cleared'
	[commit]='and a COMMIT each, asynchronous'
	[look]='and a look whether the flag is set'
	[cycle]='a cycle with one worker'
)
step_order=(call clear commit look cycle)

# step_body NAME: of the loop.
step_body() {
	local call="CALL $procedure(id);" clear='UPDATE dwh.dimension_users SET modified = FALSE WHERE dimension_user_id = id;'
	case $1 in
	call) echo "$call" ;;
	clear) echo "$call $clear" ;;
	commit) echo "$call $clear COMMIT;" ;;
	look)
		echo "SELECT modified INTO is_modified FROM dwh.dimension_users WHERE dimension_user_id = id;
			IF is_modified THEN $call $clear END IF; COMMIT;"
		;;
	esac
}

# step_ms NAME: milliseconds of all of them, as the server tells.
step_ms() {
	PGOPTIONS=$worker_settings query "$database" "
		DO \$\$
		DECLARE
			ids integer[] := ARRAY(SELECT dimension_user_id FROM bench_users ORDER BY position);
			id integer;
			is_modified boolean;
			began timestamptz := clock_timestamp();
		BEGIN
			FOREACH id IN ARRAY ids LOOP
				$(step_body "$1")
			END LOOP;
			INSERT INTO bench_steps VALUES (1000 * extract(epoch FROM clock_timestamp() - began));
		END \$\$"
	query "$database" 'SELECT ms FROM bench_steps'
}

measure_steps() {
	local group kind procedure turn ms
	local -a turns
	create_row_procedure
	sql "$database" -c 'DROP TABLE IF EXISTS bench_steps' -c 'CREATE TABLE bench_steps (ms float8)' >/dev/null
	# Those of most datamart users: a handful of facts.
	choose "$light" 'actions <= 5'
	light=$(query "$database" 'SELECT count(*) FROM bench_users')
	for ((round = 1; round <= rounds; round++)); do
		mapfile -t turns < <(for kind in light row; do printf "$kind %s\n" "${step_order[@]}"; done | shuf)
		for turn in "${turns[@]}"; do
			read -r kind turn <<<"$turn"
			procedure=$row_procedure
			group="a procedure that writes a row, $(thousands "$light") datamart users"
			if [[ $kind = light ]]; then
				procedure=$light_procedure
				group="light procedure, $(thousands "$light") datamart users with up to 5 actions"
			fi
			sql "$database" -c 'TRUNCATE bench_steps'
			reset "$procedure" "$light"
			begin_measurement "$group" "$turn" 1
			if [[ $turn = cycle ]]; then
				run_cycle "$light" 1 "$procedure"
				ms=$(calculate "$(elapsed_ms) - $(prioritisation_ms)")
			else
				ms=$(step_ms "$turn")
			fi
			end_measurement
			record "$group" "$turn" microseconds us "$(calculate "1000 * $ms / $light")"
		done
	done
}

show_steps() {
	local group step
	local -a cases=()
	for step in "${step_order[@]}"; do
		cases+=("$step=${step_label[$step]}")
	done
	while read -r group; do
		chapter "Steps: $group"
		paragraph 'Microseconds for each datamart user, in one process:'
		table "$group" us 1 'step' "${cases[@]}" <"$scratch/summary" | page
	done < <(groups)
}
