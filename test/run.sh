#!/usr/bin/env bash
#
# run.sh [--only regress|isolation|tap] [NAME...]
#
# Builds and installs the extension and runs its tests against a private
# server.  Works on a fresh Debian machine, as root or with sudo: packages
# that are missing are installed.  Leaves nothing else behind.
#
#	--only CLASS	only the tests of pg_regress, of the isolation tester,
#					or those in Perl
#	NAME			only the tests of that name: that of the file, without
#					directory and suffix
#
# PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config selects another major; a folder
# in DATAMART_USERS_LOGS gets the logs of all servers.
#
# A file is a test: test/sql/*.sql, test/isolation/specs/*.spec, test/t/*.pl.  The
# last line says how many passed and failed; the exit status is 0 if all
# passed, and there was one.

# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null

only=
names=()
passed=0
failed=0

while [[ $# -gt 0 ]]; do
	case $1 in
	--only)
		[[ ${2:-} =~ ^(regress|isolation|tap)$ ]] || die '--only needs regress, isolation or tap'
		only=$2
		shift
		;;
	-h | --help)
		usage
		exit
		;;
	-*) die "unknown option $1, see --help" ;;
	*) names+=("$1") ;;
	esac
	shift
done

# select_tests CLASS SUFFIX DIRECTORY: sets "tests" to the names of those
# asked for; false if there are none.
select_tests() {
	local file name
	tests=()
	if [[ -n $only && $only != "$1" ]]; then
		return 1
	fi
	for file in "$3"/*"$2"; do
		name=$(basename "$file" "$2")
		if [[ -e $file ]] && { [[ ${#names[@]} -eq 0 ]] || [[ " ${names[*]} " = *" $name "* ]]; }; then
			tests+=("$name")
		fi
	done
	[[ ${#tests[@]} -gt 0 ]]
}

# Runs one class of tests, and no other.
installcheck() {
	make_extension installcheck REGRESS= ISOLATION= TAP_TESTS= "$@" 2>&1
}

# keep_logs NAME: those of the servers that a test has started.
keep_logs() {
	local log
	for log in tmp_check/log/*.log; do
		if [[ -n ${DATAMART_USERS_LOGS:-} && -e $log ]]; then
			as_root cp "$log" "$DATAMART_USERS_LOGS/$1-${log##*/}"
		fi
	done
}

# run_compared TITLE VARIABLE DIFFS: "tests" in a run of pg_regress or of the
# isolation tester, which compare what a test prints with what it should.
run_compared() {
	local output=$workspace/output status=0 failures
	say "$1"
	installcheck "$2=${tests[*]}" | tee "$output" || status=$?
	failures=$(grep -cE '\.\.\. FAILED|^not ok' "$output" || true)
	if [[ $status -ne 0 && $failures -eq 0 ]]; then
		# It could not run them at all.
		failures=${#tests[@]}
		tail -n 50 "$workspace/server.log"
	fi
	if [[ -s $3 ]]; then
		cat "$3"
	fi
	failed=$((failed + failures))
	passed=$((passed + ${#tests[@]} - failures))
}

# run_tap: "tests", each by itself.
run_tap() {
	local name
	say 'Perl tests'
	for name in "${tests[@]}"; do
		if installcheck TAP_TESTS=1 PROVE_TESTS="test/t/$name.pl"; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			tail -n 50 "tmp_check/log/regress_log_$name" 2>/dev/null || true
		fi
		keep_logs "$name"
	done
}

prepare_machine perl libipc-run-perl '?postgresql-MAJOR-cron'
prepare_workspace
build_extension PROFILE='-Wall -Wextra -Werror'
install_extension
# Nothing here outlives a crash of the machine, so there is no need to sync.
start_server 'fsync = off'

if select_tests regress .sql test/sql; then
	run_compared 'Regression tests' REGRESS output_regress/regression.diffs
fi
if select_tests isolation .spec test/isolation/specs; then
	run_compared 'Isolation tests' ISOLATION output_iso/regression.diffs
fi
if select_tests tap .pl test/t; then
	borrow_program prometheus-postgres-exporter
	run_tap
fi

if [[ -n ${DATAMART_USERS_LOGS:-} ]]; then
	as_root cp "$workspace/server.log" "$DATAMART_USERS_LOGS"
fi

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
