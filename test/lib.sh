# shellcheck shell=bash
#
# lib.sh
#		What test/run.sh, test/demo.sh and the harnesses in bench/ share:
#		packages, a copy of the sources to build in, and a private server that
#		listens on a socket in a temporary directory only.
#
# A script sources this file, calls prepare_machine, prepare_workspace,
# build_extension, install_extension and start_server in this order, and leaves
# the rest to the trap that prepare_workspace sets: however the script ends,
# its servers are stopped, its directory and what it installed are removed.
#
# As root everything but the installation happens as the OS user "postgres",
# because a PostgreSQL server refuses to run as root.  As an ordinary user
# only packages and the installation need sudo.

set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pg_config=${PG_CONFIG:-}
keep_workspace=no
installed=no
workspace=

# The caller's connection settings must not lead anywhere else.
unset "${!PG@}"

say() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() {
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

# Prints the comment at the head of the script.
usage() { sed -n '3,/^$/ s/^# \{0,1\}//p' "$0"; }

# positive_number OPTION VALUE: the value, if it is one.
positive_number() {
	[[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "$1 needs a positive number"
	printf '%s' "$2"
}

as_root() {
	if [[ $EUID -eq 0 ]]; then
		"$@"
	else
		sudo "$@"
	fi
}

# The OS user that builds, tests and runs servers.
as_server_user() {
	if [[ $EUID -eq 0 ]]; then
		runuser -u postgres -- "$@"
	else
		"$@"
	fi
}

#-------------------------------------------------------------------------
# Packages
#-------------------------------------------------------------------------

# True if "pg_config" has a server and what extensions are built with.
is_complete() {
	[[ -x $1 && -x $("$1" --bindir)/postgres && -f $("$1" --pgxs) ]]
}

# Sets pg_config to an installed major that is complete: 15, or the newest.
find_server() {
	local candidate
	for candidate in /usr/lib/postgresql/15/bin/pg_config \
		$(printf '%s\n' /usr/lib/postgresql/*/bin/pg_config | sort -rV); do
		if is_complete "$candidate"; then
			pg_config=$candidate
			return
		fi
	done
	return 1
}

# install_packages PACKAGE...: without a cluster of the distribution's own,
# which nothing here needs, beside the private one.
install_packages() {
	local switch=/etc/postgresql-common/createcluster.d/datamart_users_tests.conf
	local log status=0

	note "installing $*"
	log=$(mktemp)
	as_root mkdir -p "$(dirname "$switch")"
	echo 'create_main_cluster = false' | as_root tee "$switch" >/dev/null
	as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install -qq -y --no-install-recommends "$@" >"$log" 2>&1 || status=$?
	as_root rm -f "$switch"
	as_root rmdir --ignore-fail-on-non-empty "$(dirname "$switch")"
	if [[ $status -ne 0 ]]; then
		cat "$log"
		die "apt-get could not install: $*"
	fi
	rm -f "$log"
}

# prepare_machine [PACKAGE...]: a server with its development files, a
# compiler, and the packages named; a package named with a ? in front is
# installed if the distribution has it.  "MAJOR" stands for the server's.
prepare_machine() {
	local -a missing=()
	local major package

	say 'Packages'
	if [[ -n $pg_config ]]; then
		is_complete "$pg_config" ||
			die "PG_CONFIG=$pg_config has no server or no development files beside it"
	elif ! find_server; then
		as_root apt-get update -qq
		major=$(apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p')
		[[ -n $major ]] || die 'this distribution has no package postgresql'
		install_packages "postgresql-$major" "postgresql-server-dev-$major"
		find_server || die "postgresql-$major is installed, but not complete"
	fi
	major=$("$pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')

	for package in build-essential "$@"; do
		package=${package//MAJOR/$major}
		if dpkg-query -W -f '${Status}' "${package#\?}" 2>/dev/null | grep -q 'ok installed'; then
			continue
		fi
		if [[ ${#missing[@]} -eq 0 ]]; then
			as_root apt-get update -qq
		fi
		if [[ $package != \?* ]]; then
			missing+=("$package")
		elif apt-cache show "${package#\?}" >/dev/null 2>&1; then
			missing+=("${package#\?}")
		else
			note "not available here, going on without it: ${package#\?}"
		fi
	done
	if [[ ${#missing[@]} -gt 0 ]]; then
		install_packages "${missing[@]}"
	fi

	if [[ $EUID -eq 0 ]] && ! id postgres >/dev/null 2>&1; then
		die 'as root, an OS user "postgres" is needed to run servers'
	fi
	note "$("$pg_config" --version), $pg_config"
	PATH=$("$pg_config" --bindir):$PATH
}

#-------------------------------------------------------------------------
# Workspace
#-------------------------------------------------------------------------

prepare_workspace() {
	trap finish EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	workspace=$(mktemp -d "${TMPDIR:-/tmp}/datamart_users.XXXXXX")
	mkdir "$workspace/tree" "$workspace/socket" "$workspace/tmp"
	export TMPDIR=$workspace/tmp
	tar -C "$repository" --exclude=./.git -cf - . | tar -C "$workspace/tree" -xf -
	if [[ $EUID -eq 0 ]]; then
		chown -R postgres: "$workspace"
	fi
	cd "$workspace/tree"
}

# borrow_program PACKAGE: its programs in PATH for as long as the workspace
# lasts.  Not installed, because Debian would start it as a service.
borrow_program() {
	local directory=$workspace/borrowed

	mkdir -p "$directory/package"
	chmod a+rx "$directory"
	if ! (cd "$directory/package" && apt-get download -qq "$1" >/dev/null 2>&1) &&
		! { as_root apt-get update -qq &&
			(cd "$directory/package" && apt-get download -qq "$1" >/dev/null 2>&1); }; then
		note "not available here, going on without it: $1"
		return
	fi
	dpkg-deb -x "$directory"/package/*.deb "$directory"
	chmod -R a+rX "$directory"
	PATH=$PATH:$directory/usr/bin
	note "$1, in the workspace only"
}

# Stops every server whose data lives in the workspace, those of interrupted
# TAP tests too.
stop_servers() {
	local pidfile
	find "$workspace" -name postmaster.pid | while read -r pidfile; do
		as_server_user "$("$pg_config" --bindir)/pg_ctl" stop -s -m immediate \
			-D "$(dirname "$pidfile")" || true
	done
}

finish() {
	local status=$?
	trap - EXIT
	if [[ $keep_workspace = no && -n $workspace ]]; then
		stop_servers
		if [[ $installed = yes ]]; then
			uninstall_extension
		fi
		cd /
		rm -rf "$workspace"
	fi
	exit "$status"
}

#-------------------------------------------------------------------------
# The extension
#-------------------------------------------------------------------------

make_extension() { as_server_user make -s PG_CONFIG="$pg_config" "$@"; }
make_as_root() { as_root make -s -C "$workspace/tree" PG_CONFIG="$pg_config" "$@" >/dev/null; }

# build_extension [MAKE ARGUMENT...]
build_extension() {
	say 'Build'
	make_extension clean >/dev/null
	make_extension -j "$(nproc)" "$@"
	note "built in a copy of $repository"
}

# PostgreSQL loads extensions from its own directories only, so ours goes
# there until the end.  An installation that it replaces is kept and put back.
install_extension() {
	local -a replaced
	mapfile -t replaced < <(find "$("$pg_config" --sharedir)/extension" \
		"$("$pg_config" --pkglibdir)" -name 'datamart_users*' -prune)
	if [[ ${#replaced[@]} -gt 0 ]]; then
		as_root tar -C / -cPf "$workspace/replaced.tar" "${replaced[@]}"
		note "putting aside the one that is installed until the end of this script"
	fi
	make_as_root install
	installed=yes
	note "installed for $("$pg_config" --version)"
}

uninstall_extension() {
	make_as_root uninstall
	if [[ -e $workspace/replaced.tar ]]; then
		as_root tar -C / -xPf "$workspace/replaced.tar"
		as_root rm "$workspace/replaced.tar"
	fi
}

#-------------------------------------------------------------------------
# The private server
#-------------------------------------------------------------------------

# start_server [SETTING...]: each "name = value"; otherwise a server as initdb
# makes it.  Exports what libpq needs to find it.
start_server() {
	say 'Private server'
	as_server_user initdb --pgdata="$workspace/data" --auth=trust --no-sync \
		--locale=C.UTF-8 --encoding=UTF8 >/dev/null
	printf '%s\n' "listen_addresses = ''" \
		"unix_socket_directories = '$workspace/socket'" "$@" |
		as_server_user tee -a "$workspace/data/postgresql.conf" >/dev/null
	as_server_user pg_ctl start -s -w -D "$workspace/data" -l "$workspace/server.log" ||
		{ cat "$workspace/server.log"; die 'the private server did not start'; }
	export PGHOST=$workspace/socket PGPORT=5432
	note "socket in $PGHOST, no network"
}

# sql DATABASE [PSQL ARGUMENT...]: messages and results in one stream, so that
# they come in order.
sql() {
	local database=$1
	shift
	as_server_user psql -X -q -v ON_ERROR_STOP=1 -P footer=off -P null=- \
		-d "$database" "$@" 2>&1
}

# query DATABASE STATEMENT: the bare value.
query() { as_server_user psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$1" -c "$2"; }

# build_warehouse DATABASE USERS FACTS: with the extension in it.
build_warehouse() {
	local started=$SECONDS
	say "Warehouse: $2 datamart users, $3 facts"
	as_server_user createdb "$1"
	sql "$1" -v users="$2" -v facts="$3" -f test/fixtures/warehouse.sql
	sql "$1" -c 'CREATE EXTENSION datamart_users'
	sql "$1" -c 'VACUUM ANALYZE'
	note "built in $((SECONDS - started)) s, with $(query "$1" \
		"SELECT count(*) FROM pg_index WHERE indrelid = 'dwh.facts'::regclass") indexes on each of $(query "$1" \
		"SELECT count(*) FROM pg_inherits WHERE inhparent = 'dwh.facts'::regclass") partitions"
}
