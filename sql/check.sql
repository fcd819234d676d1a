--
-- The doctor.
--
CREATE FUNCTION @extschema@.datamart_users_check(
	role_name name DEFAULT NULL,
	OUT item text,
	OUT status text,
	OUT detail text,
	OUT hint text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'datamart_users_check'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 20;

COMMENT ON FUNCTION @extschema@.datamart_users_check(name) IS 'the doctor: what keeps cycles from running, or from running well, with statements to paste';
