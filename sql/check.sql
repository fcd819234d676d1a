--
-- The doctor.  datamart_users_check() takes from its caller only what defaults
-- of arguments can carry, role and schemas.  All the rest runs as the owner
-- with a fixed search_path, reads catalogs and the history, and executes
-- nothing that belongs to anybody else.
--

-- A relation by a name as settings have it; NULL if there is none.
CREATE FUNCTION @extschema@.datamart_users_check_find_relation(name text, schemas name[])
RETURNS regclass
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT pg_catalog.to_regclass(candidate.name)
	  FROM (SELECT pg_catalog.regexp_replace($1, '"([^"]|"")*"', '', 'g') LIKE '%.%' AS qualified) AS form
	 CROSS JOIN LATERAL (
			SELECT $1 AS name, 0::bigint AS position WHERE form.qualified
			UNION ALL
			SELECT pg_catalog.concat(pg_catalog.quote_ident(s.name), '.', $1), s.position
			  FROM pg_catalog.unnest($2) WITH ORDINALITY AS s (name, position)
			 WHERE NOT form.qualified) AS candidate
	 WHERE pg_catalog.to_regclass(candidate.name) IS NOT NULL
	 ORDER BY candidate.position
	 LIMIT 1;
END;

COMMENT ON FUNCTION @extschema@.datamart_users_check_find_relation(text, name[]) IS 'part of datamart_users_check()';

-- The procedure that a worker would call; if it is NULL, why.
CREATE FUNCTION @extschema@.datamart_users_check_find_procedure(
	name text,
	schemas name[],
	key_type regtype,
	OUT procedure regprocedure,
	OUT problem text)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	path text[];
	arguments text := substring(name FROM '^(?:[^("]|"(?:[^"]|"")*")*\((.*)\)\s*$');
	argument oid;
	candidates oid[];
	best oid[];
	functions integer;
BEGIN
	BEGIN
		path := parse_ident(substring(name FROM '^(?:[^("]|"(?:[^"]|"")*")*'));
		argument := to_regtype(split_part(arguments, ',', 1));
	EXCEPTION WHEN invalid_parameter_value OR syntax_error THEN
		problem := format('procedure %s cannot be looked up: %s', name, SQLERRM);
		RETURN;
	END;

	SELECT array_agg(p.oid), count(*) FILTER (WHERE p.prokind <> 'p')
	  INTO candidates, functions
	  FROM pg_proc p
	  JOIN pg_namespace n ON n.oid = p.pronamespace
	 WHERE p.proname = path[cardinality(path)]
	   AND CASE WHEN cardinality(path) > 1 THEN n.nspname = path[1]
				ELSE n.nspname = ANY (schemas) END;
	IF candidates IS NULL THEN
		problem := format('procedure %s does not exist', name);
		RETURN;
	ELSIF functions = cardinality(candidates) THEN
		problem := format('%s is a function, not a procedure', name);
		RETURN;
	END IF;

	SELECT array_agg(c.oid ORDER BY c.oid)
	  INTO best
	  FROM (SELECT p.oid,
				   rank() OVER (ORDER BY p.proargtypes[0] = key_type::oid DESC,
								CASE WHEN cardinality(path) > 1 THEN 0
									 ELSE array_position(schemas, n.nspname) END) AS rank
			  FROM pg_proc p
			  JOIN pg_namespace n ON n.oid = p.pronamespace
			 WHERE p.oid = ANY (candidates)
			   AND p.prokind = 'p'
			   AND p.proargtypes[0] IN ('integer'::regtype, 'bigint'::regtype)
			   AND p.pronargdefaults >= p.pronargs - 1
			   AND p.proargmodes IS NULL
			   AND (arguments IS NULL OR p.proargtypes[0] = argument)) AS c
	 WHERE c.rank = 1;
	-- One of the key's own type goes first, then the order of the schemas.
	IF best IS NULL THEN
		problem := format('no procedure %s can be called with a dimension_user_id', name);
	ELSIF cardinality(best) > 1 THEN
		problem := format('procedure %s is not unique: %s could be meant', name,
						  array_to_string(best::regprocedure[], ', '));
	ELSE
		procedure := best[1];
	END IF;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_check_find_procedure(text, name[], regtype) IS 'part of datamart_users_check()';

-- What a statement to paste calls an index that is yet to be made.
CREATE FUNCTION @extschema@.datamart_users_check_new_index_name(relation regclass, suffix text)
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schema oid;
	base text;
	candidate text;
	number integer := 0;
BEGIN
	SELECT c.relnamespace,
		   CASE WHEN octet_length(c.relname || suffix) <= 60 THEN c.relname
				ELSE left(c.relname, 20) || '_' || left(md5(c.relname), 8) END
	  INTO schema, base
	  FROM pg_class c
	 WHERE c.oid = relation;
	LOOP
		candidate := base || suffix || coalesce(nullif(number, 0)::text, '');
		EXIT WHEN NOT EXISTS (SELECT FROM pg_class c
							   WHERE c.relnamespace = schema AND c.relname = candidate);
		number := number + 1;
	END LOOP;
	RETURN candidate;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_check_new_index_name(regclass, text) IS 'part of datamart_users_check()';

