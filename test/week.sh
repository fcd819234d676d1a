#!/usr/bin/env bash
#
# week.sh [--users N] [--facts N] [--days N] [--page] [--keep]
#
# A week in the life of the demonstration's warehouse, in a few minutes, and
# what one asks afterwards: the queries that doc/monitoring.md shows, and the
# output that it shows.  Works on a fresh Debian machine, as root or with sudo, and removes all
# of it afterwards, packages excepted.
#
#	--users N	datamart users in the warehouse (default 20000)
#	--facts N	facts in the warehouse (default 1000000)
#	--days N	days of the history (default 7)
#	--page		put the output into doc/monitoring.md, too
#	--keep		leave the server running, and say how to reach and remove it
#
# The cycles are real, and so is all that happens to them; the time between
# two of them is not: after each cycle the history is moved into the past by
# three hours, as is what the extension remembers of datamart users.
#
# PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config selects another major.

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

users=20000
facts=1000000
days=7
page=no
keep=no
database=warehouse

# Between two cycles, in hours, and datamart users of a cycle at the most.
step=3
limit=250

# Seconds that anything here may take to happen.
patience=120

while [[ $# -gt 0 ]]; do
	case $1 in
	--users | --facts | --days)
		value=$(positive_number "$1" "${2:-}")
		declare "${1#--}=$value"
		shift
		;;
	--page) page=yes ;;
	--keep) keep=yes ;;
	-h | --help)
		usage
		exit
		;;
	*) die "unknown argument $1, see --help" ;;
	esac
	shift
done

steps=$((days * 24 / step))

#-------------------------------------------------------------------------
# Who does what
#-------------------------------------------------------------------------

# as ROLE NAME [STATEMENT...]: a session of that role, under the name of an
# application.
as() {
	local role=$1 name=$2 statement
	local -a arguments=()
	shift 2
	for statement in "$@"; do
		arguments+=(-c "$statement")
	done
	as_server_user env PGAPPNAME="$name" psql -X -q -A -t -v ON_ERROR_STOP=1 \
		-U "$role" -d "$database" "${arguments[@]}"
}

# in_background ROLE NAME STATEMENT...: the same beside the script, whatever
# becomes of it.
in_background() {
	as "$@" >>"$workspace/tmp/sessions.log" 2>&1 &
}

# wait_until STATEMENT: until it says t.
wait_until() {
	local deadline=$((SECONDS + patience))
	until [[ $(query "$database" "$1" 2>/dev/null) = t ]]; do
		[[ $SECONDS -lt $deadline ]] || die "timed out waiting for: $1"
		sleep 0.05
	done
}

# The processes of cycles are told by their locks.
until_idle() {
	wait_until "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2"
}

until_in_the_midst() {
	wait_until 'SELECT count(*) = 1 FROM datamart_users_progress WHERE done BETWEEN 1 AND found - 50'
}

create_roles() {
	sql "$database" -c '
		CREATE ROLE etl LOGIN IN ROLE pg_monitor;
		CREATE ROLE dba LOGIN IN ROLE pg_monitor, pg_signal_backend;
		GRANT USAGE ON SCHEMA dwh TO etl, dba;
		GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA dwh TO etl, dba;
		GRANT EXECUTE ON ALL ROUTINES IN SCHEMA public TO etl, dba' -c "
		ALTER DATABASE $database SET datamart_users.freshness_objective = 'critical = 4h, high = 12h, medium = 2d';
		ALTER DATABASE $database SET datamart_users.max_workers = 2;
		ALTER DATABASE $database SET datamart_users.progress_interval = '500ms';
		ALTER DATABASE $database SET track_functions = 'pl'"
}

#-------------------------------------------------------------------------
# The time
#-------------------------------------------------------------------------

# Everything that the extension has written down happened three hours earlier.
let_time_pass() {
	sql "$database" -v step="$step hours" <<-'SQL'
		SELECT format('UPDATE %s SET %s', a.attrelid::regclass,
					  string_agg(format('%1$I = %1$I - interval %2$L', a.attname, :'step'), ', '))
		  FROM pg_depend d
		  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'datamart_users'
		  JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'
		  JOIN pg_attribute a ON a.attrelid = c.oid
		 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass
		   AND d.deptype = 'e' AND a.attnum > 0 AND a.attgenerated = ''
		   AND a.atttypid = 'timestamptz'::regtype
		 GROUP BY a.attrelid
		\gexec
	SQL
}

