--
-- Datamart users whose last refresh failed.  Written by the processes of a
-- cycle in the name of the extension's owner.
--
CREATE TABLE @extschema@.datamart_users_failures (
	dimension_user_id bigint PRIMARY KEY,
	attempts integer NOT NULL,
	first_failed_at timestamptz NOT NULL,
	last_failed_at timestamptz NOT NULL,
	next_attempt_at timestamptz NOT NULL,
	sqlstate text NOT NULL,
	message text NOT NULL,
	context text,
	cycle_id bigint NOT NULL
);

COMMENT ON TABLE @extschema@.datamart_users_failures IS 'Datamart users whose last refresh failed; the next successful one removes the row';
COMMENT ON COLUMN @extschema@.datamart_users_failures.attempts IS 'failed refreshes in a row';
COMMENT ON COLUMN @extschema@.datamart_users_failures.next_attempt_at IS 'no cycle takes the datamart user before this time (see datamart_users.retry_delay)';
COMMENT ON COLUMN @extschema@.datamart_users_failures.cycle_id IS 'cycle of the last failed refresh';

--
-- Only a cycle that follows a crash writes here, before every refresh; see
-- dmu_failures_note_suspect() in src/failures.h.
--
CREATE TABLE @extschema@.datamart_users_suspects (
	worker integer PRIMARY KEY,
	dimension_user_id bigint NOT NULL,
	cycle_id bigint NOT NULL
);

COMMENT ON TABLE @extschema@.datamart_users_suspects IS 'What the workers of a cycle that follows a crash are at: if the server crashes again, these are treated as failed';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_failures', '');

CREATE FUNCTION @extschema@.datamart_users_retry(dimension_user_id bigint DEFAULT NULL)
RETURNS integer
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	WITH lifted AS (
		UPDATE @extschema@.datamart_users_failures f
		   SET next_attempt_at = pg_catalog.now()
		 WHERE (f.dimension_user_id = $1 OR $1 IS NULL)
		   AND f.next_attempt_at > pg_catalog.now()
		RETURNING 1
	)
	SELECT pg_catalog.count(*)::integer FROM lifted;
END;

COMMENT ON FUNCTION @extschema@.datamart_users_retry(bigint) IS 'lifts the back-off of one failed datamart user, or of all; returns how many';

REVOKE ALL ON FUNCTION
	@extschema@.datamart_users_retry(bigint)
FROM PUBLIC;

GRANT SELECT ON @extschema@.datamart_users_failures TO pg_monitor;
