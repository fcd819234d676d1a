#!/usr/bin/env bash
#
# run.sh [EXPERIMENT...] [--show FOLDER]
#
# Measures datamart_users beside others in a private server with the fixture
# warehouse: every case once a round on the same data, in an order that is
# shuffled for each round.  Works as test/demo.sh does; as it comes it takes
# about ten minutes on two processors.
#
#	throughput	datamart users per second, beside other ways to do the same
#	prioritise	the query of the order, by how many are flagged
#	weights		generic or custom plans, by number of actions
#	growth		cost and memory, by length of the queue
#	first		from the call to the first commit
#	steps		what a light refresh is made of
#	profile		where its time goes, by perf
#	tuning		settings of the server and of the workers that could matter
#
#	--show FOLDER	makes tables and plots of what was measured before
#
# Sizes come from the environment:
#
#	USERS, FACTS	datamart users and facts of the warehouse (20000, 1000000)
#	ROUNDS			of every experiment (5)
#	WORKERS			list of numbers of workers or sessions ("2")
#	PEERS			list of cases of throughput, "all" for all of them; those
#					that the default leaves out need npm (see throughput.sh)
#	PROCEDURES		list of heavy, light, and row, which only writes one
#					("heavy light row")
#	HEAVY, LIGHT	datamart users that a run refreshes (60, 20000)
#	HEAD			yes: the head of the queue, not a random sample (no)
#	SLOW			of the light ones, what a run of slow peers takes (300)
#	FRACTIONS		percentages of flagged ones in prioritise ("1 10 100")
#	GROWTH			list of queue lengths ("1000 5000 20000")
#	CASES			list of cases of tuning (all of them)
#	SHARED_BUFFERS	of the server (512MB)
#	SETTINGS		more settings of it, with a semicolon between two of them
#	RESULTS			folder for the results (a new one in /tmp)
#
# PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config selects another major.

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/../test/lib.sh"
here=$repository/bench
# shellcheck source=bench/lib.sh
. "$here/lib.sh"
# shellcheck source=bench/peers.sh
. "$here/peers.sh"

# One more is one more file, and its name here.
all_experiments=(throughput prioritise weights growth first steps tuning profile)
for experiment in "${all_experiments[@]}"; do
	# shellcheck source=/dev/null
	. "$here/$experiment.sh"
done

# What the experiments read; each is described above.
# shellcheck disable=SC2034
{
	users=${USERS:-20000} facts=${FACTS:-1000000} rounds=${ROUNDS:-5}
	heavy=${HEAVY:-60} light=${LIGHT:-20000} slow=${SLOW:-300} head=${HEAD:-no}
	shared_buffers=${SHARED_BUFFERS:-512MB} results=${RESULTS:-}
	read -r -a workers_list <<<"${WORKERS:-2}"
	read -r -a peers <<<"${PEERS:-}"
	read -r -a procedures <<<"${PROCEDURES:-heavy light row}"
	read -r -a fractions <<<"${FRACTIONS:-1 10 100}"
	read -r -a cases <<<"${CASES:-}"
	read -r -a growth <<<"${GROWTH:-1000 5000 20000}"
	IFS=';' read -r -a settings <<<"${SETTINGS:-}"
}
database=warehouse
show_only=no
experiments=()

while [[ $# -gt 0 ]]; do
	case $1 in
	--show)
		[[ -d ${2:-} ]] || die '--show needs a folder of results'
		results=$2
		show_only=yes
		shift
		;;
	-h | --help)
		usage
		exit
		;;
	*)
		[[ " ${all_experiments[*]} " == *" $1 "* ]] || die "unknown argument $1, see --help"
		experiments+=("$1")
		;;
	esac
	shift