# etl_load STEPS_LEFT: what has come in since the last cycle.  Few work at
# night and on Sunday; at six in the morning the day's load comes, with
# corrections of datamart users of all priorities.
etl_load() {
	sql "$database" -v left="$1" -v step="$step" >/dev/null <<-'SQL'
		SELECT setseed(:left / 1000.0);
		SELECT at, extract(hour FROM at)::integer / :step * :step AS hour, extract(isodow FROM at) AS day
		  FROM (SELECT localtimestamp - :left * :step * interval '1 hour' AS at) AS t \gset
		SELECT round(CASE WHEN :hour = 6 THEN 380 WHEN :hour BETWEEN 9 AND 18 THEN 180 ELSE 45 END
					 * CASE WHEN :day = 7 THEN 0.4 ELSE 1 END * (0.8 + 0.4 * random())) AS load \gset
		SELECT dwh.etl_add_facts((:load * 0.7)::integer, NULL, :'at');
		UPDATE dwh.dimension_users SET modified = TRUE
		 WHERE is_current AND random() < 0.3 * :load / (SELECT count(*) FROM dwh.dimension_users);
	SQL
}

# flag PART: that part of the datamart users, of all priorities, as when
# figures of long ago are corrected.
flag() {
	sql "$database" -c "
		UPDATE dwh.dimension_users SET modified = TRUE
		 WHERE is_current AND dwh.noise(dimension_user_id, $1) < $1 / 100.0"
}

# So many that a cycle lasts for a while, at whatever hour.
be_busy() { flag $((30000 / users + 1)); }

#-------------------------------------------------------------------------
# What happens
#-------------------------------------------------------------------------

run_cycle="SELECT status FROM datamart_users_run_cycle($limit)"

plain_cycle() { as etl 'hourly load' "$run_cycle" >/dev/null 2>>"$workspace/tmp/sessions.log"; }

# From now on four renamed accounts fail; two of them get parked, one is mended.
rename_accounts() {
	sql "$database" -c "
		SELECT dwh.etl_rename_user(dimension_user_id::integer)
		  FROM datamart_users_queue(100)
		 WHERE queue_position IN (5, 15, 25, 35)" >/dev/null
	plain_cycle
}

park_two() {
	as dba console "
		SELECT datamart_users_park(dimension_user_id, 'renamed account, ticket 815')
		  FROM (SELECT dimension_user_id FROM datamart_users_failures
				 ORDER BY dimension_user_id LIMIT 2) AS f" >/dev/null
	plain_cycle
}

mend_one() {
	sql "$database" -c '
		UPDATE dwh.dimension_users SET is_current = TRUE
		 WHERE dimension_user_id = (SELECT f.dimension_user_id FROM datamart_users_failures AS f
									LEFT JOIN datamart_users_parked AS p USING (users_oid, dimension_user_id)
									WHERE p IS NULL ORDER BY 1 LIMIT 1)' >/dev/null
	plain_cycle
}

# A check that somebody thought would always hold.
break_the_heaviest() {
	sql "$database" -c '
		ALTER TABLE dwh.datamartusers ADD CONSTRAINT fits_a_smallint CHECK (actions_total <= 32767) NOT VALID;
		UPDATE dwh.dimension_users SET modified = TRUE
		 WHERE dimension_user_id IN (SELECT action_dimension_id_user FROM dwh.facts
									 GROUP BY 1 HAVING count(*) > 32767)' >/dev/null
	plain_cycle
	sql "$database" -c 'ALTER TABLE dwh.datamartusers DROP CONSTRAINT fits_a_smallint'
}

# A report that keeps rows of the datamart locked: those whom it needs collide
# in their procedure.
keep_rows_locked() {
	in_background dba 'monthly report' 'BEGIN' "
		SELECT 1 FROM dwh.datamartusers
		 WHERE dimension_user_id IN (SELECT q.dimension_user_id
									   FROM datamart_users_queue($limit) AS q
									   JOIN dwh.datamartusers AS d USING (dimension_user_id)
									  LIMIT 5)
		   FOR UPDATE" 'SELECT pg_sleep(3600)'
	wait_until "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'monthly report' AND wait_event = 'PgSleep'"
	as etl 'hourly load' "SET lock_timeout = '50ms'" "$run_cycle" >/dev/null 2>>"$workspace/tmp/sessions.log"
	end_session 'monthly report'
}

end_session() {
	query "$database" "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '$1'" >/dev/null
	wait_until "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = '$1'"
}

administrator_cancels() {
	in_background etl 'hourly load' "$run_cycle"
	until_in_the_midst
	as dba console 'SELECT datamart_users_cancel_cycle()' >/dev/null
}

server_crashes() {
	in_background etl 'hourly load' "$run_cycle"
	until_in_the_midst
	as_server_user pg_ctl stop -s -m immediate -D "$workspace/data"
	as_server_user pg_ctl start -s -w -D "$workspace/data" -l "$workspace/server.log"
}

time_limit() {
	as etl 'hourly load' "SELECT status FROM datamart_users_run_cycle($limit, time_limit => '2s')" \
		>/dev/null 2>>"$workspace/tmp/sessions.log"
}

