# shellcheck shell=bash
#
# lib.sh
#		What test/run.sh, test/demo.sh, the scripts beside them and bench/ share:
#		packages, a copy of the sources to build in, and a private server that
#		listens on a socket in a temporary directory only.
#
# A script sources this file, calls prepare_machine, prepare_workspace,
# build_extension, install_extension and start_server in this order, and leaves
# the rest to the trap that this file sets: however the script ends, its
# servers are stopped, its directory and what it installed are removed.
#
# As root everything but the installation happens as the OS user "postgres",
# because a PostgreSQL server refuses to run as root.  As an ordinary user
# only packages and the installation need sudo.
#
# None of this may need /proc, /dev/fd or anything else that is mounted.

set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pg_config=${PG_CONFIG:-}
keep_workspace=no
installed=no
workspace=
make_options=()

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
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "needs root, or the package sudo, to run: $*"
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

# Keeps Debian's packages from making a cluster of their own.
cluster_switch=/etc/postgresql-common/createcluster.d/datamart_users_tests.conf
switched=no
lists_updated=no

is_installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

# has PACKAGE: what it is wanted for, wherever that comes from.
has() {
	case $1 in
	build-essential)
		command -v make >/dev/null && command -v gcc >/dev/null &&
			echo '#include <stdio.h>' | gcc -fsyntax-only -xc - 2>/dev/null
		;;
	perl) command -v prove >/dev/null && perl -MTest::More -MHTTP::Tiny -e 1 2>/dev/null ;;
	libipc-run-perl) perl -MIPC::Run -e 1 2>/dev/null ;;
	*) is_installed "$1" ;;
	esac
}

# Once a script.  A source that cannot be reached is no error before a package
# is missing for it.
update_lists() {
	if [[ $lists_updated = no ]]; then
		as_root apt-get update -qq 2>&1 | sed 's/^/   /' ||
			note 'apt-get update failed, going on with the lists that are there'
		lists_updated=yes
	fi
}

turn_clusters_on() {
	if [[ $switched = yes ]]; then
		as_root rm -f "$cluster_switch"
		as_root rmdir --ignore-fail-on-non-empty "$(dirname "$cluster_switch")"
		switched=no
	fi
}

# install_packages PACKAGE...: what is there already is neither upgraded nor
# started anew, and no cluster is made beside the private one.
install_packages() {
	local log status=0

	update_lists
	note "installing $*"
	log=$(mktemp)
	switched=yes
	as_root mkdir -p "$(dirname "$cluster_switch")"
	echo 'create_main_cluster = false' | as_root tee "$cluster_switch" >/dev/null
	as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
		apt-get install -qq -y --no-install-recommends --no-upgrade \
		-o DPkg::Lock::Timeout=600 "$@" >"$log" 2>&1 || status=$?
	turn_clusters_on
	if [[ $status -ne 0 ]]; then
		tail -n 40 "$log"
		rm -f "$log"
		die "apt-get could not install $*; are the sources of /etc/apt reached, and do they have them?"
	fi
	rm -f "$log"
}

# missing_parts PG_CONFIG: what a build and the tests need of PostgreSQL and
# is not there.
missing_parts() {
	local bin include pgxs part

	if [[ ! -x $1 ]]; then
		printf '%s\n' "$1"
		return
	fi
	bin=$("$1" --bindir)
	include=$("$1" --includedir-server)
	pgxs=$("$1" --pgxs)
	for part in "$bin"/{postgres,initdb,pg_ctl,psql,createdb}; do
		[[ -x $part ]] || printf '%s\n' "$part"
	done
	for part in "$include/postgres.h" "$pgxs" "${pgxs%/makefiles/pgxs.mk}"/{Makefile.global,Makefile.shlib} \
		"${pgxs%/makefiles/pgxs.mk}"/test/{regress/pg_regress,isolation/pg_isolation_regress} \
		"${pgxs%/makefiles/pgxs.mk}"/test/perl/PostgreSQL/Test/Cluster.pm; do
		[[ -f $part ]] || printf '%s\n' "$part"
	done
}

