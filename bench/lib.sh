# shellcheck shell=bash
#
# lib.sh
#		What the experiments in this folder share: the same state before every
#		measurement, what was measured and under which load, and how it is shown.
#
# An experiment is a file NAME.sh with two functions.  measure_NAME runs it in
# the warehouse that is there and says "record" for every figure; show_NAME
# makes tables and plots of what was recorded, and needs no server.
#
# Figures are kept in one form, in $results/NAME.tsv:
#
#		group  case  x  round  metric  value
#
# A table has a group, a row is a case, a column is an x.

# The variables that results and warehouse are described by are the caller's.
# shellcheck disable=SC2034,SC2154

light_procedure=dwh.update_datamart_user_light
heavy_procedure=dwh.update_datamart_user
row_procedure=public.bench_write_row
worker_settings='-c jit=off -c plan_cache_mode=force_generic_plan -c max_parallel_workers_per_gather=0 -c synchronous_commit=off'

#-------------------------------------------------------------------------
# The same state before every measurement
#-------------------------------------------------------------------------

datamart_of() {
	case $1 in
	"$light_procedure") echo dwh.datamartusers_light ;;
	"$row_procedure") echo public.bench_rows ;;
	*) echo dwh.datamartusers ;;
	esac
}

# create_row_procedure: one that reads no facts and only writes a row, with its
# datamart.
create_row_procedure() {
	sql "$database" -c '
		CREATE TABLE IF NOT EXISTS public.bench_rows (dimension_user_id integer PRIMARY KEY, at timestamptz)' -c "
		CREATE OR REPLACE PROCEDURE $row_procedure(p_id integer) LANGUAGE plpgsql AS '
		BEGIN
			INSERT INTO public.bench_rows VALUES (p_id, now())
			ON CONFLICT (dimension_user_id) DO UPDATE SET at = excluded.at;
		END'" >/dev/null
}

# choose TAKE [CONDITION [ORDER]]: which datamart users will be refreshed, by
# default a random sample of those with facts; the older scheme knows no others.
choose() {
	sql "$database" -c 'DROP TABLE IF EXISTS bench_users' -c "
		CREATE TABLE bench_users AS
		SELECT (row_number() OVER ())::integer AS position, dimension_user_id, actions
		FROM (SELECT dimension_user_id, actions FROM bench_counts
			  WHERE ${2:-TRUE}
			  ORDER BY ${3:-dwh.noise(dimension_user_id, 7)}, dimension_user_id
			  LIMIT $1) AS chosen" -c '
		ALTER TABLE bench_users ADD PRIMARY KEY (position)' -c '
		ALTER TABLE bench_users ADD UNIQUE (dimension_user_id)' -c '
		VACUUM ANALYZE bench_users' >/dev/null
}

# flag CONDITION: those datamart users, and nobody else, are modified; tables
# are vacuumed and on disk.
flag() {
	# Without room to hash the ids of a condition each row would read them all.
	sql "$database" -c "SET work_mem = '1GB'" -c "
		UPDATE dwh.dimension_users SET modified = ($1)
		WHERE modified IS DISTINCT FROM ($1)" -c '
		VACUUM ANALYZE dwh.dimension_users' -c CHECKPOINT
}

# reset PROCEDURE TAKE: the first TAKE of those chosen are modified, and have
# no row in the datamart.
reset() {
	sql "$database" -c "TRUNCATE $(datamart_of "$1")"
	flag "dimension_user_id IN (SELECT dimension_user_id FROM bench_users WHERE position <= $2)"
}

# verify WHAT PROCEDURE TAKE: all of them are done, or the figures are of no
# use.  The facts are compared with a datamart made of them in the first round
# only.
verify() {
	local left
	left=$(query "$database" "
		SELECT (SELECT count(*) FROM dwh.dimension_users WHERE modified) + $3 - (SELECT count(*) FROM $(datamart_of "$2"))")
	[[ $left -eq 0 ]] || die "$1: $left datamart users are not done"
	if [[ $round -eq 1 && $2 != "$row_procedure" ]]; then
		left=$(query "$database" "SELECT count(*) FROM dwh.stale_datamart_users('$(datamart_of "$2")') WHERE datamart IS NOT NULL")
		[[ $left -eq 0 ]] || die "$1: $left datamart users differ from their facts"
	fi
}

#-------------------------------------------------------------------------
# Measuring
#-------------------------------------------------------------------------

# Microseconds, without another process.
now() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# Milliseconds of processor time that the server has used so far, the
# processes that have ended included.
server_cpu() {
	local postmaster
	read -r postmaster <"$workspace/data/postmaster.pid"
	# A process may end while it is read.
	{ cat /proc/[0-9]*/stat 2>/dev/null || true; } |
		awk -v postmaster="$postmaster" -v tick="$(getconf CLK_TCK)" '
			{ pid = $1; sub(/^.*\) /, "") }
			pid == postmaster { total += $12 + $13 + $14 + $15 }
			$2 == postmaster { total += $12 + $13 }
			END { print int(total / tick * 1000) }'
}

