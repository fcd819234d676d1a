#!/usr/bin/env bash
#
# matrix.sh [MAJOR...]
#
# Builds with -Werror and runs the whole suite on other majors of PostgreSQL
# (default: 15 17 18): each in a root of the oldest Debian that has it, as an
# ordinary OS user.  Needs root; leaves the roots that it made for the next
# time (see test/roots.sh).
#
# A line tells of each major, after all output of one where something failed; a major that
# no suite of Debian has is skipped.  The last line sums the tests of all.

# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=test/roots.sh
. "$(dirname "${BASH_SOURCE[0]}")/roots.sh"
exec </dev/null

majors=()
passed=0
failed=0

while [[ $# -gt 0 ]]; do
	case $1 in
	-h | --help)
		usage
		exit
		;;
	*) majors+=("$(positive_number "a major, not $1," "$1")") ;;
	esac
	shift
done
if [[ ${#majors[@]} -eq 0 ]]; then
	majors=(15 17 18)
fi

# make_root MAJOR: sets "root", with all that its tests take.
make_root() {
	local packages="postgresql-$1 postgresql-server-dev-$1 build-essential perl libipc-run-perl"
	if [[ $suite = experimental ]]; then
		# It is no whole Debian, and nothing is taken from it without a word.
		cached_root "postgresql-$1" 'sid experimental' "$packages prometheus-postgres-exporter" \
			--setup-hook="mkdir -p \"\$1/etc/apt/preferences.d\"" \
			--setup-hook="printf 'Package: src:postgresql-$1\nPin: release a=experimental\nPin-Priority: 990\n' >\"\$1/etc/apt/preferences.d/postgresql\""
	else
		cached_root "postgresql-$1" "$suite" "$packages postgresql-$1-cron prometheus-postgres-exporter"
	fi
}

# try MAJOR
try() {
	local log=$copies/log started counts verdict='did not get to the tests' good=0 bad=1

	if ! find_suite "$1"; then
		printf 'skipped  %s: no suite of %s has it (%s)\n' "$1" "$mirror" "${suites[*]}"
		return
	fi
	make_root "$1"
	copy_root
	started=$SECONDS
	in_root someone bash test/run.sh >"$log" 2>&1 || true
	counts=$(counts_of "$log")
	if [[ -n $counts ]]; then
		good=${counts% *}
		bad=${counts#* }
		verdict="$good passed, $bad failed"
	fi
	passed=$((passed + good))
	failed=$((failed + bad))
	if [[ $bad -ne 0 ]]; then
		cat "$log"
	fi
	printf '%-8s %s, %s: %s, %d s\n' "$([[ $bad -eq 0 ]] && echo ok || echo FAILED)" \
		"$(sed -n 's/^   \(PostgreSQL [^ ]*\).*/\1/p' "$log" | head -n 1)" "$suite" \
		"$verdict" $((SECONDS - started))
}

prepare_roots
for major in "${majors[@]}"; do
	try "$major"
done

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
