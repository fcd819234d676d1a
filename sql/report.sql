--
-- The report: one cycle on one screen.
--
CREATE FUNCTION @extschema@.datamart_users_report(cycle_id bigint DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'datamart_users_report'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_report(bigint) IS 'one cycle on one screen of text; NULL = the latest of the datamart of the current settings';
