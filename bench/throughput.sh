# shellcheck shell=bash
#
# throughput.sh
#		Datamart users per second, prioritisation included, beside other ways
#		(peers.sh), and where the processor time of heavy refreshes goes.
#
# With a light procedure, and one that only writes a row, the slow peers take
# $slow datamart users only, and their time is told as if they had gone on like
# this.  graphile-worker is fetched by npm, so it takes part where npm is, or
# where it is asked for.

# The variables are the caller's.
# shellcheck disable=SC2154

throughput_group() { printf '%s procedure, %s datamart users of %s' "$1" "$(thousands "$2")" "$(size_name)"; }

# Sets peers to those that can be had.
find_peers() {
	local peer asked=yes
	local -a wanted=("${peers[@]}")
	peers=()
	if [[ ${#wanted[@]} -eq 0 ]]; then
		asked=no
	fi
	if [[ $asked = no || ${wanted[*]} = all ]]; then
		wanted=("${peer_order[@]}")
	fi
	for peer in "${wanted[@]}"; do
		[[ -n ${peer_label[$peer]:-} ]] || die "unknown peer $peer, there are: ${peer_order[*]}"
		if [[ $peer = graphile ]]; then
			if [[ $asked = no ]] && ! command -v npm >/dev/null; then
				note 'leaving out graphile-worker, there is no npm; PEERS=all would install it'
				continue
			fi
			if ! prepare_graphile; then
				tail -n 3 "$workspace/tmp/npm" 2>/dev/null || true
				note 'leaving out graphile-worker, which could not be had'
				continue
			fi
		fi
		peers+=("$peer")
	done
}

# run_peer NAME WORKERS TAKE: of $take, leaves fill_ms and end_measurement()'s.
run_peer() {
	fill_ms=0
	reset "$procedure" "$3"
	begin_measurement "$group" "$1" "$2"
	if declare -F "fill_$1" >/dev/null; then
		"fill_$1" "$2" "$3"
		fill_ms=$((($(now) - started) / 1000))
	fi
	"work_$1" "$2" "$3" || die "$1 failed"
	end_measurement
	verify "$1" "$procedure" "$3"
	if [[ $1 = cycle ]]; then
		fill_ms=$(prioritisation_ms)
	fi
}

# measure_peer NAME WORKERS: records it; what runs in one session for every
# number of workers, divided by it, or by the processors if they are fewer.
measure_peer() {
	local peer=$1 workers=$2 this=$take full per processors
	local -a columns=("$workers")
	if [[ $kind != heavy && $peer =~ ^(queue_file|skip_locked|graphile)$ && $slow -lt $take ]]; then
		this=$slow
		if [[ $peer != queue_file ]]; then
			this=$((slow * 4 < take ? slow * 4 : take))
		fi
	fi
	run_peer "$peer" "$workers" "$this"
	full=$(calculate "($fill_ms + ($elapsed - $fill_ms) * $take / $this) / 1000")
	if [[ $peer =~ ^loop(_commit)?$ ]]; then
		columns=("${workers_list[@]}")
	fi
	processors=$(nproc)
	for workers in "${columns[@]}"; do
		per=$full
		if [[ $peer =~ ^loop(_commit)?$ ]]; then
			per=$(calculate "$full / $((workers < processors ? workers : processors))")
		fi
		record "$group" "$peer" "$workers" seconds "$per"
		record "$group" "$peer" "$workers" rate "$(calculate "$take / $per")"
		record "$group" "$peer" "$workers" fill "$fill_ms"
		record "$group" "$peer" "$workers" server_cpu "$(calculate "$used_server / $this")"
		record "$group" "$peer" "$workers" client_cpu "$(calculate "$used_client / $this")"
		record "$group" "$peer" "$workers" cpu_total "$used_server"
	done
}

# measure_parts: what of a cycle's processor time is not refreshing: the query
# of the order, and the first call in a session, with its plans.
measure_parts() {
	reset "$procedure" "$take"
	begin_measurement "$group" queue 1
	query "$database" "SELECT count(*) FROM datamart_users_queue($take)" >/dev/null
	end_measurement
	record "$group" queue 1 cpu_total "$used_server"
	run_peer loop 1 1
	record "$group" first_call 1 cpu_total "$used_server"
}

turns_of_a_round() {
	local peer workers
	for peer in "${peers[@]}"; do
		for workers in "${workers_list[@]}"; do
			printf '%s %s\n' "$peer" "$workers"
			# One session is the same for all of them.
			if [[ $peer =~ ^loop(_commit)?$ ]]; then
				break
			fi
		done
	done
	if [[ $kind = heavy ]]; then
		echo parts 1
	fi
}

measure_throughput() {
	local kind procedure take group workers peer turn
	local -a turns
	find_peers
	sql "$database" -c 'DROP TABLE IF EXISTS bench_queue' -c '
		CREATE TABLE bench_queue (position serial PRIMARY KEY, dimension_user_id integer NOT NULL)' >/dev/null
	for kind in "${procedures[@]}"; do
		procedure=$heavy_procedure take=$heavy
		case $kind in
		light) procedure=$light_procedure take=$light ;;
		row)
			create_row_procedure
			procedure=$row_procedure take=$light
			;;
		esac
		if [[ $head = yes ]]; then
			sql "$database" -c 'UPDATE dwh.dimension_users SET modified = TRUE WHERE NOT modified'
			choose "$take" "dimension_user_id IN (SELECT dimension_user_id FROM datamart_users_queue($take) WHERE action_count > 0)"
		else
			choose "$take"
		fi
		take=$(query "$database" 'SELECT count(*) FROM bench_users')
		# So that pgbench can share it out evenly.
		for workers in "${workers_list[@]}"; do
			take=$((take - take % workers))
		done
		for workers in "${workers_list[@]}"; do
			[[ $((take % workers)) -eq 0 ]] || die "$take datamart users cannot be shared out evenly among $workers"
		done
		group=$(throughput_group "$kind" "$take")
		# Nobody is to pay for the pages that the first one reads.
		round=0
		run_peer loop 1 "$take"
		for ((round = 1; round <= rounds; round++)); do
			mapfile -t turns < <(turns_of_a_round | shuf)
			for turn in "${turns[@]}"; do
				read -r peer workers <<<"$turn"
				if [[ $peer = parts ]]; then
					measure_parts
				else
					measure_peer "$peer" "$workers"
				fi
			done
		done
	done
}

# cpu_ratios: processor time of a cycle over that of the loop, as it is, and
# without prioritisation and the first call of each session; of as many loops at
# once as the cycle has workers where they were measured: two processors at work
# share caches and the way to the memory, so that each is slower than one alone.
cpu_ratios() {
	awk -F '\t' -v OFS='\t' '
		$5 != "cpu_total" { next }
		{ cpu[$1, $2, $3, $4] = $6 }
		$2 == "cycle" { line[++n] = $1 OFS $3 OFS $4 }
		END {
			for (i = 1; i <= n; i++) {
				split(line[i], f, OFS)
				c = cpu[f[1], "cycle", f[2], f[3]]
				l = cpu[f[1], "loop", f[2], f[3]]
				if ((f[1], "loops", f[2], f[3]) in cpu)
					l = cpu[f[1], "loops", f[2], f[3]]
				q = cpu[f[1], "queue", 1, f[3]]
				o = cpu[f[1], "first_call", 1, f[3]]
				if (l == 0 || l <= o)
					continue
				print f[1], "as it is", f[2], f[3], "cpu", c / l
				if (q > 0 && o > 0) {
					first = (f[1], "loops", f[2], f[3]) in cpu ? f[2] * o : o
					print f[1], "refreshes alone", f[2], f[3], "cpu", (c - q - f[2] * o) / (l - first)
					print f[1], "prioritisation", f[2], f[3], "cpu", q / l
					print f[1], "first calls", f[2], f[3], "cpu", f[2] * o / l
				}
			}
		}' "$results/throughput.tsv"
}

show_throughput() {
	local group peer
	local -a cases=()
	for peer in "${peer_order[@]}"; do
		cases+=("$peer=${peer_label[$peer]}")
	done
	ratios rate cycle higher | summarise >"$scratch/ratios"
	cpu_ratios | summarise >"$scratch/cpu"
	while read -r group; do
		chapter "$group"
		paragraph 'Datamart users per second, by number of workers or sessions, prioritisation included:'
		table "$group" rate 1 'N' "${cases[@]}" <"$scratch/summary" | page
		paragraph 'How many times as fast a cycle is:'
		table "$group" ratio 2 'N' "${cases[@]}" <"$scratch/ratios" | page
		paragraph 'Processor time of the server, ms per datamart user:'
		table "$group" server_cpu 3 'N' "${cases[@]}" <"$scratch/summary" | page
		paragraph 'And of the clients:'
		table "$group" client_cpu 3 'N' "${cases[@]}" <"$scratch/summary" | page
		paragraph 'Filling the queue, ms:'
		table "$group" fill 0 'N' "${cases[@]}" <"$scratch/summary" | page
		if grep -q "^$group	refreshes alone" "$scratch/cpu"; then
			paragraph 'Processor time of a cycle, that of the loop (of N of them, where they were measured) = 1:'
			table "$group" cpu 3 'N' 'as it is=a cycle' 'prioritisation=of that, prioritisation' \
				'first calls=of that, first calls of its sessions' 'refreshes alone=the rest, over the rest of the loop' \
				<"$scratch/cpu" | page
		fi
		plot_throughput "$group"
	done < <(groups)
}

# plot_throughput GROUP: a bar for each way, a colour for each number of
# workers.
plot_throughput() {
	local group=$1 name workers i
	local -a xs
	name=throughput-$(slug "${group%% *}-${group##* }")
	mapfile -t xs < <(awk -F '\t' -v group="$group" '$1 == group && $4 == "rate" { print $3 }' "$scratch/summary" | sort -nu)
	for i in "${peer_order[@]}"; do
		printf '%s\t%s\n' "$i" "${peer_label[$i]}"
	done >"$scratch/labels"
	# Where each bar is, in $scratch/bars.N; from bottom to top, so backwards.
	rm -f "$scratch"/bars.*
	awk -F '\t' -v group="$group" -v xs="${xs[*]}" -v bars="$scratch/bars" -v tics="$scratch/tics" '
		NR == FNR { order[++cases] = $1; label[$1] = $2; next }
		$1 == group && $4 == "rate" { value[$2, $3] = $6 " " $7 " " $8; present[$2] = 1 }
		END {
			n = split(xs, x, " ")
			printf "set ytics (" >tics
			for (c = cases; c > 0; c--) {
				if (!present[order[c]])
					continue
				printf "%s\"%s\" %d", row ? ", " : "", label[order[c]], row >tics
				for (i = 1; i <= n; i++)
					if ((order[c], x[i]) in value) {
						if (!least || least > value[order[c], x[i]] + 0)
							least = value[order[c], x[i]] + 0
						print row + 0.4 - 0.8 * (i - 0.5) / n, 0.36 / n, value[order[c], x[i]] >(bars "." x[i])
					}
				row++
			}
			print ")\nset yrange [-0.6:" row - 0.4 "]\nlow = 10 ** floor(log10(" least * 0.8 "))" >tics
		}' "$scratch/labels" "$scratch/summary"
	{
		cat "$scratch/tics"
		printf '%s\n' "set title '$group'" "set xlabel 'datamart users per second, logarithmic scale'" 'set logscale x' \
			'set key outside bottom center horizontal' 'set lmargin 42' 'set rmargin 4' 'unset grid' "set grid xtics lc rgb '#dddddd'" \
			'set datafile separator whitespace'
		printf 'plot '
		i=0
		for workers in "${xs[@]}"; do
			i=$((i + 1))
			[[ $i -eq 1 ]] || printf ', '
			printf "'%s' using 3:1:(low):3:(\$1-\$2):(\$1+\$2) with boxxyerror lt %s title 'N = %s', '' using 3:1:4:5 with xerrorbars lt 7 lw 1 pt 0 notitle" \
				"$scratch/bars.$workers" "$i" "$workers"
		done
		printf '\n'
	} | plot "$name"
}
