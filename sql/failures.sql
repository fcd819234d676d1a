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
COMMENT ON COLUMN @extschema@.datamart_users_failures.message IS 'its error; it may quote rows of the warehouse, see datamart_users.failure_texts';
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

COMMENT ON TABLE @extschema@.datamart_users_suspects IS 'What was at work in a cycle after a crash: treated as failed if the server crashes again';
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

COMMENT ON TABLE @extschema@.datamart_users_contention IS 'Datamart users whose refresh keeps colliding; the next successful one removes the row';
COMMENT ON COLUMN @extschema@.datamart_users_contention.deferrals IS 'cycles in a row that deferred the datamart user';
COMMENT ON COLUMN @extschema@.datamart_users_contention.next_attempt_at IS 'no cycle takes the datamart user before this time';
COMMENT ON COLUMN @extschema@.datamart_users_contention.sqlstate IS 'of the last collision: 40001, 40P01 or 55P03';
COMMENT ON COLUMN @extschema@.datamart_users_contention.message IS 'of the last collision; it may quote rows of the warehouse, see datamart_users.failure_texts';
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

--
-- How many facts were counted for a version of a datamart user's row; see
-- src/shared/counts.c.  After a crash transaction ids may come again, so a crash
-- has to empty it.  No dump takes it along.
--
CREATE UNLOGGED TABLE @extschema@.datamart_users_counts (
	users_oid oid NOT NULL,
	facts_oid oid NOT NULL,
	run bigint NOT NULL,
	as_of xid8 NOT NULL,
	fingerprint bytea NOT NULL,
	entries bytea NOT NULL
);
ALTER TABLE @extschema@.datamart_users_counts
	ALTER fingerprint SET STORAGE PLAIN,
	ALTER entries SET STORAGE PLAIN;

COMMENT ON TABLE @extschema@.datamart_users_counts IS 'Facts counted for datamart users that wait, so as to count them once; may be emptied at any time';
COMMENT ON COLUMN @extschema@.datamart_users_counts.users_oid IS 'users table of the datamart';
COMMENT ON COLUMN @extschema@.datamart_users_counts.facts_oid IS 'its facts';
COMMENT ON COLUMN @extschema@.datamart_users_counts.run IS 'rows that were written together';
COMMENT ON COLUMN @extschema@.datamart_users_counts.as_of IS 'next transaction id when the rows of the users table had these versions';
COMMENT ON COLUMN @extschema@.datamart_users_counts.fingerprint IS 'what the facts were stored in; counts of anything else are not used';
COMMENT ON COLUMN @extschema@.datamart_users_counts.entries IS 'some two hundred datamart users: id, version of the row, number of facts, last action';

--
-- The tables above forget a datamart user that has recovered; this one does
-- when the retention removes its rows.
--
CREATE TABLE @extschema@.datamart_users_attempts (
	attempted_at timestamptz NOT NULL,
	dimension_user_id bigint NOT NULL,
	outcome text NOT NULL CHECK (outcome IN ('failed', 'deferred')),
	sqlstate text,
	message text NOT NULL,
	charged boolean NOT NULL,
	cycle_id bigint NOT NULL,
	users_oid oid NOT NULL,
	users_table text NOT NULL
);
CREATE INDEX datamart_users_attempts_attempted_at_idx ON @extschema@.datamart_users_attempts (attempted_at);
CREATE INDEX datamart_users_attempts_cycle_id_idx ON @extschema@.datamart_users_attempts (cycle_id);