-- Indexes of a relation that find rows by "key", and have "other" too unless
-- that is NULL.  "exact" means: those columns in that order, and nothing else.
CREATE FUNCTION @extschema@.datamart_users_check_find_index(
	relation regclass,
	key text,
	other text,
	OUT index regclass,
	OUT valid boolean,
	OUT exact boolean,
	OUT parent regclass)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT i.indexrelid::pg_catalog.regclass, i.indisvalid, e.exact,
		   (SELECT h.inhparent FROM pg_catalog.pg_inherits h WHERE h.inhrelid = i.indexrelid)::pg_catalog.regclass
	  FROM pg_catalog.pg_index i
	  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
	  JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'btree'
	 CROSS JOIN LATERAL (
			SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.position) AS columns
			  FROM pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, position)
			  LEFT JOIN pg_catalog.pg_attribute a
					 ON a.attrelid = i.indrelid AND a.attnum = k.attnum) AS k
	 CROSS JOIN LATERAL (
			SELECT i.indpred IS NULL
				   AND i.indnkeyatts = i.indnatts
				   AND i.indoption::smallint[] <@ ARRAY[0::smallint]
				   AND k.columns = pg_catalog.array_remove(ARRAY[$2, $3], NULL) AS exact) AS e
	 WHERE i.indrelid = $1
	   AND k.columns[1] = $2
	   AND ($3 IS NULL OR $3 = ANY (k.columns))
	   AND (i.indpred IS NULL
			OR pg_catalog.pg_get_expr(i.indpred, i.indrelid) = pg_catalog.format('(%I IS NOT NULL)', $2))
	 ORDER BY i.indisvalid DESC, e.exact DESC, i.indexrelid;
END;

COMMENT ON FUNCTION @extschema@.datamart_users_check_find_index(regclass, text, text) IS 'part of datamart_users_check()';

-- Statements that index a relation and all of its partitions without keeping
-- writers waiting.  CONCURRENTLY is for plain tables only: so the partitions
-- get their indexes one by one, which then become parts of the parent's.
CREATE FUNCTION @extschema@.datamart_users_check_index_statements(relation regclass, key text, other text)
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	columns text := concat_ws(', ', quote_ident(key), quote_ident(other));
	suffix text := CASE WHEN other IS NULL THEN '_key_idx' ELSE '_user_action_at_idx' END;
	creates text[] := '{}';
	attaches text[] := '{}';
	names jsonb := '{}';
	part record;
	own record;
	index text;
	dropped text;
BEGIN
	-- What an interrupted CREATE INDEX CONCURRENTLY has left is of no use.
	SELECT string_agg(format(E'DROP INDEX CONCURRENTLY %s;\n', i.index), '' ORDER BY i.index::oid)
	  INTO dropped
	  FROM (SELECT relation AS relid UNION SELECT t.relid FROM pg_partition_tree(relation) t) AS r
	  JOIN pg_class c ON c.oid = r.relid AND c.relkind <> 'p'
	 CROSS JOIN LATERAL @extschema@.datamart_users_check_find_index(r.relid, key, other) AS i
	 WHERE i.exact AND NOT i.valid AND i.parent IS NULL;

	IF (SELECT relkind <> 'p' FROM pg_class WHERE oid = relation) THEN
		RETURN format('%sCREATE %sINDEX CONCURRENTLY %I ON %s (%s);', dropped,
					  CASE WHEN other IS NULL THEN 'UNIQUE ' END,
					  @extschema@.datamart_users_check_new_index_name(relation, suffix),
					  relation, columns);
	END IF;

	FOR part IN
		SELECT t.relid, t.parentrelid, c.relkind, n.nspname
		  FROM pg_partition_tree(relation) t
		  JOIN pg_class c ON c.oid = t.relid
		  JOIN pg_namespace n ON n.oid = c.relnamespace
		 WHERE c.relkind IN ('r', 'p')
		 ORDER BY t.level, c.relname
	LOOP
		-- An exact one that is free, or a part of the parent's already.
		SELECT i.index, i.parent
		  INTO own
		  FROM @extschema@.datamart_users_check_find_index(part.relid, key, other) AS i
		 WHERE i.exact
		   AND (i.valid OR part.relkind = 'p')
		   AND NOT (SELECT x.indisunique FROM pg_index x WHERE x.indexrelid = i.index)
		   AND (i.parent IS NULL OR i.parent::text = names ->> part.parentrelid::oid::text)
		 ORDER BY i.parent IS NULL
		 LIMIT 1;

		IF own.index IS NOT NULL THEN
			index := own.index;
		ELSE
			index := @extschema@.datamart_users_check_new_index_name(part.relid, suffix);
			creates := creates || format('CREATE INDEX %s%I ON %s%s (%s);',
										 CASE WHEN part.relkind = 'r' THEN 'CONCURRENTLY ' END,
										 index,
										 CASE WHEN part.relkind = 'p' THEN 'ONLY ' END,
										 part.relid::regclass, columns);
			index := format('%I.%I', part.nspname, index);
		END IF;
		names := names || jsonb_build_object(part.relid::oid::text, index);
		IF part.relid <> relation AND own.parent IS NULL THEN
			attaches := attaches || format('ALTER INDEX %s ATTACH PARTITION %s;',
										   names ->> part.parentrelid::oid::text, index);
		END IF;
	END LOOP;
	RETURN concat(dropped, array_to_string(creates || attaches, E'\n'));
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_check_index_statements(regclass, text, text) IS 'part of datamart_users_check()';

-- One of the two tables: there, of a kind that will do, with its columns.
-- "columns" has names, "types" what each of them may be.
CREATE FUNCTION @extschema@.datamart_users_check_relation(
	setting text,
	value text,
	relation regclass,
	kinds text,
	columns text[],
	types text[],
	OUT status text,
	OUT detail text,
	OUT hint text)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	class pg_class;
	other regclass;
	col record;
	faults text[] := '{}';
