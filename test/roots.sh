# shellcheck shell=bash disable=SC2016,SC2154
#
# roots.sh
#		What test/fresh.sh and test/matrix.sh share: folders with a whole Debian
#		of their own, made by mmdebstrap, for chroot.  Nothing is mounted in
#		them, so there is neither /proc nor /dev/fd.
#
# Roots are kept in $DATAMART_USERS_ROOTS, /var/cache/datamart_users_roots by
# default, and made again after a week; a script works in copies, which go when
# it ends.  A script sources this file after lib.sh and calls prepare_roots
# first.

cache=${DATAMART_USERS_ROOTS:-/var/cache/datamart_users_roots}
mirror=
copies=
suites=(bookworm trixie forky sid experimental)

# Needs root, because chroot does.
prepare_roots() {
	[[ $EUID -eq 0 ]] || die 'needs root, for mmdebstrap and chroot; try: sudo bash '"$0"
	say 'Roots'
	if ! command -v mmdebstrap >/dev/null; then
		install_packages mmdebstrap
	fi
	mkdir -p "$cache"
	trap finish_roots EXIT
	# Of scripts that were killed.
	find "$cache" -maxdepth 1 -name 'copies.*' -mtime +0 -exec rm -rf {} +
	copies=$(mktemp -d "$cache/copies.XXXXXX")
	chmod a+rx "$copies"
	find_mirror
	note "kept in $cache, from $mirror"
}

# Stops what still runs in a copy, and removes all copies.
finish_roots() {
	local status=$? process root
	trap - EXIT
	if [[ -n $copies ]]; then
		for process in /proc/[0-9]*; do
			root=$(readlink "$process/root" 2>/dev/null) || continue
			if [[ $root = "$copies"/* ]]; then
				kill -KILL "${process#/proc/}" 2>/dev/null || true
			fi
		done
		rm -rf "$copies" || rm -rf "$copies"
	fi
	turn_clusters_on
	exit "$status"
}

# Sets "mirror" to the one that this machine has its Debian from.
find_mirror() {
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(SUITE) $(CODENAME) $(RELEASE)' 'Created-By: Packages' |
		sed -n 's|^\([a-z]*://[^ ]*/debian/\{0,1\}\) .*|\1|p' | head -n 1)
	mirror=${mirror:-http://deb.debian.org/debian}
	mirror=${mirror%/}
}

# What this machine tells its apt about how to get at a mirror.
apt_options() {
	apt-config dump | grep -E '^Acquire::(http|https|Check-|Retries|ForceIPv|Max-Default-Age)' |
		grep -v '""' || true
}

# list_majors SUITE: sets "majors_list" to a file with the majors of PostgreSQL that a
# suite of the mirror has, one a line.
list_majors() {
	local state=$copies/lists
	local -a apt

	majors_list=$cache/$1.majors
	if [[ -e $majors_list && -z $(find "$majors_list" -mtime +6) ]]; then
		return
	fi
	mkdir -p "$state"/{lists,cache/archives}/partial
	echo "deb $mirror $1 main" >"$state/sources.list"
	apt=(-o Dir::State::Lists="$state/lists" -o Dir::Cache="$state/cache"
		-o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=-
		-o Dir::State::status=/dev/null -o APT::Sandbox::User=root
		-o Acquire::Check-Valid-Until=false -o APT::Update::Error-Mode=any)
	if ! apt-get "${apt[@]}" update -qq >"$copies/log" 2>&1; then
		cat "$copies/log"
		die "cannot reach the mirror $mirror, or it has no suite $1"
	fi
	apt-cache "${apt[@]}" pkgnames postgresql- |
		sed -n 's/^postgresql-\([0-9]*\)$/\1/p' >"$state/majors"
	mv "$state/majors" "$majors_list"
	rm -rf "$state"
}

# find_suite MAJOR: sets "suite" to the oldest one that has it; false if none has.
find_suite() {
	for suite in "${suites[@]}"; do
		list_majors "$suite"
		if grep -qx "$1" "$majors_list"; then
			return
		fi
	done
	return 1
}

# cached_root NAME SUITES PACKAGES [MMDEBSTRAP ARGUMENT...]: sets "root" to the
# root of that name, a Debian of the first suite that has the others among its
# sources, too.  It is made if there is none of this week that was made in the
# same way.
cached_root() {
	local name=$1 recipe started=$SECONDS suite unfinished
	local -a from all=()

	root=$cache/$name
	recipe="$mirror $(printf '%q ' "$@") $(apt_options | cksum) 1"
	if [[ -d $root && $recipe = "$(cat "$root.recipe" 2>/dev/null)" && -z $(find "$root.recipe" -mtime +6) ]]; then
		return
	fi
	read -r -a from <<<"$2"
	for suite in "${from[@]}"; do
		all+=("deb $mirror $suite main")
	done
	unfinished=$copies/$name
	rm -rf "$root" "$root.recipe"
	if ! mmdebstrap --variant=minbase --include="sudo${3:+,}${3// /,}" \
		--aptopt="$(apt_options)" --aptopt='Acquire::Check-Valid-Until "false"' \
		--dpkgopt=force-unsafe-io \
		--customize-hook='chroot "$1" useradd -m -s /bin/bash someone' \
		--customize-hook='echo "someone ALL=(ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/someone"' \
		"${@:4}" "${from[0]}" "$unfinished" "${all[@]}" >"$copies/log" 2>&1; then
		tail -n 30 "$copies/log"
		die "mmdebstrap could not make the root $name from ${all[*]}; is the mirror reached?"
	fi
	mv "$unfinished" "$root"
	printf '%s\n' "$recipe" >"$root.recipe"
	note "made $name in $((SECONDS - started)) s"
}

# copy_root: sets "copy" to a copy of "root" with the sources in the home of
# "someone", and in that of root.
copy_root() {
	copy=$copies/root
	rm -rf "$copy"
	cp -a --reflink=auto "$root" "$copy"
	cp -L /etc/resolv.conf "$copy/etc/resolv.conf" 2>/dev/null || true
	# What sudo looks for.
	printf '127.0.0.1 localhost %s\n' "$(hostname)" >"$copy/etc/hosts"
	# A chroot shares the host's network: none of its services may start.
	printf '#!/bin/sh\nexit 101\n' >"$copy/usr/sbin/policy-rc.d"
	chmod a+rx "$copy/usr/sbin/policy-rc.d"
	mkdir "$copy/root/datamart_users" "$copy/home/someone/datamart_users"
	tar -C "$repository" --exclude=./.git -cf - . |
		tar -C "$copy/root/datamart_users" --no-same-owner -xf -
	cp -a "$copy/root/datamart_users/." "$copy/home/someone/datamart_users"
	chroot "$copy" chown -R someone: /home/someone/datamart_users
}

# in_root USER COMMAND...: in the folder of the sources in "copy".
in_root() {
	local user=$1 home=/home/$1
	shift
	if [[ $user = root ]]; then
		home=/root
	fi
	chroot --userspec="$user:$user" --groups="$user" "$copy" \
		/usr/bin/env -i HOME="$home" USER="$user" LOGNAME="$user" TERM=dumb LANG=C.UTF-8 \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		sh -c 'cd "$HOME/datamart_users" && exec "$@"' sh "$@" </dev/null
}

# counts_of FILE: the last "N passed, N failed" of a test script, as two
# numbers; nothing if it did not get that far.
counts_of() { sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$1" | tail -n 1; }
