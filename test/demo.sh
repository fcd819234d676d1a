#!/usr/bin/env bash
#
# demo.sh [--users N] [--facts N] [--cycles N] [--keep]
#
# Shows datamart_users at work: builds it, starts a private server, fills a
# warehouse, and runs cycles of 1000 datamart users in it, the last one beside a
# cycle of a second datamart.  Works on a fresh Debian machine, as root or with
# sudo; takes a few minutes and removes all of it afterwards, packages excepted.
#
#	--users N	datamart users in the warehouse (default 20000)
#	--facts N	facts in the warehouse (default 1000000)
#	--cycles N	cycles to run (default 2)
#	--keep		leave the server running, and say how to reach and remove it
#
# PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config selects another major.

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

users=20000
facts=1000000
cycles=2
keep=no
database=warehouse

while [[ $# -gt 0 ]]; do
	case $1 in
	--users | --facts | --cycles)
		value=$(positive_number "$1" "${2:-}")
		declare "${1#--}=$value"
		shift
		;;
	--keep) keep=yes ;;
	-h | --help)
		usage
		exit
		;;
	*) die "unknown argument $1, see --help" ;;
	esac
	shift
done

# show STATEMENT...: what one would type, and what comes back.
show() {
	local statement
	local -a arguments=()
	for statement in "$@"; do
		printf '\n%s=> %s;\n' "$database" "$statement"
		arguments+=(-c "$statement")
	done
	printf '\n'
	sql "$database" "${arguments[@]}"
}

# A second datamart in the database: one row a country, two of which cannot be
# refreshed.  There are datamart users of the same ids, and they wait as well.
add_countries() {
	say 'A second datamart beside it: countries, two of which have bad data'
	sql "$database" -c '
		ALTER TABLE dwh.dimension_countries ADD modified boolean NOT NULL DEFAULT TRUE;
		UPDATE dwh.dimension_users SET modified = TRUE WHERE dimension_user_id BETWEEN 101 AND 200;
		CREATE TABLE dwh.datamartcountries (
			dimension_country_id integer PRIMARY KEY, actions bigint NOT NULL, last_action_at timestamptz);' -c "
		CREATE PROCEDURE dwh.update_datamart_country(p_id integer) LANGUAGE plpgsql AS '
		BEGIN
			IF p_id IN (118, 120) THEN
				RAISE ''country % has no borders'', p_id;
			END IF;
			INSERT INTO dwh.datamartcountries
			SELECT p_id, count(*), max(action_at) FROM dwh.facts WHERE dimension_id_country = p_id
			ON CONFLICT (dimension_country_id) DO UPDATE
			SET actions = excluded.actions, last_action_at = excluded.last_action_at;
		END'"
}

# What a session says for that datamart; the other one goes by the defaults.
countries=(
	"SET datamart_users.users_table = 'dwh.dimension_countries'"
	"SET datamart_users.users_key_column = 'dimension_country_id'"
	"SET datamart_users.facts_user_column = 'dimension_id_country'"
	"SET datamart_users.procedure = 'dwh.update_datamart_country'"
)

prepare_machine
prepare_workspace
build_extension
install_extension
start_server
build_warehouse "$database" "$users" "$facts"
flag_datamart_users "$database" "$users" "$cycles"

say 'Who waits, by priority'
show "SELECT priority, count(*) AS datamart_users, sum(action_count) AS actions
   FROM datamart_users_queue($users)
   GROUP BY priority
   ORDER BY min(queue_position)"

say 'The head of the queue'
show 'SELECT * FROM datamart_users_queue(10)'

for ((cycle = 1; cycle <= cycles; cycle++)); do
	say "Cycle $cycle of $cycles"
	show "SET datamart_users.progress_interval = '2s'" \
		'SELECT * FROM datamart_users_run_cycle(1000)'
done

say 'The last cycle on one screen'
sql "$database" -At -c 'SELECT datamart_users_report()'

say 'What the history tells'
show 'SELECT cycle_id, status, elapsed, backlog, found, processed, failed, workers, prioritisation_time
   FROM datamart_users_cycles
   ORDER BY cycle_id'
show "SELECT cycle_id, priority, found, processed, failed, avg_time, max_time, users_per_minute
   FROM datamart_users_cycle_priority_rates
   ORDER BY cycle_id, array_position('{critical,high,medium,historical,low,lowest}', priority)"
show 'SELECT dimension_user_id, attempts, next_attempt_at, sqlstate, message
   FROM datamart_users_failures
   ORDER BY dimension_user_id'

say 'Whether the refreshed rows equal the facts'
show 'SELECT count(*) AS refreshed,
          (SELECT count(*) FROM dwh.stale_datamart_users() WHERE datamart IS NOT NULL) AS stale,
          (SELECT count(*) FROM dwh.torn_datamart_users()) AS torn
   FROM dwh.datamartusers'

add_countries
show 'SELECT datamart_users_start_cycle(max_workers => 1) AS cycle_of_users'
show "${countries[@]}" \
	'SELECT datamart_users_start_cycle(max_workers => 1) AS cycle_of_countries'
show 'SELECT cycle_id, users_table, phase, found, done, failed FROM datamart_users_progress'
show "SELECT c.users_table, w.status, w.found, w.processed, w.failed
   FROM datamart_users_cycles AS c, datamart_users_wait_cycle(c.cycle_id) AS w
   WHERE c.cycle_id > $cycles
   ORDER BY c.cycle_id"

say 'A country that fails is held back; the datamart user of the same id is not'
show 'SELECT users_table, dimension_user_id, attempts, message
   FROM datamart_users_failures
   WHERE dimension_user_id IN (118, 120)'
show 'SELECT dimension_user_id, modified
   FROM dwh.dimension_users
   WHERE dimension_user_id IN (118, 120)'

if [[ $keep = yes ]]; then
	explain_how_to_go_on "$database"
else
	say 'Removing the server and the extension'
fi