BEGIN
	status := 'error';
	SELECT * INTO class FROM pg_class WHERE oid = relation;
	IF relation IS NULL OR strpos(kinds, class.relkind::text) = 0 OR class.relpersistence = 't' THEN
		detail := CASE WHEN relation IS NULL THEN format('%s does not exist', value)
					   WHEN class.relpersistence = 't' THEN format('%s is temporary: workers cannot see it', value)
					   ELSE format('%s is not a table or view that a cycle can use', value) END;
		SELECT c.oid
		  INTO other
		  FROM pg_class c
		 WHERE strpos(kinds, c.relkind::text) > 0
		   AND c.relpersistence <> 't'
		   AND NOT c.relispartition
		   AND columns <@ ARRAY(SELECT a.attname::text FROM pg_attribute a
								 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
		 ORDER BY c.oid
		 LIMIT 1;
		hint := CASE WHEN other IS NULL
					 THEN format('-- SET %s TO the name of your table or view with the columns %s', setting, array_to_string(columns, ' and '))
					 ELSE format(E'SET %1$s = %2$L; -- it has the columns; for good:\nALTER DATABASE %3$I SET %1$s = %2$L;', setting, other::text, current_database()) END;
		RETURN;
	END IF;

	FOR col IN
		SELECT w.name, w.types, t.typname,
			   format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) AS type
		  FROM unnest(columns, types) AS w (name, types)
		  LEFT JOIN pg_attribute a ON a.attrelid = relation AND a.attname = w.name
				AND a.attnum > 0 AND NOT a.attisdropped
		  LEFT JOIN pg_type t ON t.oid = a.atttypid
	LOOP
		IF col.type IS NULL THEN
			faults := faults || format('%s has no column %s', relation, col.name);
		ELSIF col.type <> ALL (string_to_array(col.types, ', ')) THEN
			faults := faults || format('column %s is of type %s, not %s', col.name, col.type,
									   regexp_replace(col.types, ', ([^,]*)$', ' or \1'));
		END IF;
	END LOOP;
	IF faults <> '{}' THEN
		detail := array_to_string(faults, '; ');
		hint := format('-- SET %s TO a view that names and converts the columns so', setting);
	ELSIF setting LIKE '%.users_table' AND class.relkind IN ('v', 'f')
		AND pg_relation_is_updatable(relation, true) & 4 = 0 THEN
		detail := format('%s cannot be updated', relation);
		hint := '-- give the view an INSTEAD OF UPDATE trigger, or make it a plain SELECT of one table';
	ELSE
		status := 'ok';
		detail := format('%s, %s with about %s rows', relation,
						 CASE class.relkind WHEN 'p' THEN 'a partitioned table'
											WHEN 'v' THEN 'a view'
											WHEN 'm' THEN 'a materialized view'
											WHEN 'f' THEN 'a foreign table'
											ELSE 'a table' END,
						 CASE WHEN class.reltuples < 0 OR class.relkind = 'v' THEN 'an unknown number of'
							  ELSE to_char(class.reltuples, 'FM999,999,999,990') END);
	END IF;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_check_relation(text, text, regclass, text, text[], text[]) IS 'part of datamart_users_check()';

-- What a role lacks to run cycles, as the GRANTs that would give it.
CREATE FUNCTION @extschema@.datamart_users_check_privileges(
	role_name name,
	facts regclass,
	users regclass,
	procedure regprocedure,
	OUT status text,
	OUT detail text,
	OUT hint text)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	run_cycle text := '@extschema@.datamart_users_run_cycle(integer, integer, interval)';
	start_cycle text := '@extschema@.datamart_users_start_cycle(integer, integer, interval)';
	role oid := (SELECT r.oid FROM pg_roles r WHERE r.rolname = role_name);
	own_schema oid := (SELECT c.relnamespace FROM pg_class c
						WHERE c.oid = '@extschema@.datamart_users_cycles'::regclass);
	grants text[] := '{}';
	schema record;
BEGIN
	status := 'error';
	IF role IS NULL THEN
		detail := format('role %I does not exist', role_name);
		RETURN;
	END IF;

	FOR schema IN
		SELECT n.oid, n.nspname
		  FROM pg_namespace n
		 WHERE n.oid IN (own_schema,
						 (SELECT relnamespace FROM pg_class WHERE oid = facts),
						 (SELECT relnamespace FROM pg_class WHERE oid = users),
						 (SELECT pronamespace FROM pg_proc WHERE oid = procedure))
		 ORDER BY n.nspname
	LOOP
		IF NOT has_schema_privilege(role, schema.oid, 'USAGE') THEN
			grants := grants || format('USAGE ON SCHEMA %I', schema.nspname);
		END IF;
	END LOOP;
	IF NOT (has_function_privilege(role, run_cycle, 'EXECUTE')
			OR has_function_privilege(role, start_cycle, 'EXECUTE')) THEN
		grants := grants || format('EXECUTE ON FUNCTION %s, %s', run_cycle, start_cycle);
	END IF;
	IF NOT (has_column_privilege(role, facts, 'action_dimension_id_user', 'SELECT')
			AND has_column_privilege(role, facts, 'action_at', 'SELECT')) THEN
		grants := grants || format('SELECT (action_dimension_id_user, action_at) ON %s', facts);
	END IF;
	IF NOT (has_column_privilege(role, users, 'dimension_user_id', 'SELECT')
			AND has_column_privilege(role, users, 'modified', 'SELECT')) THEN
		grants := grants || format('SELECT (dimension_user_id, modified) ON %s', users);
	END IF;
	IF NOT has_column_privilege(role, users, 'modified', 'UPDATE') THEN
		grants := grants || format('UPDATE (modified) ON %s', users);
	END IF;
	IF NOT has_function_privilege(role, procedure, 'EXECUTE') THEN
		grants := grants || format('EXECUTE ON PROCEDURE %s', procedure);
	END IF;

	IF grants = '{}' THEN
		status := 'ok';
		detail := format('role %I has all that a cycle needs', role_name);
	ELSE
		detail := format('role %I cannot run cycles, it lacks %s', role_name, array_to_string(grants, '; '));
		SELECT string_agg(format('GRANT %s TO %I;', g.text, role_name), E'\n' ORDER BY g.position)
		  INTO hint
		  FROM unnest(grants) WITH ORDINALITY AS g (text, position);
	END IF;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_check_privileges(name, regclass, regclass, regprocedure) IS 'part of datamart_users_check()';

