#!/usr/bin/env bash
#
# upgrade.sh [OLD NEW]
#
# pg_upgrade of a warehouse with history, failures and parked datamart users
# from one major (default: 15) to a newer one (default: 17), in a root of the
# Debian that has the newer (see test/roots.sh).  Needs root; leaves the root
# that it made for the next time.
#
# What has to hold: nothing of the extension has changed, its views are as
# before, the next cycle has the next number, and the two are the same to
# test/reference.sql.  The last line says how many of these passed and failed.

# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=test/roots.sh
. "$(dirname "${BASH_SOURCE[0]}")/roots.sh"
exec </dev/null

if [[ ${1:-} = -h || ${1:-} = --help ]]; then
	usage
	exit
fi
old=$(positive_number 'the old major' "${1:-15}")
new=$(positive_number 'the new major' "${2:-17}")
passed=0
failed=0

# check TITLE COMMAND...
check() {
	local title=$1 log=$copies/log
	shift
	if "$@" >"$log" 2>&1; then
		passed=$((passed + 1))
		printf 'ok      %s\n' "$title"
	else
		failed=$((failed + 1))
		cat "$log"
		printf 'FAILED  %s\n' "$title"
	fi
}

# in_folder COMMAND...: as the OS user, where pg_upgrade may write.
in_folder() { in_root someone sh -c 'cd /home/someone/work && exec "$@"' sh "$@"; }

bin() { printf '/usr/lib/postgresql/%s/bin/%s' "$1" "$2"; }

# start MAJOR, stop MAJOR: a server that listens on a socket only.
start() {
	in_folder "$(bin "$1" pg_ctl)" start -s -w -D "$1" -l "$1.log" \
		-o "-k /home/someone/work -p 5432 -c listen_addresses= -c max_worker_processes=16"
}
stop() { in_folder "$(bin "$1" pg_ctl)" stop -s -w -D "$1"; }

# psql_of MAJOR [ARGUMENT...]
psql_of() { in_folder "$(bin "$1" psql)" -XAtq -v ON_ERROR_STOP=1 -h /home/someone/work -d w "${@:2}"; }

prepare() {
	local major
	in_root someone mkdir /home/someone/work || return 1
	# 18 has checksums by default, and pg_upgrade wants both the same.
	for major in "$old" "$new"; do
		{
			in_root someone make -s clean PG_CONFIG="$(bin "$major" pg_config)" &&
				in_root someone make -s with_llvm=no PG_CONFIG="$(bin "$major" pg_config)" &&
				in_root someone make -s with_llvm=no PG_CONFIG="$(bin "$major" pg_config)" DESTDIR=/home/someone/installed install &&
				in_root root cp -a /home/someone/installed/usr / &&
				in_folder "$(bin "$major" initdb)" -D "$major" --auth=trust --no-sync --locale=C.UTF-8 \
					"$([[ $major -ge 18 ]] && echo --no-data-checksums || echo --no-sync)"
		} || return 1
	done
}

# A warehouse in which one fails, one is parked, and somebody waits.
fill() {
	start "$old" &&
		in_folder "$(bin "$old" createdb)" -h /home/someone/work w &&
		psql_of "$old" -c "
CREATE SCHEMA dwh;
CREATE TABLE dwh.dimension_users (dimension_user_id integer PRIMARY KEY, modified boolean NOT NULL DEFAULT TRUE);
CREATE TABLE dwh.facts (action_dimension_id_user integer, action_at timestamptz NOT NULL);
CREATE TABLE dwh.datamartusers (dimension_user_id integer PRIMARY KEY, actions bigint);
CREATE PROCEDURE dwh.update_datamart_user(id integer) LANGUAGE sql AS
	'INSERT INTO dwh.datamartusers SELECT id, count(*) / (id - 3) FROM dwh.facts WHERE action_dimension_id_user = id
	 ON CONFLICT (dimension_user_id) DO UPDATE SET actions = excluded.actions';
INSERT INTO dwh.dimension_users SELECT generate_series(1, 20);
INSERT INTO dwh.facts SELECT 1 + i % 20, now() FROM generate_series(1, 200) i;
CREATE EXTENSION datamart_users" &&
		psql_of "$old" -c "SELECT datamart_users_park(4, 'known')" &&
		psql_of "$old" -c 'SELECT * FROM datamart_users_run_cycle(10)' &&
		psql_of "$old" -c "SELECT datamart_users_check()" &&
		look "$old" >"$copies/before" && stop "$old"
}

# look MAJOR: what the extension has, and all that it remembers.
look() {
	psql_of "$1" -f /home/someone/datamart_users/test/reference.sql &&
		for table in cycles cycle_priorities cycle_profiles slowest failures contention attempts parked seen \
			metrics cycle_priority_rates; do
			psql_of "$1" -c "SELECT '$table', t FROM datamart_users_$table t ORDER BY t::text"
		done
}

upgrade() {
	in_folder "$(bin "$new" pg_upgrade)" -b "$(dirname "$(bin "$old" x)")" -B "$(dirname "$(bin "$new" x)")" \
		-d "$old" -D "$new" -s /home/someone/work ||
		{ in_folder sh -c 'cat */pg_upgrade_output.d/*/*.txt'; return 1; }
}

compare() {
	start "$new" && look "$new" >"$copies/after" && diff "$copies/before" "$copies/after"
}

# expect VALUE STATEMENT
expect() {
	local got
	got=$(psql_of "$new" -c "$2") || return 1
	[[ $got = "$1" ]] || { printf 'got %s, expected %s\n' "$got" "$1"; return 1; }
}

prepare_roots
find_suite "$new" || die "no suite of $mirror has PostgreSQL $new"
cached_root "upgrade-$old-$new" "$suite bookworm" \
	"postgresql-$old postgresql-server-dev-$old postgresql-$new postgresql-server-dev-$new build-essential"
copy_root

say "From $old to $new"
check 'the extension is installed for both' prepare
check "a warehouse on $old" fill
check 'pg_upgrade' upgrade
check 'nothing has changed' compare
check 'the next cycle has the next number' expect '2|completed|9' \
	'SELECT cycle_id, status, processed FROM datamart_users_run_cycle()'
check 'who failed is still held back, who is parked still out' expect '3,4' \
	"SELECT string_agg(dimension_user_id::text, ',' ORDER BY 1) FROM dwh.dimension_users WHERE modified"
check 'the doctor has no complaint' expect '' "SELECT item FROM datamart_users_check() WHERE status = 'error'"
check 'the server stops' stop "$new"

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
