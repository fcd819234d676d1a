--
-- The report: one cycle on one screen.
--
CREATE FUNCTION @extschema@.datamart_users_report(cycle_id bigint DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'datamart_users_report'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_report(bigint) IS 'one cycle on one screen, the latest by default; in ASCII where the encoding has no block characters';

REVOKE ALL ON FUNCTION
	@extschema@.datamart_users_report(bigint)
FROM PUBLIC;

-- It reads the history as its owner, so this is all that its caller needs.
GRANT EXECUTE ON FUNCTION @extschema@.datamart_users_report(bigint) TO pg_monitor;
