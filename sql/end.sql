--
-- Whose it is, and who may do what.  Default privileges of the owner may have
-- given something to others when the objects were created, so this comes last
-- and says all.  Nothing is for PUBLIC: whoever may run cycles is granted
-- EXECUTE by name.
--
CREATE FUNCTION pg_temp.datamart_users_settle_owners() RETURNS void
AS 'MODULE_PATHNAME', 'datamart_users_settle_owners' LANGUAGE C;
SELECT pg_temp.datamart_users_settle_owners();
DROP FUNCTION pg_temp.datamart_users_settle_owners();

CREATE FUNCTION pg_temp.datamart_users_revoke_all() RETURNS void
AS 'MODULE_PATHNAME', 'datamart_users_revoke_all' LANGUAGE C;
SELECT pg_temp.datamart_users_revoke_all();
DROP FUNCTION pg_temp.datamart_users_revoke_all();

GRANT SELECT ON
	@extschema@.datamart_users_cycles,
	@extschema@.datamart_users_cycle_priorities,
	@extschema@.datamart_users_cycle_priority_rates,
	@extschema@.datamart_users_cycle_profiles,
	@extschema@.datamart_users_slowest,
	@extschema@.datamart_users_failures,
	@extschema@.datamart_users_contention,
	@extschema@.datamart_users_seen,
	@extschema@.datamart_users_attempts,
	@extschema@.datamart_users_attempt_states,
	@extschema@.datamart_users_parked,
	@extschema@.datamart_users_metrics,
	@extschema@.datamart_users_cycle_comparison,
	@extschema@.datamart_users_periods,
	@extschema@.datamart_users_drain,
	@extschema@.datamart_users_progress,
	@extschema@.datamart_users_workers,
	@extschema@.datamart_users_service,
	@extschema@.datamart_users_backlog
TO pg_monitor;

GRANT EXECUTE ON FUNCTION
	@extschema@.datamart_users_stale,
	@extschema@.datamart_users_check,
	@extschema@.datamart_users_report
TO pg_monitor;