-- The indexes that the prioritisation and the flag update want.
CREATE FUNCTION @extschema@.datamart_users_check_indexes(facts regclass, users regclass)
RETURNS TABLE (item text, status text, detail text, hint text)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	key text := 'action_dimension_id_user';
	other text := 'action_at';
	kind text := (SELECT relkind FROM pg_class WHERE oid = facts);
	own regclass;
	attached boolean;
	partitions regclass[];
	without regclass[];
	flag_index regclass;
	has_facts_index boolean;
	statements text;
BEGIN
	-- facts index, facts partitions
	SELECT i.index, i.valid INTO own, attached
	  FROM @extschema@.datamart_users_check_find_index(facts, key, other) AS i
	 LIMIT 1;
	SELECT array_agg(t.relid ORDER BY t.relid),
		   array_agg(t.relid ORDER BY t.relid) FILTER (WHERE NOT EXISTS (
				SELECT FROM @extschema@.datamart_users_check_find_index(t.relid, key, other) AS i
				 WHERE i.valid))
	  INTO partitions, without
	  FROM pg_partition_tree(facts) t
	  JOIN pg_class c ON c.oid = t.relid
	 WHERE kind = 'p' AND c.relkind = 'r';
	has_facts_index := coalesce(attached, false)
		OR cardinality(partitions) > coalesce(cardinality(without), 0);
	IF kind IN ('r', 'm', 'p') AND NOT (has_facts_index AND own IS NOT NULL AND attached) THEN
		statements := @extschema@.datamart_users_check_index_statements(facts, key, other);
	END IF;

	item := 'facts index';
	status := 'ok';
	IF facts IS NULL THEN
		detail := 'not looked at, for want of a facts table';
	ELSIF kind NOT IN ('r', 'm', 'p') THEN
		detail := format('not looked at: the tables behind %s need an index on (%s, %s)', facts, key, other);
	ELSIF kind = 'p' AND partitions IS NULL THEN
		detail := format('none needed, %s has no partitions', facts);
	ELSIF has_facts_index THEN
		detail := coalesce(own::text, 'on partitions');
	ELSE
		status := 'warning';
		detail := format('no index on %s (%s, %s): the prioritisation has to read the facts themselves', facts, key, other);
		hint := statements;
	END IF;
	RETURN NEXT;

	item := 'facts partitions';
	status := 'ok';
	hint := NULL;
	IF facts IS NULL THEN
		detail := 'not looked at, for want of a facts table';
	ELSIF kind <> 'p' THEN
		detail := format('%s is not partitioned', facts);
	ELSIF NOT has_facts_index THEN
		detail := format('%s partitions, see facts index', coalesce(cardinality(partitions), 0));
	ELSIF without IS NOT NULL THEN
		status := 'warning';
		detail := format('%s of %s partitions lack the index on (%s, %s): %s%s',
						 cardinality(without), cardinality(partitions), key, other,
						 array_to_string(without[:3], ', '),
						 CASE WHEN cardinality(without) > 3 THEN ', ...' END);
		hint := statements;
	ELSIF NOT coalesce(attached, false)
		AND NOT EXISTS (SELECT FROM pg_partition_tree(facts) t
						  JOIN pg_class c ON c.oid = t.relid AND c.relkind = 'f') THEN
		status := 'warning';
		detail := format('all %s partitions have the index, but %s has not: new partitions will come without it', cardinality(partitions), facts);
		hint := statements;
	ELSE
		detail := format('all %s partitions have the index', cardinality(partitions));
	END IF;
	RETURN NEXT;

	item := 'users index';
	status := 'ok';
	hint := NULL;
	kind := (SELECT relkind FROM pg_class WHERE oid = users);
	own := (SELECT i.index FROM @extschema@.datamart_users_check_find_index(users, 'dimension_user_id', NULL) AS i
			 WHERE i.valid LIMIT 1);
	IF users IS NULL THEN
		detail := 'not looked at, for want of a users table';
	ELSIF kind NOT IN ('r', 'p') THEN
		detail := format('not looked at: the table behind %s needs an index on dimension_user_id', users);
	ELSIF own IS NOT NULL THEN
		detail := own::text;
	ELSE
		status := 'warning';
		detail := format('no index on %s (dimension_user_id): each refresh reads the whole table to clear one flag', users);
		hint := @extschema@.datamart_users_check_index_statements(users, 'dimension_user_id', NULL);
	END IF;
	RETURN NEXT;

	-- Makes the planner expect far fewer datamart users than there are, so it
	-- takes a nested loop over facts that have no index to be looked up with.
	item := 'flag index';
	status := 'ok';
	hint := NULL;
	flag_index := (SELECT i.indexrelid FROM pg_index i
					WHERE i.indrelid = users
					  AND pg_get_expr(i.indpred, i.indrelid) ~ '\mmodified\M'
					ORDER BY i.indexrelid LIMIT 1);
	IF flag_index IS NULL THEN
		detail := 'none, and none needed';
	ELSIF has_facts_index OR statements IS NULL THEN
		detail := flag_index::text;
	ELSE
		status := 'warning';
		detail := format('%s alone makes the prioritisation slower: it needs the facts index beside it', flag_index);
		hint := format(E'DROP INDEX CONCURRENTLY %s; -- and for a faster prioritisation than either:\n%s', flag_index, statements);
	END IF;
	RETURN NEXT;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_check_indexes(regclass, regclass) IS 'part of datamart_users_check()';

