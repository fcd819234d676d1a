--
-- Cycles: run, start, wait, cancel.
--
CREATE FUNCTION @extschema@.datamart_users_run_cycle(
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

COMMENT ON FUNCTION @extschema@.datamart_users_run_cycle(integer, integer, interval) IS 'refreshes modified datamart users, the most relevant first, and waits for the end; NULL = the setting';

CREATE PROCEDURE @extschema@.datamart_users_run(
	max_users integer DEFAULT NULL,
	max_workers integer DEFAULT NULL,
	time_limit interval DEFAULT NULL)
AS 'MODULE_PATHNAME', 'datamart_users_run'
LANGUAGE C;

COMMENT ON PROCEDURE @extschema@.datamart_users_run(integer, integer, interval) IS 'runs a cycle as datamart_users_run_cycle(), for schedulers: holds no snapshot while it waits';

CREATE FUNCTION @extschema@.datamart_users_start_cycle(
	max_users integer DEFAULT NULL,
	max_workers integer DEFAULT NULL,
	time_limit interval DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'datamart_users_start_cycle'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_start_cycle(integer, integer, interval) IS 'starts a cycle that goes on by itself, and returns its id';

CREATE FUNCTION @extschema@.datamart_users_wait_cycle(
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

COMMENT ON FUNCTION @extschema@.datamart_users_wait_cycle(bigint, interval) IS 'waits for the end of a cycle; returns the row of datamart_users_run_cycle()';

CREATE FUNCTION @extschema@.datamart_users_cancel_cycle(cycle_id bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'datamart_users_cancel_cycle'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_cancel_cycle(bigint) IS 'stops a cycle, those at work roll back; NULL = that of the current settings; false if it does not run';