done
if [[ ${#experiments[@]} -eq 0 ]]; then
	# The last one wants a package that few have.
	experiments=("${all_experiments[@]}")
	command -v perf >/dev/null || unset 'experiments[-1]'
fi
for size in "$users" "$facts" "$rounds" "$heavy" "$light" "$slow" "${workers_list[@]}" "${fractions[@]}" "${growth[@]}"; do
	positive_number "a size (see --help), not $size," "$size" >/dev/null
done

# thousands NUMBER: with commas.
thousands() { printf '%s' "$1" | sed ':again; s/\([0-9]\)\([0-9]\{3\}\)\(,\|$\)/\1,\2\3/; t again'; }

# size_name: of the warehouse.
size_name() { printf '%s/%s' "$(thousands "$users")" "$(thousands "$facts")"; }

# describe_machine: what the figures depend on.
describe_machine() {
	printf '%s\n' "date: $(date -u '+%Y-%m-%d %H:%M UTC')" \
		"revision: $(git -C "$repository" describe --always --dirty 2>/dev/null || echo unknown)" \
		"server: $(query "$database" 'SELECT version()')" \
		"processors: $(nproc), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" \
		"memory: $(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1048576 }' /proc/meminfo)" \
		"kernel: $(uname -r)" \
		"warehouse: $users datamart users, $facts facts, $(query "$database" "SELECT pg_size_pretty(pg_database_size('$database'))")" \
		"experiments: ${experiments[*]}" \
		"rounds: $rounds, workers: ${workers_list[*]}, heavy: $heavy, light: $light, slow: $slow, head: $head"
	echo
	query "$database" "SELECT name || ' = ' || current_setting(name) FROM pg_settings
		WHERE source IN ('configuration file', 'command line') AND name !~ '^(lc_|log_|Time|Date|default_text|unix|listen|.*directory|.*_file)'
		ORDER BY name"
}

if [[ $show_only = no ]]; then
	prepare_machine '?gnuplot-nox'
	prepare_workspace
	build_extension
	install_extension
	if [[ -z $results ]]; then
		results=/tmp/datamart_users_bench.$(date +%Y%m%d-%H%M%S)
	fi
	mkdir -p "$results"
	rm -f "$results/load.tsv"
	# Nothing of the server's own may come between two measurements.
	start_server "shared_buffers = $shared_buffers" 'max_wal_size = 8GB' 'checkpoint_timeout = 1h' \
		'autovacuum = off' 'max_worker_processes = 24' "${settings[@]}"
	build_warehouse "$database" "$users" "$facts"
	sql "$database" -c '
		CREATE TABLE bench_counts AS
		SELECT action_dimension_id_user AS dimension_user_id, count(*) AS actions, max(action_at) AS last_action_at
		FROM dwh.facts
		WHERE action_dimension_id_user IS NOT NULL
		GROUP BY action_dimension_id_user' -c 'VACUUM ANALYZE bench_counts'
	describe_machine >"$results/machine.txt"
	for experiment in "${experiments[@]}"; do
		say "$experiment, $rounds rounds"
		rm -f "$results/$experiment.tsv"
		"measure_$experiment"
	done
fi

scratch=$(mktemp -d)
{
	printf '# Results\n\n```\n'
	cat "$results/machine.txt"
	printf '```\n\nMedians, with the least and the most of all rounds in brackets.\n'
} >"$results/results.md"
for experiment in "${experiments[@]}"; do
	if [[ -s $results/$experiment.tsv ]]; then
		summarise "$results/$experiment.tsv" >"$scratch/summary"
		"show_$experiment"
	fi
done
if [[ -s $results/load.tsv ]]; then
	chapter 'Load average'
	awk -F '\t' '{ n++; sum += $6; if (n == 1 || $6 < least) least = $6; if ($6 > most) most = $6 }
		END { printf "Before a measurement: %.2f on the average, %.2f to %.2f in %d of them (load.tsv has each).\n", sum / n, least, most, n }' \
		"$results/load.tsv" | page
fi
rm -rf "$scratch"
say "Results are in $results"
