#!/usr/bin/env bash
#
# package.sh [MAJOR...]
#
# Builds the Debian packages of debian/ and tries them: for each major (default:
# 15) in a root of the oldest Debian that has it (see test/roots.sh).  Needs
# root; leaves the roots that it made for the next time.
#
# What has to hold: an ordinary OS user can build them, lintian has nothing to
# say, they install, everything is in them that "make install" brings, the
# regression and isolation tests pass on a cluster of pg_virtualenv, and
# nothing of them is left when they are removed.  The last line says how many
# of these passed and failed.

# shellcheck disable=SC2016 # expanded in the root
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
	majors=(15)
fi

# step TITLE COMMAND...: shows all that it printed if it fails, and is false then.
step() {
	local title=$1 log=$copies/log
	shift
	if "$@" >"$log" 2>&1; then
		passed=$((passed + 1))
		printf 'ok      %s\n' "$title"
	else
		failed=$((failed + 1))
		cat "$log"
		printf 'FAILED  %s\n' "$title"
		return 1
	fi
}

# The sources as they are released, packed as Debian wants them.  They are
# those of the working tree, whether committed or not; what was built there
# would be none of the package's.
pack_sources() {
	local home=$copy/home/someone

	rm -rf "$home/datamart_users"
	mkdir "$home/datamart_users"
	if git -c safe.directory='*' -C "$repository" rev-parse --git-dir >/dev/null 2>&1; then
		git -c safe.directory='*' -C "$repository" ls-files -z --cached --others --exclude-standard |
			tar -C "$repository" --null --ignore-failed-read -T - -cf - | tar -C "$home/datamart_users" -xf -
	else
		tar -C "$repository" -cf - . | tar -C "$home/datamart_users" -xf -
	fi
	tar -C "$home" --exclude=datamart_users/debian -czf "$home/datamart-users_$version.orig.tar.gz" datamart_users
	chroot "$copy" chown -R someone: /home/someone
}

# What "make dist" packs: all that is needed to build, test and read it, and
# nothing of those who make it or of Debian.
check_release() {
	local list=$copies/release
	git -c safe.directory='*' -C "$repository" archive HEAD | tar -tf - >"$list" || return 1
	! grep -E '^(debian|[.](ci|git))' "$list" &&
		for file in META.json Makefile README.md LICENSE CHANGELOG.md datamart_users.control \
			sql/begin.sql src/shared/compat.h test/sql/setup.sql doc/architecture.md; do
			grep -qx "$file" "$list" || { echo "no $file"; return 1; }
		done
}

# As pg_buildext does before an upload, for the majors of this Debian.
build_packages() {
	in_root someone pg_buildext updatecontrol &&
		in_root someone dpkg-buildpackage -us -uc
}

# Hints are for the archive's own packages; whoever uploads there has a bug to
# close and an address.
run_lintian() {
	in_root someone sh -c 'lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs ../*.changes'
}

install_packages_built() {
	in_root root sh -c 'dpkg -i /home/someone/postgresql-*-datamart-users_*.deb'
}

# compare_files MAJOR: what the package has beside documentation, with what
# "make install" brings; bitcode is expected where the server can use it.
compare_files() {
	local pg_config=/usr/lib/postgresql/$1/bin/pg_config

	in_root someone sh -c "mkdir /tmp/plain && cp -a . /tmp/plain && cd /tmp/plain && make clean PG_CONFIG=$pg_config &&
		make -s PG_CONFIG=$pg_config && make -s install DESTDIR=/tmp/installed PG_CONFIG=$pg_config" &&
		(cd "$copy/tmp/installed" && find . -type f | sort) >"$copies/expected" &&
		in_root root dpkg -L "postgresql-$1-datamart-users" |
		while read -r file; do
			if [[ -f $copy$file && $file != /usr/share/doc/* ]]; then
				printf '.%s\n' "$file"
			fi
		done | sort >"$copies/found" &&
		diff "$copies/expected" "$copies/found" &&
		grep -q '\.so$' "$copies/found" &&
		grep -q '/bitcode/.*\.bc$' "$copies/found"
}

# pg_ctlcluster asks /proc whether a server runs.  It is mounted for this
# command only, so that none is left under a folder that goes.
run_tests() {
	export copy
	export -f in_root
	unshare --mount bash -c 'mount -t proc proc "$copy/proc" && in_root someone debian/tests/installcheck'
}

# The files of the extension among those of the server.
remains() {
	find "$copy/usr" "$copy/etc" "$copy/var/lib" \
		\( -name '*datamart_users*' -o -name '*datamart-users*' \) -not -path '*/var/lib/dpkg/*'
	in_root root dpkg -l '*datamart-users*' 2>/dev/null | grep '^[a-z]i' || true
}

remove_packages() {
	in_root root sh -c 'dpkg -P $(dpkg-query -W -f "\${Package} " "postgresql-*-datamart-users*")' &&
		[[ -z $(remains | tee /dev/stderr) ]]
}

# try MAJOR
try() {
	if ! find_suite "$1"; then
		printf 'skipped %s: no suite of %s has it (%s)\n' "$1" "$mirror" "${suites[*]}"
		return
	fi
	cached_root "package-$1" "$suite" \
		"postgresql-$1 postgresql-server-dev-all build-essential debhelper lintian"
	copy_root
	pack_sources
	step "$suite: the package builds" build_packages || return 0
	step "$suite: lintian" run_lintian || true
	step "$suite: postgresql-$1-datamart-users installs" install_packages_built || return 0
	step "$suite: all is in it" compare_files "$1" || true
	step "$suite: its tests pass" run_tests || true
	step "$suite: it is removed" remove_packages || true
}

version=$(sed -n '1s/.*(\(.*\)-[^-]*).*/\1/p' "$repository/debian/changelog")
prepare_roots
if git -c safe.directory='*' -C "$repository" rev-parse --git-dir >/dev/null 2>&1; then
	step 'the release' check_release || true
fi
for major in "${majors[@]}"; do
	try "$major"
done

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
