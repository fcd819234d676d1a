#!/usr/bin/env bash
#
# queue_file.sh WORKERS QUEUE PROCEDURE
#
# The scheme that the extension replaces, without its logging: parallel
# workers take one id after the other from a queue file under flock, and
# refresh each with a psql of its own.  Connects as the environment says.
# Fails if any of them did.

set -euo pipefail

workers=$1
queue=$2
procedure=$3

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

# The workers share one open file and so one position in it.
exec 3<"$queue"

work() {
	local id
	# A lock needs an open file of each worker's own.
	exec 4>"$directory/lock"
	while flock 4 && read -r id <&3; do
		flock -u 4
		psql -X -q -v ON_ERROR_STOP=1 3<&- 4>&- >/dev/null 2>&1 -c "
			BEGIN;
			CALL $procedure($id);
			UPDATE dwh.dimension_users SET modified = FALSE WHERE dimension_user_id = $id;
			COMMIT" || echo "$id" >>"$directory/failed"
	done
}

touch "$directory/failed"
for ((i = 0; i < workers; i++)); do
	work &
done
wait
[[ ! -s $directory/failed ]]