is_complete() { [[ -z $(missing_parts "$1") ]]; }

# The majors of which Debian's packages have put anything here, the preferred
# one first: 15, or the newest.
majors_here() {
	local directory
	for directory in /usr/lib/postgresql/*/bin /usr/include/postgresql/*/server; do
		if [[ $directory =~ /([0-9]+)/[a-z]+$ && -d $directory && ${BASH_REMATCH[1]} -ge 15 ]]; then
			printf '%s\n' "${BASH_REMATCH[1]}"
		fi
	done | sort -rnu |
		awk '$1 == 15 { print; next } { others = others $1 "\n" } END { printf "%s", others }'
}

debian_pg_config() { printf '/usr/lib/postgresql/%s/bin/pg_config' "$1"; }

# complete_major MAJOR: installs what is missing of it; false if there are no
# packages to be had.
complete_major() {
	local package
	local -a missing=()

	update_lists
	for package in "postgresql-$1" "postgresql-client-$1" "postgresql-server-dev-$1"; do
		if ! is_installed "$package"; then
			[[ -n $(apt-cache show "$package" 2>/dev/null) ]] || return 1
			missing+=("$package")
		fi
	done
	if [[ ${#missing[@]} -gt 0 ]]; then
		install_packages "${missing[@]}"
	fi
	is_complete "$(debian_pg_config "$1")"
}

# Sets pg_config, which the caller of the script has given, to an absolute path
# and sees to it that it is complete.
prepare_given_server() {
	local given=$pg_config path major=

	path=$(command -v "$given") && path=$(cd "$(dirname "$path")" && pwd)/$(basename "$path")
	pg_config=${path:-$given}
	if [[ $pg_config =~ ^/usr/lib/postgresql/([0-9]+)/bin/pg_config$ ]] ||
		{ [[ -n $path ]] && [[ $("$pg_config" --bindir) =~ ^/usr/lib/postgresql/([0-9]+)/bin$ ]]; }; then
		major=${BASH_REMATCH[1]}
	fi
	if ! is_complete "$pg_config" && [[ -n $major ]]; then
		complete_major "$major" ||
			note "there are no packages to complete PostgreSQL $major with"
	fi
	is_complete "$pg_config" ||
		die "PG_CONFIG=$given is not enough to build and test with, there is no $(missing_parts "$pg_config" | paste -sd ' ')"
}

# Sets pg_config to an installed major that is complete, or makes one so; the
# distribution's own where none can be.
prepare_any_server() {
	local major

	for major in $(majors_here); do
		if is_complete "$(debian_pg_config "$major")"; then
			pg_config=$(debian_pg_config "$major")
			return
		fi
	done
	for major in $(majors_here); do
		note "PostgreSQL $major lacks $(missing_parts "$(debian_pg_config "$major")" | paste -sd ' ')"
		if complete_major "$major"; then
			pg_config=$(debian_pg_config "$major")
			return
		fi
		note "there are no packages to complete it with"
	done
	update_lists
	major=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
	[[ -n $major ]] ||
		die 'apt knows no package postgresql; are the sources of /etc/apt reached?'
	[[ $major -ge 15 ]] ||
		die "this distribution has PostgreSQL $major, and 15 or later is needed"
	pg_config=$(debian_pg_config "$major")
	complete_major "$major" ||
		die "PostgreSQL $major is installed, but there is no $(missing_parts "$pg_config" | paste -sd ' ')"
}

# prepare_machine [PACKAGE...]: a server with its development files, a
# compiler, and the packages named; a package named with a ? in front is
# installed if the distribution has it.  "MAJOR" stands for the server's.
prepare_machine() {
	local -a missing=()
	local major package clang

	say 'Packages'
	if [[ -n $pg_config ]]; then
		prepare_given_server
	else
		prepare_any_server
	fi
	major=$("$pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')

	for package in build-essential "$@"; do
		package=${package//MAJOR/$major}
		if has "${package#\?}"; then
			continue
		fi
		update_lists
		if [[ $package != \?* ]]; then
			missing+=("$package")
		elif [[ -n $(apt-cache show "${package#\?}" 2>/dev/null) ]]; then
			missing+=("${package#\?}")
		else
			note "not available here, going on without it: ${package#\?}"
		fi
	done
	if [[ ${#missing[@]} -gt 0 ]]; then
		install_packages "${missing[@]}"
	fi

	# A server with JIT wants bitcode, which only its own clang can make.
	clang=$(sed -n 's/^CLANG *= *//p' "$(dirname "$("$pg_config" --pgxs)")/../Makefile.global")
	if [[ -n $clang ]] && ! command -v "${clang%% *}" >/dev/null; then
		note "there is no $clang, building without bitcode for JIT"
		make_options=(with_llvm=no)
	fi

	if [[ $EUID -eq 0 ]] && ! id postgres >/dev/null 2>&1; then
		die 'as root, an OS user "postgres" is needed to run servers; the package postgresql-common makes one'
	fi
	note "$("$pg_config" --version), $pg_config"
	PATH=$("$pg_config" --bindir):$PATH
}

#-------------------------------------------------------------------------
# Workspace
#-------------------------------------------------------------------------

prepare_workspace() {
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

	if is_installed "$1"; then
		return
	fi
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
	turn_clusters_on
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

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

#-------------------------------------------------------------------------
# The extension
#-------------------------------------------------------------------------

make_extension() { as_server_user make -s PG_CONFIG="$pg_config" "${make_options[@]}" "$@"; }
make_as_root() {
	as_root make -s -C "$workspace/tree" PG_CONFIG="$pg_config" "${make_options[@]}" "$@" >/dev/null
}

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
	local list=$workspace/replaced
	find "$("$pg_config" --sharedir)/extension" "$("$pg_config" --pkglibdir)" \
		-name 'datamart_users*' -prune >"$list"
	if [[ -s $list ]]; then
		as_root tar -C / -cPf "$workspace/replaced.tar" -T "$list"
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

# flag_datamart_users DATABASE USERS CYCLES: of that many datamart users, a fifth
# more than so many cycles of 1000 will take, in all six priorities, as after a
# busy time; then two accounts near the head of the queue change their names,
# and their old rows can no longer be refreshed.
flag_datamart_users() {
	say 'An ETL run flags the datamart users whose facts have changed'
	sql "$1" -c "
		UPDATE dwh.dimension_users
		SET modified = dwh.noise(dimension_user_id, 7) < 1200.0 * $3 / $2" -c "
		SELECT dwh.etl_rename_user(dimension_user_id::integer)
		FROM datamart_users_queue(1000)
		WHERE queue_position IN (5, 50)" -c '
		VACUUM ANALYZE dwh.dimension_users' >/dev/null
	note "$(query "$1" "SELECT count(*) FILTER (WHERE modified) || ' of ' || count(*) FROM dwh.dimension_users") are modified"
	note 'two of them are renamed accounts, whose refresh will fail'
}

# explain_how_to_go_on DATABASE: leaves the server running, with a script in the
# workspace that removes what finish() would have.
explain_how_to_go_on() {
	local connect="psql -h $PGHOST $1"
	if [[ $EUID -eq 0 ]]; then
		connect="runuser -u postgres -- $connect"
	fi
	printf '%s\n' '#!/usr/bin/env bash' \
		"PG_CONFIG=$pg_config . $workspace/tree/test/lib.sh" \
		"workspace=$workspace" "installed=$installed" finish |
		as_server_user tee "$workspace/remove" >/dev/null
	keep_workspace=yes

	say 'The server is still running'
	note "connect:          $connect"
	note "stop and remove:  bash $workspace/remove"
}