statement_timeout() {
	as etl 'hourly load' "SET statement_timeout = '1500ms'" "$run_cycle" \
		>/dev/null 2>>"$workspace/tmp/sessions.log" || true
}

client_goes_away() {
	local pidfile=$workspace/tmp/client
	as_server_user env PGAPPNAME='hourly load' sh -c "echo \$\$ >$pidfile; exec psql -X -q -U etl -d $database -c '$run_cycle'" \
		>>"$workspace/tmp/sessions.log" 2>&1 &
	until_in_the_midst
	as_server_user kill -9 "$(cat "$pidfile")"
}

# A migration that somebody has forgotten to commit: both workers stand still.
begin_migration() {
	as_server_user mkfifo "$workspace/tmp/migration"
	as postgres migration <"$workspace/tmp/migration" >>"$workspace/tmp/sessions.log" 2>&1 &
	exec 9>"$workspace/tmp/migration"
	printf '%s\n' 'BEGIN;' 'ALTER TABLE dwh.datamartusers ADD remarks text;' >&9
	wait_until "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'migration' AND state = 'idle in transaction' AND query ~ 'ALTER'"
}

# Whoever was started meanwhile has inherited the pipe, so that closing it does
# not end the session.
end_migration() {
	end_session migration
	exec 9>&-
	rm "$workspace/tmp/migration"
}

until_blocked() {
	wait_until 'SELECT count(*) = 2 FROM datamart_users_workers WHERE blocking_pids IS NOT NULL'
}

cancel_of_a_worker() {
	begin_migration
	in_background etl 'hourly load' "$run_cycle"
	until_blocked
	as dba console 'SELECT pg_cancel_backend(pid) FROM datamart_users_workers WHERE worker = 2' >/dev/null
	wait_until 'SELECT deferred = 1 FROM datamart_users_progress'
	end_migration
}

# What happens in a step; most of them are plain.
live_through() {
	case $1 in
	12 | 21 | 28 | 35 | 38) be_busy ;;
	esac
	case $1 in
	9) rename_accounts ;;
	12) administrator_cancels ;;
	17) park_two ;;
	21) server_crashes ;;
	25) mend_one ;;
	28) statement_timeout ;;
	30 | 31) keep_rows_locked ;;
	35) time_limit ;;
	38) client_goes_away ;;
	42) break_the_heaviest ;;
	46) cancel_of_a_worker ;;
	*) plain_cycle ;;
	esac
	until_idle
}

live() {
	say "$days days, a cycle every $step hours"
	sql "$database" -c 'UPDATE dwh.dimension_users SET modified = FALSE'
	flag 10
	for ((i = 1; i <= steps; i++)); do
		etl_load $((steps - i))
		if [[ $i -eq $((steps - 2)) ]]; then
			flag 12
		fi
		live_through "$i"
		if [[ $((i * step % 24)) -eq 0 ]]; then
			note "day $((i * step / 24)): $(query "$database" "
				SELECT count(*) || ' cycles, ' || sum(processed) || ' datamart users processed, '
					   || count(*) FILTER (WHERE status <> 'completed') || ' ended otherwise than completed'
				  FROM datamart_users_cycles
				 WHERE started_at > now() - interval '23 hours'")"
		fi
		if [[ $i -lt $steps ]]; then
			let_time_pass
		fi
	done
}

#-------------------------------------------------------------------------
# What one asks: the queries are those of doc/monitoring.md.
#-------------------------------------------------------------------------

page() { as_server_user perl test/page.pl doc/monitoring.md "$workspace/tmp/answers" "$@"; }

ask() {
	local cycle
	as_server_user mkdir "$workspace/tmp/answers"
	page ask afterwards

	flag 10
	in_background etl 'hourly load' 'SELECT datamart_users_run_cycle(1000)'
	until_in_the_midst
	wait_until "SELECT percent > 40 FROM datamart_users_progress"
	page ask running
	begin_migration
	until_blocked
	page ask blocked
	cycle=$(query "$database" 'SELECT max(cycle_id) FROM datamart_users_cycles')
	end_migration
	query "$database" "SELECT datamart_users_cancel_cycle($cycle)" >/dev/null
	until_idle
}

prepare_machine perl
prepare_workspace
build_extension
install_extension
start_server
build_warehouse "$database" "$users" "$facts"
create_roles
live
ask
page show

if [[ $page = yes ]]; then
	say 'Writing it into doc/monitoring.md'
	cmp -s doc/monitoring.md "$repository/doc/monitoring.md" ||
		die 'somebody has changed doc/monitoring.md meanwhile'
	page write >"$workspace/page"
	cp "$workspace/page" "$repository/doc/monitoring.md"
fi
if [[ $keep = yes ]]; then
	explain_how_to_go_on "$database"
fi