-- Statistics of both tables.  Autovacuum looks after tables, and so after each
-- partition, but never after the partitioned table itself.
CREATE FUNCTION @extschema@.datamart_users_check_statistics(
	facts regclass,
	users regclass,
	OUT status text,
	OUT detail text,
	OUT hint text)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	never regclass[];
	stale regclass[];
	looked_at integer;
BEGIN
	WITH RECURSIVE relations AS (
		SELECT roots.relation, k.key
		  FROM (VALUES (facts, 'action_dimension_id_user'), (users, 'dimension_user_id')) AS roots (relation, key)
		 CROSS JOIN LATERAL (SELECT roots.key) AS k
		 WHERE roots.relation IS NOT NULL
		UNION
		SELECT t.relid, r.key
		  FROM relations r
		  JOIN pg_class p ON p.oid = r.relation AND p.relkind = 'p'
		 CROSS JOIN LATERAL pg_partition_tree(r.relation) AS t
	), states AS (
		SELECT c.oid, c.relkind, c.reltuples,
			   EXISTS (SELECT FROM pg_statistic s
						 JOIN pg_attribute a ON a.attrelid = s.starelid AND a.attnum = s.staattnum
						WHERE s.starelid = c.oid
						  AND s.stainherit = (c.relkind = 'p')
						  AND a.attname = r.key) AS gathered,
			   CASE WHEN c.relkind = 'p'
					THEN (SELECT sum(greatest(pc.reltuples, 0))
							FROM pg_partition_tree(c.oid) t
							JOIN pg_class pc ON pc.oid = t.relid
						   WHERE pc.relkind = 'r')
					ELSE c.reltuples END AS rows_now,
			   CASE WHEN c.relkind = 'p'
					THEN (SELECT sum(pg_relation_size(t.relid))
							FROM pg_partition_tree(c.oid) t
						   WHERE t.isleaf)
					ELSE pg_relation_size(c.oid) END AS bytes,
			   -- Autovacuum is given ten minutes to see to it.
			   CASE WHEN greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid))
						 > clock_timestamp() - interval '10 minutes' THEN 0
					ELSE pg_stat_get_mod_since_analyze(c.oid) END AS changes
		  FROM relations r
		  JOIN pg_class c ON c.oid = r.relation
		 WHERE c.relkind IN ('r', 'm', 'p')
	), judged AS (
		SELECT s.oid,
			   NOT s.gathered AND s.bytes > 0 AS never,
			   CASE WHEN s.relkind = 'p' THEN abs(s.rows_now - s.reltuples)
					ELSE s.changes END > 1000 + 0.2 * greatest(s.reltuples, 0) AS stale
		  FROM states s
	)
	SELECT array_agg(j.oid ORDER BY j.oid) FILTER (WHERE j.never),
		   array_agg(j.oid ORDER BY j.oid) FILTER (WHERE j.stale AND NOT j.never),
		   count(*)
	  INTO never, stale, looked_at
	  FROM judged j;

	IF never IS NULL AND stale IS NULL THEN
		status := 'ok';
		detail := CASE WHEN looked_at = 0 THEN 'not looked at, for want of tables'
					   ELSE format('up to date for %s tables and partitions', looked_at) END;
		RETURN;
	END IF;
	status := 'warning';
	detail := concat_ws('; ',
						'never gathered for ' || array_to_string(never[:3], ', ')
							|| CASE WHEN cardinality(never) > 3 THEN format(' and %s more', cardinality(never) - 3) ELSE '' END,
						'stale for ' || array_to_string(stale[:3], ', ')
							|| CASE WHEN cardinality(stale) > 3 THEN format(' and %s more', cardinality(stale) - 3) ELSE '' END)
		|| CASE WHEN facts = ANY (never || stale) AND (SELECT relkind = 'p' FROM pg_class WHERE oid = facts)
				THEN '; autovacuum never analyzes a partitioned table itself' ELSE '' END;

	-- The partitioned table brings all of its partitions with it.
	SELECT format('ANALYZE %s;', string_agg(relation::text, ', ' ORDER BY relation::oid))
	  INTO hint
	  FROM (SELECT facts AS relation WHERE facts = ANY (never || stale)
			UNION
			SELECT r FROM unnest(never || stale) AS r
			 WHERE facts <> ALL (never || stale)
				OR r NOT IN (SELECT t.relid FROM pg_partition_tree(facts) t)) AS targets;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_check_statistics(regclass, regclass) IS 'part of datamart_users_check()';

-- What a cycle gets from the server, and what its settings take away again.
CREATE FUNCTION @extschema@.datamart_users_check_server()
RETURNS TABLE (item text, status text, detail text, hint text)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	slots integer := current_setting('max_worker_processes');
	asked integer := current_setting('datamart_users.max_workers');
	taken integer;
	parallel integer;
	wanted integer;
	setting record;
	faults text[];
	problem text;