COMMENT ON TABLE @extschema@.datamart_users_attempts IS 'Refreshes that failed or were deferred, also of datamart users that have recovered since';
COMMENT ON COLUMN @extschema@.datamart_users_attempts.attempted_at IS 'when the attempt was over';
COMMENT ON COLUMN @extschema@.datamart_users_attempts.outcome IS 'failed or deferred, as the cycle has counted it';
COMMENT ON COLUMN @extschema@.datamart_users_attempts.sqlstate IS 'of its error; NULL = not known, the cycle had to stop before a second attempt';
COMMENT ON COLUMN @extschema@.datamart_users_attempts.message IS 'its error; it may quote rows of the warehouse, see datamart_users.failure_texts';
COMMENT ON COLUMN @extschema@.datamart_users_attempts.charged IS 'whether it got a back-off: not if others kept the flag, somebody canceled it, or all were hit';
COMMENT ON COLUMN @extschema@.datamart_users_attempts.users_oid IS 'users table of the datamart';
COMMENT ON COLUMN @extschema@.datamart_users_attempts.users_table IS 'its name, which stays when the table has gone';

--
-- Whoever is known to fail until somebody has mended its data.
--
CREATE TABLE @extschema@.datamart_users_parked (
	dimension_user_id bigint NOT NULL,
	reason text NOT NULL,
	parked_at timestamptz NOT NULL,
	parked_by name NOT NULL,
	users_oid oid NOT NULL,
	users_table text NOT NULL,
	PRIMARY KEY (users_oid, dimension_user_id)
);
CREATE INDEX datamart_users_parked_users_table_idx ON @extschema@.datamart_users_parked (users_table, users_oid);

COMMENT ON TABLE @extschema@.datamart_users_parked IS 'Datamart users that no cycle takes; see datamart_users_park() and datamart_users_retry()';
COMMENT ON COLUMN @extschema@.datamart_users_parked.reason IS 'what whoever parked it said';
COMMENT ON COLUMN @extschema@.datamart_users_parked.parked_at IS 'since when';
COMMENT ON COLUMN @extschema@.datamart_users_parked.parked_by IS 'role of the session that parked it, or gave another reason later';
COMMENT ON COLUMN @extschema@.datamart_users_parked.users_oid IS 'users table of the datamart; only its own cycles look at the row';
COMMENT ON COLUMN @extschema@.datamart_users_parked.users_table IS 'its name, which stays when the table has gone';

CREATE VIEW @extschema@.datamart_users_attempt_states AS
	SELECT a.attempted_at, a.dimension_user_id, a.outcome, a.sqlstate, a.message,
		   a.charged, a.cycle_id, a.users_oid, a.users_table,
		   CASE WHEN p.dimension_user_id IS NOT NULL THEN 'parked'
				WHEN greatest(f.next_attempt_at, c.next_attempt_at) > now() THEN 'held'
				WHEN f.dimension_user_id IS NOT NULL OR c.dimension_user_id IS NOT NULL THEN 'due'
				WHEN a.charged THEN 'recovered'
		   END AS state
	  FROM @extschema@.datamart_users_attempts a
	  LEFT JOIN @extschema@.datamart_users_failures f USING (users_oid, dimension_user_id)
	  LEFT JOIN @extschema@.datamart_users_contention c USING (users_oid, dimension_user_id)
	  LEFT JOIN @extschema@.datamart_users_parked p USING (users_oid, dimension_user_id);

COMMENT ON VIEW @extschema@.datamart_users_attempt_states IS 'datamart_users_attempts, with how each datamart user stands now';
COMMENT ON COLUMN @extschema@.datamart_users_attempt_states.state IS 'now: parked, held (by back-off), due, or recovered; NULL where no back-off was given';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_failures', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_contention', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_attempts', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_parked', '');

CREATE FUNCTION @extschema@.datamart_users_retry(dimension_user_id bigint DEFAULT NULL)
RETURNS integer
AS 'MODULE_PATHNAME', 'datamart_users_retry'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_retry(bigint) IS 'lifts the back-off of a datamart user and unparks it; NULL = of all not parked; returns how many';

CREATE FUNCTION @extschema@.datamart_users_park(dimension_user_id bigint, reason text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'datamart_users_park'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_park(bigint, text) IS 'takes a datamart user out of the queue until datamart_users_retry(); false if it was out already';
