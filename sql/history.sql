--
-- History.  Written by the coordinator of a cycle in the name of the
-- extension's owner, whoever the caller is; nobody else needs to write here.
--
CREATE TABLE @extschema@.datamart_users_cycles (
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
	message text,
	users_oid oid NOT NULL,
	users_table text NOT NULL,
	sqlstate text,
	counted_at timestamptz,
	session_role name,
	application_name text,
	caller_pid integer
);
CREATE INDEX datamart_users_cycles_started_at_idx ON @extschema@.datamart_users_cycles (started_at);
CREATE INDEX datamart_users_cycles_running_idx ON @extschema@.datamart_users_cycles (users_oid) WHERE status = 'running';
CREATE INDEX datamart_users_cycles_users_oid_idx ON @extschema@.datamart_users_cycles (users_oid, users_table);
CREATE INDEX datamart_users_cycles_users_table_idx ON @extschema@.datamart_users_cycles (users_table, users_oid);

COMMENT ON TABLE @extschema@.datamart_users_cycles IS 'History of cycles, one row each';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.status IS 'running, completed, time_limit, cancelled, failed, or aborted: a process died, or this is a copy';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.role_name IS 'role that the cycle ran as';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.max_users IS 'limit on the queue, after settings and catch-up';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.time_limit IS 'no datamart user was claimed after this time; NULL = none';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.backlog IS 'datamart users with modified when the cycle began, those held by back-off too';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.found IS 'datamart users in the queue of the cycle';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.processed IS 'datamart users refreshed and committed';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.failed IS 'datamart users whose refresh raised an error; they stay modified';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.skipped IS 'datamart users that were no longer modified when their turn came';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.deferred IS 'datamart users that kept colliding with other transactions; they stay modified';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.workers_requested IS 'workers asked for, the coordinator included';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.workers IS 'workers that ran, the coordinator included';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.prioritisation_time IS 'time from the start of the cycle''s queries until its queue was filled';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.message IS 'its error, or who canceled it, where there is something to say; see datamart_users.failure_texts';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.sqlstate IS 'of the error that ended the cycle';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.counted_at IS 'when the counts were written down, every few seconds while the cycle runs; NULL = never';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.session_role IS 'role that the caller of the cycle had logged in as';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.application_name IS 'application_name of the caller';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.caller_pid IS 'process of the caller, as in the server log';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.users_oid IS 'users table of the datamart; a cycle touches only what belongs to its own';
COMMENT ON COLUMN @extschema@.datamart_users_cycles.users_table IS 'its name, which stays when the table has gone';

CREATE TABLE @extschema@.datamart_users_cycle_priorities (
	cycle_id bigint NOT NULL REFERENCES @extschema@.datamart_users_cycles ON DELETE CASCADE,
	priority text NOT NULL
		CHECK (priority IN ('critical', 'high', 'medium', 'historical', 'low', 'lowest')),
	found integer NOT NULL,
	processed integer NOT NULL,
	failed integer NOT NULL,
	skipped integer NOT NULL,
	deferred integer NOT NULL,
	total_time interval NOT NULL,
	max_time interval NOT NULL,
	p50 interval,
	p95 interval,
	p99 interval,
	bucket_upto interval[] NOT NULL DEFAULT '{}',
	bucket_count bigint[] NOT NULL DEFAULT '{}',
	PRIMARY KEY (cycle_id, priority)
);

COMMENT ON TABLE @extschema@.datamart_users_cycle_priorities IS 'History of cycles: counts and times by priority';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_priorities.total_time IS 'time that workers spent on datamart users of this priority, added up';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_priorities.max_time IS 'time of the longest one';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_priorities.p50 IS 'time that half of the refreshes of this priority did not exceed; at most a quarter too high';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_priorities.bucket_upto IS 'histogram of their times: upper bounds of the buckets that are not empty';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_priorities.bucket_count IS 'histogram of their times: refreshes in each bucket';

CREATE VIEW @extschema@.datamart_users_cycle_priority_rates AS
	SELECT p.*,
		   c.users_table,
		   p.total_time / nullif(p.processed + p.failed + p.skipped + p.deferred, 0) AS avg_time,
		   round((p.processed * 60 / nullif(extract(epoch FROM
				CASE WHEN c.status <> 'aborted' THEN c.elapsed
					 ELSE c.counted_at - c.started_at END), 0))::numeric, 1) AS users_per_minute
	  FROM @extschema@.datamart_users_cycle_priorities p
	  JOIN @extschema@.datamart_users_cycles c USING (cycle_id);

COMMENT ON VIEW @extschema@.datamart_users_cycle_priority_rates IS 'datamart_users_cycle_priorities with the datamart, average times and datamart users per minute';

CREATE TABLE @extschema@.datamart_users_cycle_profiles (
	cycle_id bigint PRIMARY KEY REFERENCES @extschema@.datamart_users_cycles ON DELETE CASCADE,
	p50 interval,
	p95 interval,
	p99 interval,
	bucket_upto interval[] NOT NULL,
	bucket_count bigint[] NOT NULL,
	sample_width interval NOT NULL,
	samples integer[] NOT NULL,
	planned_alone bigint NOT NULL DEFAULT 0,
	idle_time interval,
	work_time interval,
	last_worker integer,
	last_user_id bigint,
	last_priority text,
	last_actions bigint,
	last_elapsed interval
);

COMMENT ON TABLE @extschema@.datamart_users_cycle_profiles IS 'History of cycles: how long refreshes took, the course of the cycle, and its end';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.p50 IS 'time that half of the refreshes did not exceed; at most a quarter too high';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.bucket_upto IS 'histogram of refresh times: upper bounds of the buckets that are not empty';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.bucket_count IS 'histogram of refresh times: refreshes in each bucket';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.sample_width IS 'time that one element of samples stands for';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.samples IS 'datamart users done, one element after the other from the filling of the queue on';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.planned_alone IS 'datamart users processed with plans of their own, see datamart_users.custom_plan_actions';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.idle_time IS 'time of all workers between the last refresh of each and that of all; NULL if it was stopped';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.work_time IS 'time of all workers from the filling of the queue until then';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.last_worker IS 'the worker that was the last to be done';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.last_user_id IS 'the datamart user that it was at';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.last_priority IS 'priority of that one';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.last_actions IS 'facts of that one, as counted for the queue';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_profiles.last_elapsed IS 'how long its refresh took';

CREATE TABLE @extschema@.datamart_users_slowest (
	cycle_id bigint NOT NULL REFERENCES @extschema@.datamart_users_cycles ON DELETE CASCADE,
	position integer NOT NULL,
	dimension_user_id bigint NOT NULL,
	priority text NOT NULL,
	outcome text NOT NULL,
	elapsed interval NOT NULL,
	users_table text NOT NULL,
	PRIMARY KEY (cycle_id, position)
);

COMMENT ON TABLE @extschema@.datamart_users_slowest IS 'History of cycles: the ten datamart users that took longest';
COMMENT ON COLUMN @extschema@.datamart_users_slowest.position IS '1 is the slowest';
COMMENT ON COLUMN @extschema@.datamart_users_slowest.users_table IS 'the datamart, as in datamart_users_cycles';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_cycles', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_cycles_cycle_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_cycle_priorities', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_cycle_profiles', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.datamart_users_slowest', '');
