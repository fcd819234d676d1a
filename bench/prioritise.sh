# shellcheck shell=bash
#
# prioritise.sh
#		What the order of the next 1000 costs, by how many datamart users are
#		flagged: the query of the script's description; the one statement of
#		datamart_users_priority_query(); and datamart_users_queue(), at the first
#		look at a backlog, at the second one, and after the ETL has touched one
#		in a hundred of all datamart users.
#
# Two indexes are there: the one on the facts that datamart_users_check()
# advises, and one on the flag.  The description has neither, so its query is
# measured once more without them.
#
# Each is the first statement of a session, because a cycle begins in a new
# process, and nothing is remembered before the first look; "again" is the
# second look of a session that goes on, as that of a service.  Before each, the
# flags are set anew, and the tables vacuumed and analysed, except between the
# looks.  "recent" are the 10 % most recently active, which is what an ETL
# leaves.

# The variables are the caller's.
# shellcheck disable=SC2154

prioritise_take=1000

# flagged_condition FRACTION
flagged_condition() {
	case $1 in
	recent) echo "dimension_user_id IN (SELECT dimension_user_id FROM bench_counts ORDER BY last_action_at DESC LIMIT $((users / 10)))" ;;
	*) echo "dwh.noise(dimension_user_id, 11) < $1 / 100.0" ;;
	esac
}

# In a transaction that is rolled back.
timed_without_indexes() {
	as_server_user psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" -c BEGIN \
		-c 'DROP INDEX dwh.bench_facts_index, dwh.bench_flag_index' \
		-c '\timing on' -c "$1" -c '\timing off' -c ROLLBACK |
		sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
}

# The second of two in a session.
timed_again() {
	as_server_user psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" -c "$1" -c '\timing on' -c "$1" |
		sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
}

# look_as CASE STATEMENT [HOW]: records the time of that one.
look_as() {
	local ms
	begin_measurement "$group" "$1" "$fraction"
	ms=$("${3:-timed}" "$2")
	end_measurement
	record "$group" "$1" "$fraction" ms "$ms"
}

# The ETL's own statement, on one in a hundred; what was not flagged becomes
# so.  With a new fact each, as the flag says.
touch_one_in_a_hundred() {
	query "$database" "SELECT dwh.etl_add_facts(n, ids, date_trunc('day', localtimestamp)) FROM (
		SELECT count(*)::integer AS n, array_agg(dimension_user_id) AS ids
		FROM dwh.dimension_users WHERE dwh.noise(dimension_user_id, 12 + $round) < 0.01) AS touched" >/dev/null
}

# look_at_documented
look_at_documented() {
	timed_without_indexes "$documented" >/dev/null
	look_as described "$documented" timed_without_indexes
	timed "$documented" >/dev/null
	look_as documented "$documented"
}

measure_prioritise() {
	local group fraction queue documented statement
	local -a turns
	group="the next 1000 of $(size_name)"
	queue="SELECT count(*) FROM datamart_users_queue($prioritise_take)"
	documented="SELECT count(*) FROM ($(sed "s/:take/$prioritise_take/" bench/documented_query.sql)) AS q"
	sql "$database" -c 'CREATE INDEX bench_facts_index ON dwh.facts (action_dimension_id_user, action_at)' \
		-c 'CREATE INDEX bench_flag_index ON dwh.dimension_users (dimension_user_id) WHERE modified' \
		-c 'VACUUM ANALYZE dwh.facts'
	for ((round = 1; round <= rounds; round++)); do
		mapfile -t turns < <(printf '%s\n' "${fractions[@]}" recent | shuf)
		for fraction in "${turns[@]}"; do
			flag "$(flagged_condition "$fraction")"
			statement=$(query "$database" "SELECT datamart_users_priority_query($prioritise_take)")
			# The caches of the machine are warm for everybody.
			timed "SELECT count(*) FROM (${statement%;*}) AS q" >/dev/null
			if ((round % 2)); then
				look_at_documented
			fi
			look_as statement "SELECT count(*) FROM (${statement%;*}) AS q"
			sql "$database" -c 'TRUNCATE datamart_users_counts'
			look_as first "$queue"
			look_as second "$queue"
			look_as again "$queue" timed_again
			touch_one_in_a_hundred
			look_as touched "$queue"
			if ((round % 2 == 0)); then
				flag "$(flagged_condition "$fraction")"
				look_at_documented
			fi
		done
	done
	sql "$database" -c 'DROP INDEX dwh.bench_facts_index, dwh.bench_flag_index'
}

show_prioritise() {
	local group
	local -a cases=(
		'described=query of the description, in its warehouse'
		'documented=the same, with the two indexes'
		'statement=datamart_users_priority_query()'
		'first=datamart_users_queue(), first look'
		'second=datamart_users_queue(), second look'
		'again=the same in a session that goes on'
		'touched=datamart_users_queue(), after 1 % were touched')
	ratios ms described lower >"$scratch/ratios"
	awk -F '\t' -v OFS='\t' '{ $6 = 1 / $6 } 1' "$scratch/ratios" | summarise >"$scratch/ratios.summary"
	while read -r group; do
		chapter "Prioritisation: $group"
		paragraph 'Milliseconds, by percentage of flagged datamart users:'
		table "$group" ms 1 'flagged, %' "${cases[@]}" <"$scratch/summary" | page
		paragraph 'How many times faster than the query of the description:'
		table "$group" ratio 1 'flagged, %' "${cases[@]}" <"$scratch/ratios.summary" | page
		plot_prioritise "$group"
	done < <(groups)
}

plot_prioritise() {
	local group=$1 case i=0
	local -a cases=(described documented first second again touched)
	local -a labels=('query of the description' 'the same, with indexes' 'first look' 'second look' 'in a session that goes on' 'after 1 % were touched')
	for case in "${cases[@]}"; do
		awk -F '\t' -v OFS='\t' -v group="$group" -v case="$case" '
			$1 == group && $2 == case && $4 == "ms" && $3 != "recent" { print $3, $6, $7, $8 }' "$scratch/summary" |
			sort -g >"$scratch/line.$case"
	done
	{
		printf '%s\n' "set title 'Prioritisation: $group'" 'set logscale xy' "set xlabel 'flagged datamart users, %'" \
			"set ylabel 'milliseconds'" 'set key outside right top' 'set xrange [0.8:125]' "set xtics (1, 10, 100)"
		printf 'plot '
		for case in "${cases[@]}"; do
			i=$((i + 1))
			[[ $i -eq 1 ]] || printf ', '
			printf "'%s' using 1:2:3:4 with yerrorlines lt %s lw 2 pt 7 ps 0.6 title '%s'" "$scratch/line.$case" "$i" "${labels[i - 1]}"
		done
		printf '\n'
	} | plot "prioritise-$(slug "${group##* }")"
}
