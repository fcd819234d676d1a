#!/usr/bin/env bash
#
# reference.sh
#
# Writes doc/reference.md from what the extension has in a database.

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null

prepare_machine
prepare_workspace
build_extension
install_extension
start_server 'fsync = off'

say 'Reference'
as_server_user createdb reference
sql reference -c 'CREATE EXTENSION datamart_users'
as_server_user psql -X -q -A -t -d reference -f test/reference.sql >"$workspace/reference.md"
cp "$workspace/reference.md" "$repository/doc/reference.md"
note 'in doc/reference.md'