# Leaves client_ms: milliseconds of processor time of what this script has
# started and waited for so far.  A subshell would tell its own.
client_cpu() {
	times >"$workspace/tmp/times"
	client_ms=$(awk 'NR == 2 {
		for (i = 1; i <= 2; i++) { split($i, part, /[ms]/); total += part[1] * 60 + part[2] }
		print int(total * 1000)
	}' "$workspace/tmp/times")
}

load_average() { local load; read -r load _ </proc/loadavg; printf '%s' "$load"; }

# begin_measurement GROUP CASE X, end_measurement: leave elapsed (ms),
# used_server and used_client (ms of processor time).
begin_measurement() {
	measured=("$1" "$2" "$3" "$round")
	load_before=$(load_average)
	server_before=$(server_cpu)
	client_cpu
	client_before=$client_ms
	started=$(now)
}

end_measurement() {
	elapsed=$((($(now) - started) / 1000))
	client_cpu
	used_client=$((client_ms - client_before))
	# The server's processes may be about to end.
	sleep 0.1
	used_server=$(($(server_cpu) - server_before))
	printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$experiment" "${measured[@]}" "$load_before" "$(load_average)" >>"$results/load.tsv"
	note "$(printf 'round %s  %-18s %10s %9.2f s, load %-6s %s' "$round" "${measured[@]:1:2}" \
		"$(calculate "$elapsed / 1000")" "$load_before" "${measured[0]}")"
}