BEGIN
	-- 0 means processors minus one, and only a cycle knows how many that are.
	wanted := coalesce(nullif(asked, 0),
					   (SELECT c.workers_requested FROM @extschema@.datamart_users_cycles c
						 ORDER BY c.cycle_id DESC LIMIT 1),
					   1);
	SELECT count(*), count(*) FILTER (WHERE a.backend_type = 'parallel worker')
	  INTO taken, parallel
	  FROM pg_stat_activity a
	 WHERE a.backend_type NOT IN (
				'client backend', 'standalone backend', 'startup', 'archiver',
				'autovacuum launcher', 'autovacuum worker', 'background writer',
				'checkpointer', 'logger', 'walreceiver', 'walsender', 'walwriter',
				'walsummarizer', 'slotsync worker', 'io worker')
	   AND a.pid NOT IN (SELECT w.pid FROM @extschema@.datamart_users_workers w WHERE w.pid IS NOT NULL);

	item := 'worker slots';
	status := CASE WHEN slots - taken < 1 THEN 'error'
				   WHEN slots - taken < wanted THEN 'warning'
				   ELSE 'ok' END;
	detail := format('%s of %s slots are free, a cycle asks for %s%s', greatest(slots - taken, 0), slots, wanted,
					 CASE WHEN parallel > 0 THEN format(' (parallel queries have %s)', parallel) END);
	IF status <> 'ok' THEN
		hint := format('ALTER SYSTEM SET max_worker_processes = %s; -- and restart the server', slots + wanted - (slots - taken));
	END IF;
	RETURN NEXT;

	item := 'connections';
	status := 'ok';
	detail := format('max_connections (%s) does not limit a cycle: its workers are background workers, which max_worker_processes limits; only the waiting caller has a connection',
					 current_setting('max_connections'));
	hint := NULL;
	RETURN NEXT;

	-- As a worker would have them: worker_settings over those of the session.
	item := 'worker settings';
	faults := '{}';
	FOR setting IN
		SELECT n.name,
			   coalesce((SELECT replace(btrim(m[2], ' '''), '''''', '''')
						   FROM regexp_matches(current_setting('datamart_users.worker_settings'),
											   '([[:alnum:]_.$]+)\s*=\s*(''(?:[^'']|'''')*''|[^,=''"]*)', 'g')
								WITH ORDINALITY AS pair (m, position)
						  WHERE lower(m[1]) = n.name
						  ORDER BY pair.position DESC LIMIT 1),
						current_setting(n.name)) AS value
		  FROM (VALUES ('jit'), ('plan_cache_mode'), ('max_parallel_workers_per_gather')) AS n (name)
	LOOP
		IF setting.name = 'jit' AND lower(setting.value) NOT IN ('off', 'false', 'no', '0', 'of', 'f', 'n') THEN
			faults := faults || 'jit is on: compiling costs more than a refresh saves by it'::text;
		ELSIF setting.name = 'plan_cache_mode' AND lower(setting.value) <> 'force_generic_plan' THEN
			faults := faults || format('plan_cache_mode is %s: most of a light refresh may go into planning', setting.value);
		ELSIF setting.name = 'max_parallel_workers_per_gather' AND setting.value <> '0' THEN
			faults := faults || format('max_parallel_workers_per_gather is %s: refreshes take worker slots and processors from each other', setting.value);
		END IF;
	END LOOP;
	SELECT s.setting, s.boot_val, s.source
	  INTO setting
	  FROM pg_settings s
	 WHERE s.name = 'datamart_users.worker_settings';
	IF faults = '{}' THEN
		status := 'ok';
		detail := setting.setting;
	ELSE
		status := 'warning';
		detail := array_to_string(faults, '; ');
		hint := format('SET datamart_users.worker_settings = %L; -- it was changed in: %s', setting.boot_val, setting.source);
	END IF;
	RETURN NEXT;

	item := 'settings';
	status := 'ok';
	detail := 'they go together';
	hint := NULL;
	SELECT v.problem, v.hint
	  INTO problem, hint
	  FROM (VALUES
			(1, current_setting('datamart_users.catchup_threshold')::integer > 0
				AND current_setting('datamart_users.catchup_max_users')::integer = 0,
			 'catchup_threshold is set, but catchup_max_users is 0: there is no catching up',
			 'SET datamart_users.catchup_max_users = 5000;'),
			(2, current_setting('datamart_users.catchup_threshold')::integer = 0
				AND current_setting('datamart_users.catchup_max_users')::integer > 0,
			 'catchup_max_users is set, but catchup_threshold is 0: there is no catching up',
			 'SET datamart_users.catchup_threshold = 20000;'),
			(3, current_setting('datamart_users.retry_delay')::interval = '0',
			 'retry_delay is 0: a datamart user that always fails is taken by every cycle',
			 'SET datamart_users.retry_delay = ''1min'';'),
			(4, current_setting('default_transaction_read_only')::boolean,
			 'default_transaction_read_only is on: no cycle starts in this session',
			 'SET default_transaction_read_only = off;')) AS v (position, applies, problem, hint)
	 WHERE v.applies
	 ORDER BY v.position
	 LIMIT 1;
	IF problem IS NOT NULL THEN
		status := 'warning';
		detail := problem;
	END IF;
	RETURN NEXT;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_check_server() IS 'part of datamart_users_check()';

