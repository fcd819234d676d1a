#!/usr/bin/env bash
#
# coverage.sh
#
# Which lines of the sources the tests reach: builds with --coverage, runs all
# tests, prints a table, and leaves pages to look at in coverage/.  Processes
# that are killed write nothing, so what only they run seems not to be reached.

# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null

prepare_machine perl libipc-run-perl '?postgresql-MAJOR-cron' lcov
prepare_workspace
build_extension COPT=--coverage with_llvm=no
make_options+=(COPT=--coverage with_llvm=no)
install_extension
start_server 'fsync = off'

say 'Tests'
make_extension installcheck >"$workspace/output" 2>&1 || note 'some failed'

say 'Coverage'
as_server_user lcov -q -c -d "$workspace/tree/src" -b "$workspace/tree" --no-external -o "$workspace/counts" 2>/dev/null
as_server_user lcov --list "$workspace/counts"
as_server_user genhtml -q -o "$workspace/pages" "$workspace/counts"
rm -rf "$repository/coverage"
cp -R "$workspace/pages" "$repository/coverage"
note 'in coverage/index.html'
