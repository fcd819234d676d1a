#!/usr/bin/env bash
#
# lint.sh
#
# Whether the sources are laid out as pgindent would (make check-format), and
# whether clang-tidy and shellcheck have nothing to say (make lint).  Installs
# both on a Debian machine.  The last line says how many of the two passed.

# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null

prepare_machine pg-bsd-indent clang-tidy shellcheck
prepare_workspace

passed=0
failed=0
for target in check-format lint; do
	say "make $target"
	if make_extension "$target"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 ]]
