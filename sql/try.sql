--
-- A rehearsal of one refresh.
--
CREATE FUNCTION @extschema@.datamart_users_try(
	dimension_user_id bigint DEFAULT NULL,
	OUT dimension_user_id bigint,
	OUT outcome text,
	OUT elapsed interval,
	OUT sqlstate text,
	OUT message text,
	OUT detail text,
	OUT hint text,
	OUT context text)
AS 'MODULE_PATHNAME', 'datamart_users_try'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_try(bigint) IS 'a rehearsal: refreshes one datamart user as a cycle does, and rolls back; NULL = the first of the queue';