-- What cycles have left behind.
CREATE FUNCTION @extschema@.datamart_users_check_history()
RETURNS TABLE (item text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	live bigint[];
	cycle record;
	dead bigint[];
	failing record;
	waiting record;
	history record;
BEGIN
	SELECT * INTO cycle
	  FROM @extschema@.datamart_users_cycles c
	 ORDER BY c.cycle_id DESC
	 LIMIT 1;

	-- One that has just begun or ended looks the same as one that died; so a
	-- second look, with another snapshot.
	FOR look IN 1 .. 2 LOOP
		dead := ARRAY(SELECT c.cycle_id FROM @extschema@.datamart_users_cycles c
					   WHERE c.status = 'running' AND (look = 1 OR c.cycle_id = ANY (dead))
					   ORDER BY c.cycle_id);
		live := ARRAY(SELECT p.cycle_id FROM @extschema@.datamart_users_progress p);
		dead := ARRAY(SELECT d.id FROM unnest(dead) AS d (id) WHERE d.id <> ALL (live) ORDER BY d.id);
		EXIT WHEN dead = '{}';
		PERFORM pg_sleep(0.1);
	END LOOP;

	item := 'last cycle';
	status := 'ok';
	IF dead <> '{}' THEN
		status := 'warning';
		detail := format('cycle %s says running, but nothing runs: it died with its server or coordinator, and the next cycle will mark it as aborted', dead[cardinality(dead)]);
		hint := 'SELECT * FROM @extschema@.datamart_users_run_cycle();';
	ELSIF cycle IS NULL THEN
		detail := 'there was none yet';
	ELSIF cycle.status IN ('failed', 'aborted') THEN
		status := CASE cycle.status WHEN 'failed' THEN 'error' ELSE 'warning' END;
		detail := format('cycle %s %s', cycle.cycle_id, concat_ws(': ', cycle.status, cycle.message));
		hint := format('SELECT @extschema@.datamart_users_report(%s);', cycle.cycle_id);
	ELSE
		detail := format('cycle %s: %s', cycle.cycle_id, cycle.status);
	END IF;
	RETURN NEXT;

	item := 'locks';
	status := 'ok';
	hint := NULL;
	SELECT count(DISTINCT a.pid) AS workers, array_agg(DISTINCT b.pid) AS blockers
	  INTO waiting
	  FROM @extschema@.datamart_users_workers w
	  JOIN pg_stat_activity a ON a.pid = w.pid AND a.wait_event_type = 'Lock'
	 CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) AS b (pid);
	IF waiting.workers > 0 THEN
		status := 'warning';
		detail := format('%s workers wait for locks of process %s', waiting.workers, array_to_string(waiting.blockers, ', '));
		hint := format('SELECT pid, usename, state, xact_start, query FROM pg_stat_activity WHERE pid IN (%s);', array_to_string(waiting.blockers, ', '));
	ELSE
		detail := CASE WHEN live = '{}' THEN 'no cycle is running' ELSE 'no worker waits for one' END;
	END IF;
	RETURN NEXT;

	-- A few that fail are daily life, a renamed account for example.
	item := 'failures';
	status := 'ok';
	hint := NULL;
	SELECT count(*) AS number,
		   count(*) FILTER (WHERE f.attempts >= 5) AS stubborn,
		   count(*) FILTER (WHERE f.next_attempt_at > clock_timestamp()) AS held,
		   mode() WITHIN GROUP (ORDER BY f.sqlstate) AS sqlstate
	  INTO failing
	  FROM @extschema@.datamart_users_failures f;
	IF failing.number = 0 THEN
		detail := 'none';
	ELSE
		detail := format('failing datamart users: %s, 5 times or more: %s, held by back-off: %s; most frequent SQLSTATE: %s',
						 failing.number, failing.stubborn, failing.held, failing.sqlstate);
		IF cycle.processed = 0 AND cycle.failed > 0 AND cycle.failed = cycle.found THEN
			status := 'error';
		ELSIF failing.number > 100 OR failing.stubborn > 0 THEN
			status := 'warning';
		END IF;
		IF status <> 'ok' THEN
			hint := 'SELECT sqlstate, count(*), max(attempts) AS attempts, min(dimension_user_id) AS for_example, min(message) AS message FROM @extschema@.datamart_users_failures GROUP BY sqlstate ORDER BY count(*) DESC;';
		END IF;
	END IF;
	RETURN NEXT;

	-- Who is here has collided even when no other worker was at work.
	item := 'contention';
	status := 'ok';
	hint := NULL;
	SELECT count(*) AS number,
		   max(n.deferrals) AS deferrals,
		   min(n.first_deferred_at) AS since,
		   mode() WITHIN GROUP (ORDER BY n.sqlstate) AS sqlstate
	  INTO failing
	  FROM @extschema@.datamart_users_contention n;
	IF failing.number = 0 THEN
		detail := 'none';
	ELSE
		status := 'warning';
		detail := format('datamart users whose procedure kept colliding: %s, up to %s cycles in a row, since %s; most frequent SQLSTATE: %s',
						 failing.number, failing.deferrals, date_trunc('second', failing.since), failing.sqlstate);
		hint := 'SELECT sqlstate, count(*), max(deferrals) AS deferrals, min(dimension_user_id) AS for_example, min(message) AS message FROM @extschema@.datamart_users_contention GROUP BY sqlstate ORDER BY count(*) DESC;';
	END IF;
	RETURN NEXT;

	item := 'history';
	status := 'ok';
	hint := NULL;
	SELECT (SELECT count(*) FROM @extschema@.datamart_users_cycles) AS cycles,
		   sum(pg_total_relation_size(t.relation)) AS bytes
	  INTO history
	  FROM (VALUES ('@extschema@.datamart_users_cycles'::regclass),
				   ('@extschema@.datamart_users_cycle_priorities'),
				   ('@extschema@.datamart_users_cycle_profiles'),
				   ('@extschema@.datamart_users_slowest'),
				   ('@extschema@.datamart_users_failures')) AS t (relation);
	detail := format('%s cycles in %s, kept for %s', history.cycles, pg_size_pretty(history.bytes),
					 CASE current_setting('datamart_users.history_retention') WHEN '0' THEN 'ever'
						  ELSE current_setting('datamart_users.history_retention') END);
	IF history.cycles > 100000 OR history.bytes > 1024 * 1024 * 1024 THEN
		status := 'warning';
		hint := format('ALTER DATABASE %I SET datamart_users.history_retention = ''30d'';', current_database());
	END IF;
	RETURN NEXT;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_check_history() IS 'part of datamart_users_check()';

