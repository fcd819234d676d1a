--
-- The queue that a cycle would take now, and the query behind it.
--
CREATE FUNCTION @extschema@.datamart_users_queue(
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

COMMENT ON FUNCTION @extschema@.datamart_users_queue(integer) IS 'the datamart users that a cycle would take now, in order';

CREATE FUNCTION @extschema@.datamart_users_priority_query(max_users integer DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'datamart_users_priority_query'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION @extschema@.datamart_users_priority_query(integer) IS 'the prioritisation of a cycle as one statement, to read and to run';
