#!/usr/bin/env bash
#
# psql_per_user.sh WORKERS USERS PROCEDURE
#
# The scheme that the extension replaces, without its logging: a query puts
# the modified datamart users in order, their ids go to a queue file, and
# parallel workers take one id after the other under flock and refresh it with
# a psql of its own.  Connects as the environment says.  Prints how many
# datamart users failed.

set -euo pipefail

workers=$1
users=$2
procedure=$3

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

psql -X -q -A -t -v ON_ERROR_STOP=1 -o "$directory/queue" -c "
	SELECT f.action_dimension_id_user
	FROM dwh.facts AS f
	JOIN dwh.dimension_users AS u ON u.dimension_user_id = f.action_dimension_id_user
	WHERE u.modified
	GROUP BY f.action_dimension_id_user
	ORDER BY CASE WHEN max(f.action_at) >= CURRENT_DATE - 7 THEN 1
				  WHEN max(f.action_at) >= CURRENT_DATE - 30 THEN 2
				  WHEN max(f.action_at) >= CURRENT_DATE - 90 THEN 3
				  ELSE 4 END,
			 CASE WHEN count(*) > 100 THEN 1
				  WHEN count(*) > 10 THEN 2
				  ELSE 3 END,
			 count(*) DESC,
			 max(f.action_at) DESC NULLS LAST
	LIMIT $users"

# The workers share one open file and so one position in it.
exec 3<"$directory/queue"

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
wc -l <"$directory/failed"
