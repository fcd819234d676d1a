--
-- What goes on now: the running cycles, their workers, and what waits.
--
-- Views over foreign tables, and not over functions: a function behind a view
-- would have to be granted, too, to whoever is to read the view.
--
CREATE FUNCTION @extschema@.datamart_users_source_handler() RETURNS fdw_handler
AS 'MODULE_PATHNAME', 'datamart_users_source_handler'
LANGUAGE C STRICT;

COMMENT ON FUNCTION @extschema@.datamart_users_source_handler() IS 'handler of the foreign-data wrapper datamart_users, which is behind views';

CREATE FOREIGN DATA WRAPPER datamart_users HANDLER @extschema@.datamart_users_source_handler;
COMMENT ON FOREIGN DATA WRAPPER datamart_users IS 'rows for views of the extension datamart_users, which C code makes';
CREATE SERVER datamart_users FOREIGN DATA WRAPPER datamart_users;
COMMENT ON SERVER datamart_users IS 'this database: what is behind views of the extension datamart_users';

CREATE FOREIGN TABLE @extschema@.datamart_users_progress_source (
	cycle_id bigint,
	users_table text,
	role_name name,
	phase text,
	started_at timestamptz,
	elapsed interval,
	backlog bigint,
	found integer,
	done integer,
	processed integer,
	failed integer,
	skipped integer,
	deferred integer,
	workers integer,
	percent numeric,
	users_per_second numeric,
	time_left interval)
SERVER datamart_users OPTIONS (source 'progress');

COMMENT ON FOREIGN TABLE @extschema@.datamart_users_progress_source IS 'see the view datamart_users_progress';

CREATE VIEW @extschema@.datamart_users_progress AS SELECT * FROM @extschema@.datamart_users_progress_source;

COMMENT ON VIEW @extschema@.datamart_users_progress IS 'The running cycles of this database, one for each datamart; empty when none runs';
COMMENT ON COLUMN @extschema@.datamart_users_progress.users_table IS 'the datamart: its users table, as it was named when the cycle began';
COMMENT ON COLUMN @extschema@.datamart_users_progress.role_name IS 'role that the cycle runs as';
COMMENT ON COLUMN @extschema@.datamart_users_progress.backlog IS 'modified datamart users when the cycle began';
COMMENT ON COLUMN @extschema@.datamart_users_progress.found IS 'datamart users in its queue';
COMMENT ON COLUMN @extschema@.datamart_users_progress.done IS 'how many of those have an outcome: the sum of the next four';
COMMENT ON COLUMN @extschema@.datamart_users_progress.workers IS 'that it has started, the coordinator among them';
COMMENT ON COLUMN @extschema@.datamart_users_progress.percent IS 'done of found';
COMMENT ON COLUMN @extschema@.datamart_users_progress.time_left IS 'estimated';
COMMENT ON COLUMN @extschema@.datamart_users_progress.phase IS 'prioritising, working, or stopping';
COMMENT ON COLUMN @extschema@.datamart_users_progress.users_per_second IS 'over the last ten seconds, or over all if nothing was done in them';

CREATE FOREIGN TABLE @extschema@.datamart_users_workers_source (
	cycle_id bigint,
	users_table text,
	worker integer,
	pid integer,
	state text,
	dimension_user_id bigint,
	priority text,
	since timestamptz,
	processed bigint,
	failed bigint)
SERVER datamart_users OPTIONS (source 'workers');

COMMENT ON FOREIGN TABLE @extschema@.datamart_users_workers_source IS 'see the view datamart_users_workers';

-- What a process waits for, and what another one does, pg_stat_get_activity()
-- tells with the rights of whoever reads the view.  For whom it waits everybody
-- may know; only where it may wait for a lock is the lock table looked at.
-- There is no process 0, and NULL would stand for all of them.
CREATE VIEW @extschema@.datamart_users_workers AS
	SELECT w.*,
		   a.wait_event_type,
		   a.wait_event,
		   blocking.pids AS blocking_pids,
		   pg_get_userbyid(b.usesysid) AS blocking_role,
		   CASE blocking.pids[1] WHEN 0 THEN 'prepared transaction' ELSE b.state END AS blocking_state,
		   b.xact_start AS blocking_since,
		   b.query AS blocking_query
	  FROM @extschema@.datamart_users_workers_source AS w
	  LEFT JOIN LATERAL pg_stat_get_activity(w.pid) AS a ON true
	  LEFT JOIN LATERAL (
		SELECT nullif(pg_blocking_pids(w.pid), '{}') AS pids
		 WHERE a.wait_event_type = 'Lock' OR a.backend_type IS NULL) AS blocking ON true
	  LEFT JOIN LATERAL pg_stat_get_activity(coalesce(blocking.pids[1], 0)) AS b ON true;