CREATE FUNCTION @extschema@.datamart_users_check(
	role_name name DEFAULT CURRENT_USER,
	schemas name[] DEFAULT pg_catalog.current_schemas(true))
RETURNS TABLE (item text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	facts_name text;
	users_name text;
	procedure_name text;
	facts regclass;
	users regclass;
	procedure regprocedure;
	resolved record;
BEGIN
	item := 'server';
	status := CASE WHEN pg_is_in_recovery() THEN 'error' ELSE 'ok' END;
	detail := CASE WHEN pg_is_in_recovery() THEN 'this is a standby: cycles run on the primary server'
				   ELSE format('PostgreSQL %s', current_setting('server_version')) END;
	RETURN NEXT;

	-- Loads the library, and thereby defines the settings.
	PERFORM FROM @extschema@.datamart_users_progress;
	facts_name := current_setting('datamart_users.facts_table');
	users_name := current_setting('datamart_users.users_table');
	procedure_name := current_setting('datamart_users.procedure');

	item := 'facts table';
	facts := @extschema@.datamart_users_check_find_relation(facts_name, schemas);
	SELECT * INTO status, detail, hint
	  FROM @extschema@.datamart_users_check_relation(
				'datamart_users.facts_table', facts_name, facts, 'rpvmf',
				'{action_dimension_id_user,action_at}',
				'{"smallint, integer, bigint","timestamp without time zone, timestamp with time zone, date"}');
	IF status <> 'ok' THEN
		facts := NULL;
	END IF;
	RETURN NEXT;

	item := 'users table';
	users := @extschema@.datamart_users_check_find_relation(users_name, schemas);
	SELECT * INTO status, detail, hint
	  FROM @extschema@.datamart_users_check_relation(
				'datamart_users.users_table', users_name, users, 'rpvf',
				'{dimension_user_id,modified}',
				'{"smallint, integer, bigint",boolean}');
	IF status <> 'ok' THEN
		users := NULL;
	END IF;
	RETURN NEXT;

	item := 'procedure';
	SELECT * INTO resolved
	  FROM @extschema@.datamart_users_check_find_procedure(
				procedure_name, schemas,
				coalesce((SELECT CASE WHEN a.atttypid = 'bigint'::regtype THEN 'bigint'::regtype END
							FROM pg_attribute a
						   WHERE a.attrelid = users AND a.attname = 'dimension_user_id'),
						 'integer'));
	procedure := resolved.procedure;
	status := CASE WHEN resolved.problem IS NULL THEN 'ok' ELSE 'error' END;
	detail := coalesce(resolved.problem, procedure::text);
	hint := CASE WHEN resolved.problem IS NOT NULL
				 THEN '-- SET datamart_users.procedure TO the name of a procedure with one argument, integer or bigint, and defaults for all others' END;
	RETURN NEXT;

	item := 'privileges';
	SELECT * INTO status, detail, hint
	  FROM @extschema@.datamart_users_check_privileges(role_name, facts, users, procedure);
	RETURN NEXT;

	RETURN QUERY SELECT * FROM @extschema@.datamart_users_check_indexes(facts, users);

	item := 'statistics';
	SELECT * INTO status, detail, hint
	  FROM @extschema@.datamart_users_check_statistics(facts, users);
	RETURN NEXT;

	RETURN QUERY SELECT * FROM @extschema@.datamart_users_check_server();
	RETURN QUERY SELECT * FROM @extschema@.datamart_users_check_history();
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_check(name, name[]) IS 'the doctor: what keeps cycles from running, or from running well, each with a statement to paste; for the current role and search_path, or those given';

REVOKE ALL ON FUNCTION
	@extschema@.datamart_users_check_find_relation(text, name[]),
	@extschema@.datamart_users_check_find_procedure(text, name[], regtype),
	@extschema@.datamart_users_check_new_index_name(regclass, text),
	@extschema@.datamart_users_check_find_index(regclass, text, text),
	@extschema@.datamart_users_check_index_statements(regclass, text, text),
	@extschema@.datamart_users_check_relation(text, text, regclass, text, text[], text[]),
	@extschema@.datamart_users_check_privileges(name, regclass, regclass, regprocedure),
	@extschema@.datamart_users_check_indexes(regclass, regclass),
	@extschema@.datamart_users_check_statistics(regclass, regclass),
	@extschema@.datamart_users_check_server(),
	@extschema@.datamart_users_check_history(),
	@extschema@.datamart_users_check(name, name[])
FROM PUBLIC;

-- It runs as the owner, so this is all that its caller needs.
GRANT EXECUTE ON FUNCTION @extschema@.datamart_users_check(name, name[]) TO pg_monitor;
