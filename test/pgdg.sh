#!/usr/bin/env bash
#
# pgdg.sh MAJOR
#
# Has this Debian or Ubuntu machine take its packages of PostgreSQL from
# apt.postgresql.org, and installs that major with what building and testing
# need.  For machines that are used once; nothing is undone.

# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null

if [[ $# -ne 1 || $1 = -h || $1 = --help ]]; then
	usage
	exit
fi
major=$(positive_number 'a major' "$1")

say 'Sources'
install_packages postgresql-common ca-certificates
as_root /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y
lists_updated=no
say 'Packages'
complete_major "$major" || die "apt.postgresql.org has no packages to complete PostgreSQL $major with"
note "$("$(debian_pg_config "$major")" --version)"
