#!/usr/bin/env bash
#
# fresh.sh [--short] [--list] [CASE...]
#
# Runs the two commands that README.md promises to work on any Debian machine,
# test/run.sh and test/demo.sh, on machines that have never seen them: bare
# roots of this machine's release, a new copy for each command.  Needs root;
# leaves the roots that it made for the next time (see test/roots.sh).
#
#	--short		few data in the demonstration; of the tests, the regression
#				tests only
#	--list		name the cases, and no more
#	CASE		only those of that name, or that begin with it and a colon
#
# A line tells of each case.  What has to hold: the command succeeds, uses the
# server that it should, and leaves nothing behind but packages.  The last line
# says how many passed and failed.

# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=test/roots.sh
. "$(dirname "${BASH_SOURCE[0]}")/roots.sh"
exec </dev/null

machines=(bare server headers given two upgraded)
users=(root someone)
commands=(run demo)
declare -A arguments=([run]='' [demo]='')
passed=0
failed=0
wanted=()
list_only=no

while [[ $# -gt 0 ]]; do
	case $1 in
	--short)
		arguments[run]='--only regress'
		arguments[demo]='--users 500 --facts 10000 --cycles 1'
		;;
	--list) list_only=yes ;;
	-h | --help)
		usage
		exit
		;;
	-*) die "unknown option $1, see --help" ;;
	*) wanted+=("$1") ;;
	esac
	shift
done

is_wanted() {
	local name
	if [[ ${#wanted[@]} -eq 0 ]]; then
		return
	fi
	for name in "${wanted[@]}"; do
		if [[ $1 = "$name" || $1 = "$name":* ]]; then
			return
		fi
	done
	return 1
}

# prepare MACHINE: sets "root", the major that the command must take, and what
# it is told in PG_CONFIG.
prepare() {
	pg_config=
	major=$here_major
	case $1 in
	bare) cached_root "$release" "$release" '' ;;
	server) cached_root "$release-server" "$release" postgresql ;;
	headers) cached_root "$release-headers" "$release" "postgresql-server-dev-$major" ;;
	given)
		cached_root "$release" "$release" ''
		pg_config=/usr/lib/postgresql/$major/bin/pg_config
		;;
	two)
		# Both are there, and the preferred one is the complete one.
		major=15
		cached_root two 'trixie bookworm' 'postgresql-15 postgresql-server-dev-15 postgresql-17'
		;;
	upgraded)
		# Both lack the headers, and there are none to be had for the older.
		major=17
		cached_root upgraded 'trixie bookworm' 'postgresql-15 postgresql-17' \
			--customize-hook="sed -i '/bookworm/d' \"\$1\"/etc/apt/sources.list"
		;;
	esac
}

# What a command may not change: the sources, temporary files, clusters, and
# files of the extension among those of the server.
look_around() {
	(
		cd "$copy"
		find root/datamart_users home/someone/datamart_users tmp var/tmp \
			-printf '%p %s %u\n'
		find etc/postgresql etc/postgresql-common/createcluster.d -mindepth 1 2>/dev/null || true
		find usr -name '*datamart_users*'
	) | sort
}

# judge LOG STATUS: why it is not as it should be, nothing if it is.
judge() {
	if [[ $2 -ne 0 ]]; then
		echo "exit status $2"
	elif ! grep -q "^   PostgreSQL $major\." "$1"; then
		echo "did not take PostgreSQL $major"
	elif ! diff "$copies/before" "$copies/after" >>"$1"; then
		echo 'left something behind'
	fi
}

# try CASE MACHINE USER COMMAND
try() {
	local log=$copies/log started status=0 why
	local -a chosen

	read -r -a chosen <<<"${arguments[$4]}"
	prepare "$2"
	copy_root
	look_around >"$copies/before"
	started=$SECONDS
	in_root "$3" env ${pg_config:+PG_CONFIG="$pg_config"} \
		bash "test/$4.sh" "${chosen[@]}" >"$log" 2>&1 || status=$?
	look_around >"$copies/after"
	why=$(judge "$log" "$status")
	if [[ -z $why ]]; then
		passed=$((passed + 1))
		printf 'ok      %-22s %4d s  %s\n' "$1" $((SECONDS - started)) \
			"$(sed -n 's/^   \(PostgreSQL [^ ]*\).*, .*/\1/p' "$log" | head -n 1)"
	else
		failed=$((failed + 1))
		tail -n 200 "$log"
		printf 'FAILED  %-22s %4d s  %s\n' "$1" $((SECONDS - started)) "$why"
	fi
}

release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
[[ -n $release ]] || die 'this is no released Debian'
if [[ $list_only = no ]]; then
	prepare_roots
	list_majors "$release"
	here_major=$(sort -n "$majors_list" | tail -n 1)
	say 'Cases'
fi
for machine in "${machines[@]}"; do
	for user in "${users[@]}"; do
		for command in "${commands[@]}"; do
			name=$machine:$user:$command
			if ! is_wanted "$name"; then
				continue
			elif [[ $list_only = yes ]]; then
				printf '%s\n' "$name"
			else
				try "$name" "$machine" "$user" "$command"
			fi
		done
	done
done
if [[ $list_only = yes ]]; then
	exit
fi

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
