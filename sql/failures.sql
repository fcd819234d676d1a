--
-- Datamart users whose last refresh failed.  Written by the processes of a
-- cycle in the name of the extension's owner.
--
CREATE TABLE @extschema@.datamart_users_failures (
	dimension_user_id bigint NOT NULL,
	attempts integer NOT NULL,
	first_failed_at timestamptz NOT NULL,
	last_failed_at timestamptz NOT NULL,
	next_attempt_at timestamptz NOT NULL,
	sqlstate text NOT NULL,
	message text NOT NULL,
	context text,
	cycle_id bigint NOT NULL,
	users_oid oid NOT NULL,
	users_table text NOT NULL,
	PRIMARY KEY (users_oid, dimension_user_id)
);
CREATE INDEX datamart_users_failures_users_table_idx ON @extschema@.datamart_users_failures (users_table, users_oid);

COMMENT ON TABLE @extschema@.datamart_users_failures IS 'Datamart users whose last refresh failed; the next successful one removes the row';
COMMENT ON COLUMN @extschema@.datamart_users_failures.attempts IS 'failed refreshes in a row';
COMMENT ON COLUMN @extschema@.datamart_users_failures.next_attempt_at IS 'no cycle takes the datamart user before this time (see datamart_users.retry_delay)';
COMMENT ON COLUMN @extschema@.datamart_users_failures.message IS 'error of the last failed refresh; it may quote rows of the warehouse (see datamart_users.failure_texts)';
COMMENT ON COLUMN @extschema@.datamart_users_failures.context IS 'what else the error says; it may quote rows of the warehouse';
COMMENT ON COLUMN @extschema@.datamart_users_failures.cycle_id IS 'cycle of the last failed refresh';
COMMENT ON COLUMN @extschema@.datamart_users_failures.users_oid IS 'users table of the datamart; only its own cycles look at the row';
COMMENT ON COLUMN @extschema@.datamart_users_failures.users_table IS 'its name, which stays when the table has gone';

--
-- Only a cycle that follows a crash writes here, before every refresh; see
-- dmu_suspects_note() in src/shared/suspects.h.
--
CREATE TABLE @extschema@.datamart_users_suspects (
	worker integer NOT NULL,
	dimension_user_id bigint NOT NULL,
	cycle_id bigint NOT NULL,
	users_oid oid NOT NULL,
	users_table text NOT NULL,
	PRIMARY KEY (users_oid, worker)
);

COMMENT ON TABLE @extschema@.datamart_users_suspects IS 'What the workers of a cycle that follows a crash are at: if the server crashes again, these are treated as failed';
COMMENT ON COLUMN @extschema@.datamart_users_suspects.users_oid IS 'users table of the datamart';
COMMENT ON COLUMN @extschema@.datamart_users_suspects.users_table IS 'its name';

--
-- What the failures of a running cycle have replaced.  If their error turns
-- out to hit everybody, they are taken back; see src/cycle/trouble.c.
--
CREATE TABLE @extschema@.datamart_users_failures_undo (
	users_oid oid NOT NULL,
	dimension_user_id bigint NOT NULL,
	cycle_id bigint NOT NULL,
	sqlstate text NOT NULL,
	previous @extschema@.datamart_users_failures,
	PRIMARY KEY (users_oid, dimension_user_id)
);

COMMENT ON TABLE @extschema@.datamart_users_failures_undo IS 'What the failures of a running cycle have replaced in datamart_users_failures; empty between cycles';
COMMENT ON COLUMN @extschema@.datamart_users_failures_undo.previous IS 'the row before; NULL = there was none';

--
-- Contention is no failure: nothing is wrong with the datamart user.  But one
-- whose procedure always collides must not take the place of others.
--
CREATE TABLE @extschema@.datamart_users_contention (
	dimension_user_id bigint NOT NULL,
	deferrals integer NOT NULL,
	first_deferred_at timestamptz NOT NULL,
	last_deferred_at timestamptz NOT NULL,
	next_attempt_at timestamptz NOT NULL,
	sqlstate text NOT NULL,
	message text NOT NULL,
	cycle_id bigint NOT NULL,
	users_oid oid NOT NULL,
	users_table text NOT NULL,
	PRIMARY KEY (users_oid, dimension_user_id)
);
CREATE INDEX datamart_users_contention_users_table_idx ON @extschema@.datamart_users_contention (users_table, users_oid);

COMMENT ON TABLE @extschema@.datamart_users_contention IS 'Datamart users whose refresh kept colliding inside the procedure; the next successful one removes the row';
COMMENT ON COLUMN @extschema@.datamart_users_contention.deferrals IS 'cycles in a row that deferred the datamart user';
COMMENT ON COLUMN @extschema@.datamart_users_contention.next_attempt_at IS 'no cycle takes the datamart user before this time';
COMMENT ON COLUMN @extschema@.datamart_users_contention.sqlstate IS 'of the last collision: 40001, 40P01 or 55P03';
COMMENT ON COLUMN @extschema@.datamart_users_contention.message IS 'error of the last collision; it may quote rows of the warehouse (see datamart_users.failure_texts)';
COMMENT ON COLUMN @extschema@.datamart_users_contention.users_oid IS 'users table of the datamart; only its own cycles look at the row';
COMMENT ON COLUMN @extschema@.datamart_users_contention.users_table IS 'its name, which stays when the table has gone';

--
-- What cycles have seen, for datamarts whose users table does not say since
-- when somebody is flagged; see src/shared/since.c.  No dump takes it along: who
-- waits is soon seen again.
--
CREATE TABLE @extschema@.datamart_users_seen (
	users_oid oid NOT NULL,
	dimension_user_id bigint NOT NULL,
	first_seen_at timestamptz NOT NULL,
	PRIMARY KEY (users_oid, dimension_user_id)
);

COMMENT ON TABLE @extschema@.datamart_users_seen IS 'Datamart users that wait, and which cycle saw them first; empty where users_since_column is set';
COMMENT ON COLUMN @extschema@.datamart_users_seen.users_oid IS 'users table of the datamart';
COMMENT ON COLUMN @extschema@.datamart_users_seen.first_seen_at IS 'when a cycle first found the datamart user flagged, since its last refresh';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_failures', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_contention', '');

CREATE FUNCTION @extschema@.datamart_users_retry(dimension_user_id bigint DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'datamart_users_retry'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_retry(bigint) IS 'lifts the back-off of one failed datamart user, or of all of this datamart; returns how many';
