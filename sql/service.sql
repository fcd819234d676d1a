--
-- A service: a cycle that goes on.
--
CREATE FUNCTION @extschema@.datamart_users_start_service(
	max_workers integer DEFAULT NULL,
	poll interval DEFAULT '1 s')
RETURNS boolean
AS 'MODULE_PATHNAME', 'datamart_users_start_service'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_start_service(integer, interval) IS 'starts a service: looks every poll who is modified, and refreshes them; false if there is one';

CREATE FUNCTION @extschema@.datamart_users_stop_service(timeout interval DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'datamart_users_stop_service'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_stop_service(interval) IS 'ends the service when those at work are finished; false if there is none, or after the timeout';

CREATE FOREIGN TABLE @extschema@.datamart_users_service_source (
	pid integer,
	users_table text,
	role_name name,
	since timestamptz,
	poll interval,
	max_workers integer,
	workers integer,
	state text,
	cycle_id bigint,
	cycles bigint,
	looks bigint,
	last_look_at timestamptz,
	last_look_time interval)
SERVER datamart_users OPTIONS (source 'service');

COMMENT ON FOREIGN TABLE @extschema@.datamart_users_service_source IS 'see the view datamart_users_service';

CREATE VIEW @extschema@.datamart_users_service AS SELECT * FROM @extschema@.datamart_users_service_source;

COMMENT ON VIEW @extschema@.datamart_users_service IS 'The services of this database, one for each datamart at the most; empty when none runs';
COMMENT ON COLUMN @extschema@.datamart_users_service.pid IS 'its coordinator';
COMMENT ON COLUMN @extschema@.datamart_users_service.users_table IS 'the datamart: its users table, as it was named when the service was started';
COMMENT ON COLUMN @extschema@.datamart_users_service.poll IS 'the time between two looks';
COMMENT ON COLUMN @extschema@.datamart_users_service.workers IS 'that are there now, beside the coordinator';
COMMENT ON COLUMN @extschema@.datamart_users_service.state IS 'idle, working, or stopping';
COMMENT ON COLUMN @extschema@.datamart_users_service.cycle_id IS 'the cycle at which it is; NULL when it is idle';
COMMENT ON COLUMN @extschema@.datamart_users_service.cycles IS 'how many it has begun';
COMMENT ON COLUMN @extschema@.datamart_users_service.looks IS 'how often it has looked who is modified';
COMMENT ON COLUMN @extschema@.datamart_users_service.last_look_time IS 'what that took';
