#!/usr/bin/env bash
#
# ubsan.sh [--only regress|isolation|tap] [NAME...]
#
# Runs tests with an extension that was built with -fsanitize=undefined: what C
# leaves undefined is told when it is done.  The arguments are those of
# test/run.sh; all tests by default.
#
# A finding is printed, and counts as one failed test.

# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null

if [[ ${1:-} = -h || ${1:-} = --help ]]; then
	usage
	exit
fi

prepare_machine perl libipc-run-perl
output=$(mktemp)
logs=$(mktemp -d)
trap 'rm -rf "$output" "$logs"; finish' EXIT

COPT='-fsanitize=undefined -fno-omit-frame-pointer -g' \
	UBSAN_OPTIONS=print_stacktrace=1 DATAMART_USERS_LOGS=$logs PG_CONFIG=$pg_config \
	bash "$repository/test/run.sh" "$@" >"$output" 2>&1 || true
grep -vE '^[0-9]+ passed, [0-9]+ failed$' "$output" || true
counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$output" | tail -n 1)
passed=${counts% *}
failed=${counts#* }

say 'Findings'
# Each once: many processes find the same.
{ grep -rhoE 'src/.*: runtime error: .*' "$logs" || true; } | sort -u | tee "$output"
found=$(wc -l <"$output")
note "$found, in $(find "$logs" -type f | wc -l) logs"

printf '\n%s passed, %s failed\n' "${passed:-0}" $((${failed:-1} + found))
[[ ${passed:-0} -gt 0 && ${failed:-1} -eq 0 && $found -eq 0 ]]
