# shellcheck shell=bash disable=SC2016,SC2154
#
# assert.sh
#		A PostgreSQL that distributions do not ship: built from the source
#		package of the major that pg_config is of, with assertions, and with
#		memory contexts that valgrind understands.  It is kept in
#		$DATAMART_USERS_SERVERS, /var/cache/datamart_users_servers by default.
#
# A script sources this file after lib.sh, calls prepare_machine, and then
# prepare_assert_server, which sets pg_config to that server's.

servers=${DATAMART_USERS_SERVERS:-/var/cache/datamart_users_servers}
build=

# download_source PACKAGE DIRECTORY: what its source package consists of, from
# wherever this machine has its packages; the newest that is there, since not
# every mirror has the sources of all.
download_source() {
	local state=$2/apt file version
	local -a apt=(-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$state/sources"
		-o Dir::State::Lists="$state/lists" -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root)

	mkdir -p "$state"/{sources,lists/partial,cache/archives/partial}
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
		if [[ -s $file ]]; then
			sed 's/^Types:.*/Types: deb-src/; s/^deb /deb-src /' "$file" >"$state/sources/${file##*/}"
		fi
	done
	apt-get "${apt[@]}" update -qq || note 'not every source of packages is reached'
	apt-cache "${apt[@]}" showsrc --only-source "$1" | sed -n 's/^Version: //p' | sort -rV |
		while read -r version; do
			if (cd "$2" && apt-get "${apt[@]}" source -qq --download-only "$1=$version"); then
				break
			fi
		done
}

# build_server MAJOR PREFIX
build_server() {
	local started=$SECONDS log=$build/log

	note "building PostgreSQL $1 with assertions, for some ten minutes"
	if ! {
		download_source "postgresql-$1" "$build" &&
			tar -C "$build" -xf "$build"/postgresql-*.orig.tar.* &&
			cd "$build"/postgresql-*/ &&
			./configure --prefix="$2" --enable-cassert --enable-debug --enable-tap-tests \
				--without-readline --without-icu --without-zlib \
				CFLAGS='-O1 -g' CPPFLAGS='-DUSE_VALGRIND' &&
			make -s -j "$(nproc)" world-bin && make -s install-world-bin &&
			cp src/tools/valgrind.supp "$2"
	} >"$log" 2>&1; then
		tail -n 40 "$log"
		die "could not build PostgreSQL $1"
	fi
	cd "$repository" || return 1
	put_switch "$2/bin"
	note "built in $((SECONDS - started)) s"
}

# put_switch DIRECTORY: runs the server there by valgrind where
# $DATAMART_USERS_VALGRIND names a folder for what that finds; not initdb's,
# which would take as long as all tests.
put_switch() {
	mv "$1/postgres" "$1/postgres.real"
	cat >"$1/postgres" <<'SCRIPT'
#!/bin/sh
real=$(dirname "$0")/postgres.real
case $1 in
--boot | --single | --check | --describe-config | --version | -V | -C) exec "$real" "$@" ;;
esac
if [ -z "$DATAMART_USERS_VALGRIND" ]; then
	exec "$real" "$@"
fi
exec valgrind --quiet --trace-children=yes --num-callers=25 --leak-check=no \
	--error-markers=VALGRINDERROR-BEGIN,VALGRINDERROR-END --gen-suppressions=all \
	--suppressions="$(dirname "$0")/../valgrind.supp" \
	--log-file="$DATAMART_USERS_VALGRIND/%p.log" "$real" "$@"
SCRIPT
	chmod a+rx "$1/postgres"
}

prepare_assert_server() {
	local major prefix

	major=$("$pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
	prefix=$servers/$major-assert
	if [[ ! -x $prefix/bin/postgres ]]; then
		as_root mkdir -p "$servers"
		as_root chown "$(id -u)" "$servers"
		rm -rf "$prefix" "$prefix.new"
		build=$(mktemp -d "${TMPDIR:-/tmp}/datamart_users_server.XXXXXX")
		build_server "$major" "$prefix"
		rm -rf "$build"
	fi
	pg_config=$prefix/bin/pg_config
}