# record GROUP CASE X METRIC VALUE
record() { printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$round" "$4" "$5" >>"$results/$experiment.tsv"; }

# calculate EXPRESSION
calculate() { awk "BEGIN { printf \"%.6g\", $1 }"; }

# timed STATEMENT: milliseconds of it as the first one of a session, as psql
# tells.
timed() {
	as_server_user psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" -c '\timing on' -c "$1" |
		sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
}

# has_setting NAME: whether this build of the extension knows it.
has_setting() {
	[[ -n $(query "$database" "LOAD 'datamart_users'; SELECT name FROM pg_settings WHERE name = 'datamart_users.$1'") ]]
}

# run_cycle TAKE WORKERS PROCEDURE [SETTING=VALUE...]: leaves cycle_id.
run_cycle() {
	local take=$1 workers=$2 procedure=$3 setting
	local -a settings=(-c "SET datamart_users.procedure = '$procedure'" -c 'SET datamart_users.progress_interval = 0')
	shift 3
	for setting in "$@"; do
		settings+=(-c "SET ${setting%%=*} = '${setting#*=}'")
	done
	cycle_id=$(as_server_user psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" "${settings[@]}" \
		-c "SELECT cycle_id FROM datamart_users_run_cycle($take, $workers)")
}

# cycle_value EXPRESSION: of the last cycle's row, intervals in ms.
cycle_value() { query "$database" "SELECT round($1, 3) FROM datamart_users_cycles WHERE cycle_id = $cycle_id"; }
prioritisation_ms() { cycle_value 'extract(epoch FROM prioritisation_time) * 1000'; }
elapsed_ms() { cycle_value 'extract(epoch FROM elapsed) * 1000'; }

#-------------------------------------------------------------------------
# Showing
#-------------------------------------------------------------------------

# summarise: of the form above to group, case, x, metric, n, median, min, max.
summarise() {
	sort -t $'\t' -k1,1 -k2,2 -k3,3 -k5,5 -k6,6g "$@" |
		awk -F '\t' -v OFS='\t' '
			function finish() {
				if (n > 0)
					print key, n, (v[int((n + 1) / 2)] + v[int((n + 2) / 2)]) / 2, v[1], v[n]
			}
			{ this = $1 OFS $2 OFS $3 OFS $5 }
			this != key { finish(); key = this; n = 0 }
			{ v[++n] = $6 }
			END { finish() }'
}

# ratios METRIC CASE higher|lower: how many times better that case is than each
# other one, round by round.
ratios() {
	awk -F '\t' -v OFS='\t' -v metric="$1" -v base="$2" -v better="$3" '
		$5 == metric { value[$1, $3, $4, $2] = $6; line[++n] = $1 OFS $2 OFS $3 OFS $4 }
		END {
			for (i = 1; i <= n; i++) {
				split(line[i], f, OFS)
				b = value[f[1], f[3], f[4], base]
				v = value[f[1], f[3], f[4], f[2]]
				if (b > 0 && v > 0)
					print line[i], "ratio", better == "higher" ? b / v : v / b
			}
		}' "$results/$experiment.tsv"
}

# groups: of the experiment, in the order they came.
groups() { awk -F '\t' '!seen[$1]++ { print $1 }' "$results/$experiment.tsv"; }

# table GROUP METRIC DIGITS HEADING CASE=LABEL... <SUMMARY: Markdown that reads
# well as text; cells are the median, and the least and the most.  $columns may
# hold the order of those that are no numbers.
table() {
	local group=$1 metric=$2 digits=$3 heading=$4
	shift 4
	printf '%s\n' "$@" >"$scratch/cases"
	awk -F '\t' -v group="$group" -v metric="$metric" -v digits="$digits" -v heading="$heading" -v first="${columns:-}" '
		BEGIN { n = split(first, given, " "); for (i = 1; i <= n; i++) { x[i] = given[i]; seen[x[i]] = 1 }; columns = n }
		function shown(value) { return sprintf("%." digits "f", value) }
		function pad(text, width) { while (length(text) < width) text = text " "; return text }
		NR == FNR { split($0, part, "="); order[++cases] = part[1]; label[part[1]] = substr($0, length(part[1]) + 2); next }
		$1 != group || $4 != metric { next }
		!($3 in seen) { seen[$3] = 1; x[++columns] = $3 }
		{ cell[$2, $3] = shown($6) ($5 > 1 ? " (" shown($7) " to " shown($8) ")" : ""); present[$2] = 1 }
		END {
			for (i = 2; i <= columns; i++)
				for (j = i; j > 1 && x[j - 1] + 0 > x[j] + 0; j--) { t = x[j]; x[j] = x[j - 1]; x[j - 1] = t }
			width[0] = length(heading)
			for (c = 1; c <= cases; c++)
				if (present[order[c]] && length(label[order[c]]) > width[0])
					width[0] = length(label[order[c]])
			row = "| " pad(heading, width[0]) " |"; rule = "| " pad("---", width[0]) " |"
			for (i = 1; i <= columns; i++) {
				width[i] = length(x[i])
				for (c = 1; c <= cases; c++)
					if (length(cell[order[c], x[i]]) > width[i])
						width[i] = length(cell[order[c], x[i]])
				row = row " " pad(x[i], width[i]) " |"; rule = rule " " pad("---", width[i]) " |"
			}
			print row; print rule
			for (c = 1; c <= cases; c++) {
				if (!present[order[c]])
					continue
				row = "| " pad(label[order[c]], width[0]) " |"
				for (i = 1; i <= columns; i++)
					row = row " " pad(cell[order[c], x[i]], width[i]) " |"
				print row
			}
		}' "$scratch/cases" -
}

# chapter TITLE, paragraph TEXT: into the page of results, and to the terminal.
page() { tee -a "$results/results.md"; }
chapter() { printf '\n## %s\n' "$*" | page; }
paragraph() { printf '\n%s\n\n' "$*" | page; }

# plot NAME <SCRIPT: $results/NAME.svg, if gnuplot is there.
plot() {
	command -v gnuplot >/dev/null || return 0
	if {
		printf '%s\n' "set terminal svg size 760,400 noenhanced font 'sans-serif,12' background 'white'" \
			"set output '$results/$1.svg'" "set datafile separator '\t'" \
			"set style fill solid 0.8" "set grid ytics lc rgb '#dddddd'" "set border 3" "set tics nomirror" \
			"set linetype 1 lc rgb '#1b6ca8'" "set linetype 2 lc rgb '#d1495b'" "set linetype 3 lc rgb '#edae49'" \
			"set linetype 4 lc rgb '#66a182'" "set linetype 5 lc rgb '#8d6a9f'" "set linetype 6 lc rgb '#777777'" \
			"set linetype 7 lc rgb '#2e4057'" "set linetype 8 lc rgb '#c08552'"
		cat
	} | gnuplot; then
		note "$results/$1.svg"
	else
		note "gnuplot could not draw $1"
	fi
}

# slug TEXT: for the name of a file.
slug() { printf '%s' "$1" | tr -c 'A-Za-z0-9' - | tr -s -; }
