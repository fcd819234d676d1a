/* datamart_users--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION datamart_users" to load this file. \quit

--
-- History.  Written by the coordinator of a cycle in the name of the
-- extension's owner, whoever the caller is; nobody else needs to write here.
--
CREATE TABLE datamart_users_cycles (
	cycle_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	status text NOT NULL
		CHECK (status IN ('running', 'completed', 'time_limit', 'cancelled', 'failed', 'aborted')),
	role_name name NOT NULL,
	started_at timestamptz NOT NULL,
	finished_at timestamptz,
	elapsed interval GENERATED ALWAYS AS (finished_at - started_at) STORED,
	max_users integer,
	time_limit interval,
	backlog bigint,
	found integer,
	processed integer,
	failed integer,
	skipped integer,
	deferred integer,
	workers_requested integer,
	workers integer,
	prioritisation_time interval,
	message text
);
CREATE INDEX datamart_users_cycles_started_at_idx ON datamart_users_cycles (started_at);

COMMENT ON TABLE datamart_users_cycles IS 'History of datamart_users: one row a cycle';
COMMENT ON COLUMN datamart_users_cycles.status IS 'running, completed, time_limit, cancelled, failed, or aborted (its coordinator or the server died)';
COMMENT ON COLUMN datamart_users_cycles.role_name IS 'role that the cycle ran as';
COMMENT ON COLUMN datamart_users_cycles.max_users IS 'limit on the queue, after settings and catch-up';
COMMENT ON COLUMN datamart_users_cycles.time_limit IS 'no datamart user was claimed after this time; NULL = none';
COMMENT ON COLUMN datamart_users_cycles.backlog IS 'datamart users with modified when the cycle began, those held by back-off too';
COMMENT ON COLUMN datamart_users_cycles.found IS 'datamart users in the queue of the cycle';
COMMENT ON COLUMN datamart_users_cycles.processed IS 'datamart users refreshed and committed';
COMMENT ON COLUMN datamart_users_cycles.failed IS 'datamart users whose refresh raised an error; they stay modified';
COMMENT ON COLUMN datamart_users_cycles.skipped IS 'datamart users that were no longer modified when their turn came';
COMMENT ON COLUMN datamart_users_cycles.deferred IS 'datamart users that kept colliding with other transactions; they stay modified';
COMMENT ON COLUMN datamart_users_cycles.workers_requested IS 'workers asked for, the coordinator included';
COMMENT ON COLUMN datamart_users_cycles.workers IS 'workers that ran, the coordinator included';
COMMENT ON COLUMN datamart_users_cycles.prioritisation_time IS 'time from the start of the cycle''s queries until its queue was filled';
COMMENT ON COLUMN datamart_users_cycles.message IS 'why the cycle ended as it did, where there is something to say';

CREATE TABLE datamart_users_cycle_priorities (
	cycle_id bigint NOT NULL REFERENCES datamart_users_cycles ON DELETE CASCADE,
	priority text NOT NULL
		CHECK (priority IN ('critical', 'high', 'medium', 'historical', 'low', 'lowest')),
	found integer NOT NULL,
	processed integer NOT NULL,
	failed integer NOT NULL,
	skipped integer NOT NULL,
	deferred integer NOT NULL,
	total_time interval NOT NULL,
	max_time interval NOT NULL,
	PRIMARY KEY (cycle_id, priority)
);

COMMENT ON TABLE datamart_users_cycle_priorities IS 'History of datamart_users: counts and times of a cycle by priority';
COMMENT ON COLUMN datamart_users_cycle_priorities.total_time IS 'time that workers spent on datamart users of this priority, added up';
COMMENT ON COLUMN datamart_users_cycle_priorities.max_time IS 'time of the longest one';

CREATE VIEW datamart_users_cycle_priority_rates AS
	SELECT p.*,
		   p.total_time / nullif(p.processed + p.failed + p.skipped + p.deferred, 0) AS avg_time,
		   round((p.processed * 60 / nullif(extract(epoch FROM c.elapsed), 0))::numeric, 1) AS users_per_minute
	  FROM datamart_users_cycle_priorities p
	  JOIN datamart_users_cycles c USING (cycle_id);

COMMENT ON VIEW datamart_users_cycle_priority_rates IS 'datamart_users_cycle_priorities with the average time per datamart user and the datamart users processed per minute of the cycle';

CREATE TABLE datamart_users_cycle_profiles (
	cycle_id bigint PRIMARY KEY REFERENCES datamart_users_cycles ON DELETE CASCADE,
	p50 interval,
	p95 interval,
	p99 interval,
	bucket_upto interval[] NOT NULL,
	bucket_count bigint[] NOT NULL,
	sample_width interval NOT NULL,
	samples integer[] NOT NULL
);

COMMENT ON TABLE datamart_users_cycle_profiles IS 'History of datamart_users: how long refreshes took, and the course of a cycle';
COMMENT ON COLUMN datamart_users_cycle_profiles.p50 IS 'time that half of the refreshes did not exceed, to within an eighth';
COMMENT ON COLUMN datamart_users_cycle_profiles.bucket_upto IS 'histogram of refresh times: upper bounds of the buckets that are not empty';
COMMENT ON COLUMN datamart_users_cycle_profiles.bucket_count IS 'histogram of refresh times: refreshes in each bucket';
COMMENT ON COLUMN datamart_users_cycle_profiles.sample_width IS 'time that one element of samples stands for';
COMMENT ON COLUMN datamart_users_cycle_profiles.samples IS 'datamart users done, one element after the other from the filling of the queue on';

CREATE TABLE datamart_users_slowest (
	cycle_id bigint NOT NULL REFERENCES datamart_users_cycles ON DELETE CASCADE,
	position integer NOT NULL,
	dimension_user_id bigint NOT NULL,
	priority text NOT NULL,
	outcome text NOT NULL,
	elapsed interval NOT NULL,
	PRIMARY KEY (cycle_id, position)
);

COMMENT ON TABLE datamart_users_slowest IS 'History of datamart_users: the datamart users that took longest in a cycle';
COMMENT ON COLUMN datamart_users_slowest.position IS '1 is the slowest';

CREATE TABLE datamart_users_failures (
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

COMMENT ON TABLE datamart_users_failures IS 'Datamart users whose last refresh failed; the next successful one removes the row';
COMMENT ON COLUMN datamart_users_failures.attempts IS 'failed refreshes in a row';
COMMENT ON COLUMN datamart_users_failures.next_attempt_at IS 'no cycle takes the datamart user before this time (see datamart_users.retry_delay)';
COMMENT ON COLUMN datamart_users_failures.cycle_id IS 'cycle of the last failed refresh';

--
-- Only a cycle that follows a crash writes here, before every refresh; see
-- dmu_failures_note_suspect() in src/failures.h.
--
CREATE TABLE datamart_users_suspects (
	worker integer PRIMARY KEY,
	dimension_user_id bigint NOT NULL,
	cycle_id bigint NOT NULL
);

COMMENT ON TABLE datamart_users_suspects IS 'What the workers of a cycle that follows a crash are at: if the server crashes again, these are treated as failed';

SELECT pg_catalog.pg_extension_config_dump('datamart_users_cycles', '');
SELECT pg_catalog.pg_extension_config_dump('datamart_users_cycles_cycle_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('datamart_users_cycle_priorities', '');
SELECT pg_catalog.pg_extension_config_dump('datamart_users_cycle_profiles', '');
SELECT pg_catalog.pg_extension_config_dump('datamart_users_slowest', '');
SELECT pg_catalog.pg_extension_config_dump('datamart_users_failures', '');

--
-- Functions
--
CREATE FUNCTION datamart_users_run_cycle(
	max_users integer DEFAULT NULL,
	max_workers integer DEFAULT NULL,
	time_limit interval DEFAULT NULL,
	OUT cycle_id bigint,
	OUT status text,
	OUT backlog bigint,
	OUT found integer,
	OUT processed integer,
	OUT failed integer,
	OUT skipped integer,
	OUT deferred integer,
	OUT workers integer,
	OUT elapsed interval)
AS 'MODULE_PATHNAME', 'datamart_users_run_cycle'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION datamart_users_run_cycle(integer, integer, interval) IS 'refreshes modified datamart users, the most relevant first, and waits for the end; NULL = the setting';

CREATE FUNCTION datamart_users_start_cycle(
	max_users integer DEFAULT NULL,
	max_workers integer DEFAULT NULL,
	time_limit interval DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'datamart_users_start_cycle'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION datamart_users_start_cycle(integer, integer, interval) IS 'starts a cycle that goes on by itself, and returns its id';

CREATE FUNCTION datamart_users_wait_cycle(
	cycle_id bigint,
	timeout interval DEFAULT NULL,
	OUT cycle_id bigint,
	OUT status text,
	OUT backlog bigint,
	OUT found integer,
	OUT processed integer,
	OUT failed integer,
	OUT skipped integer,
	OUT deferred integer,
	OUT workers integer,
	OUT elapsed interval)
AS 'MODULE_PATHNAME', 'datamart_users_wait_cycle'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION datamart_users_wait_cycle(bigint, interval) IS 'waits for the end of a cycle; the row of datamart_users_run_cycle';

CREATE FUNCTION datamart_users_cancel_cycle()
RETURNS boolean
AS 'MODULE_PATHNAME', 'datamart_users_cancel_cycle'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION datamart_users_cancel_cycle() IS 'stops the running cycle of this database, datamart users at work roll back; false if none runs';

CREATE FUNCTION datamart_users_queue(
	max_users integer DEFAULT NULL,
	OUT queue_position integer,
	OUT dimension_user_id bigint,
	OUT priority text,
	OUT recency_class integer,
	OUT activity_class integer,
	OUT action_count bigint,
	OUT last_action_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'datamart_users_queue'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1000;

COMMENT ON FUNCTION datamart_users_queue(integer) IS 'the datamart users that a cycle would take now, in order';

CREATE FUNCTION datamart_users_priority_query(max_users integer DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'datamart_users_priority_query'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION datamart_users_priority_query(integer) IS 'the prioritisation query of a cycle, to EXPLAIN';

CREATE FUNCTION datamart_users_get_progress(
	OUT cycle_id bigint,
	OUT role_name name,
	OUT phase text,
	OUT started_at timestamptz,
	OUT elapsed interval,
	OUT backlog bigint,
	OUT found integer,
	OUT done integer,
	OUT processed integer,
	OUT failed integer,
	OUT skipped integer,
	OUT deferred integer,
	OUT workers integer,
	OUT percent numeric,
	OUT users_per_second numeric,
	OUT time_left interval)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'datamart_users_get_progress'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1;

COMMENT ON FUNCTION datamart_users_get_progress() IS 'see the view datamart_users_progress';

CREATE VIEW datamart_users_progress AS SELECT * FROM datamart_users_get_progress();

COMMENT ON VIEW datamart_users_progress IS 'the running cycle of this database; empty when none runs';
COMMENT ON COLUMN datamart_users_progress.phase IS 'prioritising, working, or stopping';
COMMENT ON COLUMN datamart_users_progress.users_per_second IS 'over the last ten seconds, or over all if nothing was done in them';

CREATE FUNCTION datamart_users_get_workers(
	OUT worker integer,
	OUT pid integer,
	OUT state text,
	OUT dimension_user_id bigint,
	OUT priority text,
	OUT since timestamptz,
	OUT processed bigint,
	OUT failed bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'datamart_users_get_workers'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 4;

COMMENT ON FUNCTION datamart_users_get_workers() IS 'see the view datamart_users_workers';

CREATE VIEW datamart_users_workers AS SELECT * FROM datamart_users_get_workers();

COMMENT ON VIEW datamart_users_workers IS 'the workers of the running cycle of this database';
COMMENT ON COLUMN datamart_users_workers.worker IS '1 is the coordinator';
COMMENT ON COLUMN datamart_users_workers.since IS 'when the worker took on what it does';

CREATE FUNCTION datamart_users_get_backlog(
	OUT priority text,
	OUT waiting bigint,
	OUT held bigint,
	OUT held_until timestamptz,
	OUT oldest_action_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'datamart_users_get_backlog'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 6;

COMMENT ON FUNCTION datamart_users_get_backlog() IS 'see the view datamart_users_backlog';

CREATE VIEW datamart_users_backlog AS
	SELECT priority,
		   waiting,
		   round(100.0 * waiting / nullif(sum(waiting) OVER (), 0), 1) AS share,
		   held,
		   held_until,
		   oldest_action_at
	  FROM datamart_users_get_backlog();

COMMENT ON VIEW datamart_users_backlog IS 'the modified datamart users by priority; needs SELECT on the tables of the warehouse';
COMMENT ON COLUMN datamart_users_backlog.waiting IS 'modified datamart users, those held by back-off too';
COMMENT ON COLUMN datamart_users_backlog.share IS 'percent of all that wait';
COMMENT ON COLUMN datamart_users_backlog.held IS 'how many of them no cycle takes yet, because their last refresh failed';
COMMENT ON COLUMN datamart_users_backlog.held_until IS 'when the first of those is taken again';
COMMENT ON COLUMN datamart_users_backlog.oldest_action_at IS 'of those that wait, the last action that is the longest ago';

CREATE FUNCTION datamart_users_retry(dimension_user_id bigint DEFAULT NULL)
RETURNS integer
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	WITH lifted AS (
		UPDATE datamart_users_failures f
		   SET next_attempt_at = pg_catalog.now()
		 WHERE (f.dimension_user_id = $1 OR $1 IS NULL)
		   AND f.next_attempt_at > pg_catalog.now()
		RETURNING 1
	)
	SELECT pg_catalog.count(*)::integer FROM lifted;
END;

COMMENT ON FUNCTION datamart_users_retry(bigint) IS 'lifts the back-off of one failed datamart user, or of all; returns how many';

--
-- Nothing for PUBLIC: whoever may run cycles is granted EXECUTE by name.
--
REVOKE ALL ON FUNCTION
	datamart_users_run_cycle(integer, integer, interval),
	datamart_users_start_cycle(integer, integer, interval),
	datamart_users_wait_cycle(bigint, interval),
	datamart_users_cancel_cycle(),
	datamart_users_queue(integer),
	datamart_users_priority_query(integer),
	datamart_users_get_progress(),
	datamart_users_get_workers(),
	datamart_users_get_backlog(),
	datamart_users_retry(bigint)
FROM PUBLIC;

GRANT SELECT ON
	datamart_users_cycles,
	datamart_users_cycle_priorities,
	datamart_users_cycle_priority_rates,
	datamart_users_cycle_profiles,
	datamart_users_slowest,
	datamart_users_failures,
	datamart_users_progress,
	datamart_users_workers,
	datamart_users_backlog
TO pg_monitor;

-- A view checks the rights on functions of whoever reads it.
GRANT EXECUTE ON FUNCTION
	datamart_users_get_progress(),
	datamart_users_get_workers(),
	datamart_users_get_backlog()
TO pg_monitor;
