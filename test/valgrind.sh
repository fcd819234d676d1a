#!/usr/bin/env bash
#
# valgrind.sh [--assert] [--only regress|isolation|tap] [NAME...]
#
# Runs tests on a server that was built with assertions, under valgrind: of the
# memory that is read or written where it must not be, none may be by chance
# in order.  Slow; without arguments it takes a few tests that go through
# most of the code.  The server is built in some minutes, the first time.
#
#	--assert		without valgrind: assertions alone, and all tests by default
#	--only, NAME	as for test/run.sh
#
# A finding of valgrind is printed, and counts as one failed test.

# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=test/assert.sh
. "$(dirname "${BASH_SOURCE[0]}")/assert.sh"
exec </dev/null

use_valgrind=yes
chosen=()

while [[ $# -gt 0 ]]; do
	case $1 in
	--assert) use_valgrind=no ;;
	-h | --help)
		usage
		exit
		;;
	*) chosen+=("$1") ;;
	esac
	shift
done
if [[ $use_valgrind = yes && ${#chosen[@]} -eq 0 ]]; then
	chosen=(setup cycle errors try report views compare metrics 001_basic)
fi

prepare_machine perl libipc-run-perl bison flex valgrind libc6-dbg
prepare_assert_server

output=$(mktemp)
findings=$(mktemp -d)
if [[ $EUID -eq 0 ]]; then
	chown postgres: "$findings"
fi
trap 'rm -rf "$output" "$findings"; finish' EXIT
if [[ $use_valgrind = yes ]]; then
	export DATAMART_USERS_VALGRIND=$findings
fi
# Thirty times slower: what waits for something waits longer.
PG_CONFIG=$pg_config PG_TEST_TIMEOUT_DEFAULT=3600 PGCTLTIMEOUT=600 \
	bash "$repository/test/run.sh" "${chosen[@]}" >"$output" 2>&1 || true
grep -vE '^[0-9]+ passed, [0-9]+ failed$' "$output" || true
counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$output" | tail -n 1)
passed=${counts% *}
failed=${counts#* }

say 'Findings'
found=$(cat "$findings"/*.log 2>/dev/null | grep -c 'VALGRINDERROR-BEGIN' || true)
if [[ $found -gt 0 ]]; then
	sed -n '/VALGRINDERROR-BEGIN/,/VALGRINDERROR-END/p' "$findings"/*.log | head -n 400
fi
note "$found, in $(find "$findings" -name '*.log' | wc -l) processes"

printf '\n%s passed, %s failed\n' "${passed:-0}" $((${failed:-1} + found))
[[ ${passed:-0} -gt 0 && ${failed:-1} -eq 0 && $found -eq 0 ]]
