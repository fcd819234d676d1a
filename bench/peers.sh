# shellcheck shell=bash
#
# peers.sh
#		Ways to refresh the same datamart users, each as its own users run it.
#
# A way NAME has a function work_NAME WORKERS TAKE, and fill_NAME where somebody
# has to put the datamart users into its queue first, in the documented order;
# both are measured.  $procedure is what is to be called.  What has no fill_NAME
# gets the datamart users for nothing, as limits should, or is the cycle.

# The variables are the caller's.
# shellcheck disable=SC2034,SC2154

declare -A peer_label=(
	[cycle]='datamart_users, a cycle'
	[queue_file]='bash, queue file, a psql each'
	[skip_locked]='pgbench, SKIP LOCKED'
	[skip_locked_tuned]='the same with worker_settings'
	[graphile]='graphile-worker'
	[prepared]='pgbench -M prepared, no queue, synchronous commit'
	[prepared_async]='the same, asynchronous commit'
	[loops]='N sessions at once, a loop in each'
	[loop_commit]='one session, loop with COMMIT, divided by N'
	[loop]='one session, loop, one transaction, divided by N'
)
peer_order=(cycle queue_file skip_locked skip_locked_tuned graphile prepared prepared_async loops loop_commit loop)

ordered_ids() { as_server_user psql -X -q -A -t -v ON_ERROR_STOP=1 -v take="$1" -d "$database" -f bench/documented_query.sql; }

#-------------------------------------------------------------------------
# The script's queue file
#-------------------------------------------------------------------------

fill_queue_file() { ordered_ids "$2" >"$workspace/tmp/queue"; }

work_queue_file() {
	PGDATABASE=$database as_server_user bash bench/queue_file.sh "$1" "$workspace/tmp/queue" "$procedure"
}

#-------------------------------------------------------------------------
# Sessions of pgbench on a queue table
#-------------------------------------------------------------------------

fill_skip_locked() {
	sql "$database" -c 'TRUNCATE bench_queue'
	{
		printf 'INSERT INTO bench_queue (dimension_user_id)\n'
		cat bench/documented_query.sql
	} >"$workspace/tmp/fill.sql"
	sql "$database" -v take="$2" -f "$workspace/tmp/fill.sql"
}

fill_skip_locked_tuned() { fill_skip_locked "$@"; }

# A session whose turn finds the queue empty ends with an error of pgbench.
work_skip_locked() {
	cat >"$workspace/tmp/skip_locked" <<-END
		BEGIN;
		DELETE FROM bench_queue WHERE position = (
			SELECT position FROM bench_queue ORDER BY position LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING dimension_user_id AS id \\gset
		CALL $procedure(:id);
		UPDATE dwh.dimension_users SET modified = FALSE WHERE dimension_user_id = :id;
		COMMIT;
	END
	as_server_user pgbench -n -M prepared -c "$1" -j "$1" -t "$2" -f "$workspace/tmp/skip_locked" "$database" \
		>"$workspace/tmp/pgbench" 2>&1 || true
	! grep 'ERROR' "$workspace/tmp/pgbench"
}

work_skip_locked_tuned() { PGOPTIONS=$worker_settings work_skip_locked "$@"; }

#-------------------------------------------------------------------------
# graphile-worker
#-------------------------------------------------------------------------

# prepare_graphile: false if it cannot be had.
prepare_graphile() {
	local directory=$workspace/graphile
	if ! command -v npm >/dev/null; then
		prepare_machine '?nodejs' '?npm'
	fi
	mkdir -p "$directory" && cp bench/graphile.mjs "$directory"
	if [[ $EUID -eq 0 ]]; then
		chown -R postgres: "$directory"
	fi
	command -v npm >/dev/null &&
		HOME=$directory as_server_user npm install --prefix "$directory" --no-audit --no-fund --loglevel=error \
			graphile-worker@0.16 pg@8 >"$workspace/tmp/npm" 2>&1 &&
		note "graphile-worker $(sed -n 's/^  "version": "\(.*\)",/\1/p' "$directory/node_modules/graphile-worker/package.json"), node $(node --version)"
}

graphile() {
	PGDATABASE=$database NODE_ENV=production as_server_user node "$workspace/graphile/graphile.mjs" "$1" "$procedure" "$2"
}

fill_graphile() { ordered_ids "$2" | graphile fill 1; }
work_graphile() { graphile work "$1"; }

#-------------------------------------------------------------------------
# Limits: no queue and no order
#-------------------------------------------------------------------------

# The same statements, each session with a share of its own.
prepared() {
	local settings=$1 workers=$2 take=$3
	cat >"$workspace/tmp/prepared" <<-END
		\\set i :i + 1
		\\set position (:i - 1) * $workers + :client_id + 1
		BEGIN;
		SELECT dimension_user_id AS id, modified
		FROM bench_users JOIN dwh.dimension_users USING (dimension_user_id) WHERE position = :position \\gset
		CALL $procedure(:id);
		UPDATE dwh.dimension_users SET modified = FALSE WHERE dimension_user_id = :id;
		COMMIT;
	END
	PGOPTIONS=$settings as_server_user pgbench -n -M prepared -c "$workers" -j "$workers" -t $((take / workers)) -D i=0 \
		-f "$workspace/tmp/prepared" "$database" >"$workspace/tmp/pgbench" 2>&1 || {
		cat "$workspace/tmp/pgbench"
		die 'pgbench failed'
	}
}

work_prepared() { prepared "$worker_settings -c synchronous_commit=on" "$@"; }
work_prepared_async() { prepared "$worker_settings" "$@"; }

# loop COMMAND TAKE [OF PART]: in one session; of so many sessions, that one.
loop() {
	PGOPTIONS=$worker_settings sql "$database" -c "DO \$\$
		DECLARE
			id integer;
		BEGIN
			FOR id IN SELECT dimension_user_id FROM bench_users WHERE position <= $2 AND position % ${3:-1} = ${4:-0} ORDER BY position LOOP
				CALL $procedure(id);
				UPDATE dwh.dimension_users SET modified = FALSE WHERE dimension_user_id = id;
				$1;
			END LOOP;
		END \$\$"
}

work_loops() {
	local part
	local -a sessions=()
	for ((part = 0; part < $1; part++)); do
		loop NULL "$2" "$1" "$part" &
		sessions+=($!)
	done
	for part in "${sessions[@]}"; do
		wait "$part"
	done
}

work_loop() { loop NULL "$2"; }
work_loop_commit() { loop COMMIT "$2"; }

#-------------------------------------------------------------------------
# The cycle
#-------------------------------------------------------------------------

work_cycle() { run_cycle "$2" "$1" "$procedure"; }