COMMENT ON VIEW @extschema@.datamart_users_workers IS 'The workers of the running cycles of this database';
COMMENT ON COLUMN @extschema@.datamart_users_workers.users_table IS 'the datamart: its users table, as it was named when the cycle began';
COMMENT ON COLUMN @extschema@.datamart_users_workers.worker IS '1 is the coordinator';
COMMENT ON COLUMN @extschema@.datamart_users_workers.state IS 'starting, idle, refreshing, recording a failure, or done; of worker 1 also the phase of the cycle';
COMMENT ON COLUMN @extschema@.datamart_users_workers.dimension_user_id IS 'whom it refreshes';
COMMENT ON COLUMN @extschema@.datamart_users_workers.processed IS 'datamart users that it has refreshed in this cycle';
COMMENT ON COLUMN @extschema@.datamart_users_workers.since IS 'when the worker took on what it does';
COMMENT ON COLUMN @extschema@.datamart_users_workers.wait_event_type IS 'what it waits for, as in pg_stat_activity, and for whom that shows it';
COMMENT ON COLUMN @extschema@.datamart_users_workers.wait_event IS 'the same in detail';
COMMENT ON COLUMN @extschema@.datamart_users_workers.blocking_pids IS 'the processes for whose locks it waits, as of pg_blocking_pids(); 0 is a prepared transaction';
COMMENT ON COLUMN @extschema@.datamart_users_workers.blocking_role IS 'role of the first of those';
COMMENT ON COLUMN @extschema@.datamart_users_workers.blocking_state IS 'what it is at, for whom pg_stat_activity shows it';
COMMENT ON COLUMN @extschema@.datamart_users_workers.blocking_since IS 'when its transaction began, likewise';
COMMENT ON COLUMN @extschema@.datamart_users_workers.blocking_query IS 'its latest statement, likewise';

CREATE FOREIGN TABLE @extschema@.datamart_users_backlog_source (
	users_table text,
	priority text,
	waiting bigint,
	held bigint,
	held_until timestamptz,
	oldest_action_at timestamptz,
	parked bigint,
	oldest_age interval,
	p50_age interval,
	p95_age interval,
	objective interval,
	overdue bigint)
SERVER datamart_users OPTIONS (source 'backlog');

COMMENT ON FOREIGN TABLE @extschema@.datamart_users_backlog_source IS 'see the view datamart_users_backlog';

CREATE VIEW @extschema@.datamart_users_backlog AS
	SELECT users_table,
		   priority,
		   waiting,
		   round(100.0 * waiting / nullif(sum(waiting) OVER (), 0), 1) AS share,
		   held,
		   held_until,
		   oldest_action_at,
		   parked,
		   oldest_age,
		   p50_age,
		   p95_age,
		   objective,
		   overdue
	  FROM @extschema@.datamart_users_backlog_source;

COMMENT ON VIEW @extschema@.datamart_users_backlog IS 'How many datamart users wait, by priority, in the datamart of the current settings';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.users_table IS 'the datamart: its users table';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.waiting IS 'modified datamart users, those held by back-off too, but not those parked';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.share IS 'percent of all that wait';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.held IS 'how many of them no cycle takes yet, because their last refresh failed';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.held_until IS 'when the first of those is taken again';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.oldest_action_at IS 'of those that wait, the last action that is the longest ago';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.parked IS 'modified datamart users that somebody has parked, and that do not count as waiting';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.oldest_age IS 'how long the oldest that a cycle could take has been flagged, as far as cycles have seen';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.p50_age IS 'the same, half of them for no longer';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.p95_age IS 'the same, 95 % of them for no longer';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.objective IS 'how long they may wait by datamart_users.freshness_objective; NULL = it does not say';
COMMENT ON COLUMN @extschema@.datamart_users_backlog.overdue IS 'how many a cycle could take that have waited for longer than that; NULL = there is no objective';

CREATE FUNCTION @extschema@.datamart_users_stale(
	"limit" integer DEFAULT 100,
	OUT dimension_user_id bigint,
	OUT priority text,
	OUT since timestamptz,
	OUT age interval,
	OUT waits_for text,
	OUT held_until timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'datamart_users_stale'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION @extschema@.datamart_users_stale(integer) IS 'the datamart users that have been modified the longest, since when, and what they wait for; NULL = all';
