#!/usr/bin/env bash
#
# queue_file.sh WORKERS QUEUE PROCEDURE
#
# The scheme that the extension replaces, without its logging: parallel
# workers take the first line of a queue file under flock, and refresh that
# datamart user with a psql of its own.  Connects as the environment says.
# Fails if any of them did.

set -euo pipefail

workers=$1
procedure=$3

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
queue=$directory/queue
cp "$2" "$queue"

# The first id, which leaves the queue; nothing if there is none.
next_user() {
	flock 4
	head -n 1 "$queue"
	tail -n +2 "$queue" >"$queue.rest"
	mv "$queue.rest" "$queue"
} 4>"$directory/lock"

work() {
	local id
	while id=$(next_user) && [[ -n $id ]]; do
		psql -X -q -v ON_ERROR_STOP=1 >/dev/null 2>&1 -c "
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
