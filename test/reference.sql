-- Prints doc/reference.md, by psql -At: all that the extension has, from the
-- catalog, its comments and pg_settings.  So what is added needs a comment and
-- "make reference", and no line here.

\set ON_ERROR_STOP on
SELECT set_config('search_path', 'pg_catalog, ' || quote_ident(nspname), FALSE) AS path
FROM pg_extension e JOIN pg_namespace n ON e.extnamespace = n.oid WHERE extname = 'datamart_users' \gset
LOAD 'datamart_users';

CREATE TEMP VIEW members AS
	SELECT d.classid, d.objid
	FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'datamart_users';

-- Nothing in a comment may end a cell of a table, or a line.
CREATE FUNCTION pg_temp.cell(text) RETURNS text LANGUAGE sql AS
	$$ SELECT replace(regexp_replace(coalesce($1, ''), '\s+', ' ', 'g'), '|', '\|') $$;

CREATE FUNCTION pg_temp.columns(relation oid) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('| `%s` | %s | %s |', a.attname,
			format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ', not null' ELSE '' END,
			pg_temp.cell(col_description(a.attrelid, a.attnum))), E'\n' ORDER BY a.attnum)
	FROM pg_attribute a
	WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
$$;

SELECT '# Reference

Everything that the extension has. `make reference` writes this page from the catalog, the comments in it and
`pg_settings`, and a test compares the two; the same texts are shown by `\df+`, `\d+` and `\dx+ datamart_users`.
How all of it is used is in the [guide](guide.md), what the figures mean in [monitoring.md](monitoring.md).

Nothing is granted to PUBLIC. Objects are in the schema that `CREATE EXTENSION` was given.

## Functions and procedures
';

WITH arguments AS (
	SELECT p.oid, a.position, p.proargnames[a.position] AS name, coalesce(p.proargmodes[a.position], 'i') AS mode,
		   format_type(a.type, NULL) AS type
	FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid,
		 unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY a (type, position)
)
SELECT format(E'### `%s`\n\n```\n%s%s(%s)%s\n```\n\n%s%s\n', p.proname,
		CASE p.prokind WHEN 'p' THEN 'CALL ' ELSE '' END, p.proname,
		(SELECT string_agg(format('%I %s', a.name, a.type) || coalesce(' DEFAULT ' ||
				regexp_replace(pg_get_function_arg_default(p.oid, a.position::integer), '^NULL::.*', 'NULL'), ''), ', ' ORDER BY a.position)
		 FROM arguments a WHERE a.oid = p.oid AND a.mode = 'i'),
		CASE WHEN p.prokind = 'p' THEN ''
			 WHEN EXISTS (SELECT FROM arguments a WHERE a.oid = p.oid AND a.mode IN ('t', 'o'))
			 THEN CASE WHEN p.proretset THEN ' RETURNS rows' ELSE ' RETURNS one row' END
			 ELSE ' RETURNS ' || pg_get_function_result(p.oid) END,
		coalesce(pg_temp.cell(obj_description(p.oid, 'pg_proc')), 'NO COMMENT'),
		(SELECT E'\n\n| column | type |\n| --- | --- |\n' ||
				string_agg(format('| `%s` | %s |', a.name, a.type), E'\n' ORDER BY a.position)
		 FROM arguments a WHERE a.oid = p.oid AND a.mode IN ('t', 'o')
		 -- What the columns of a view say need not be said twice.
		 AND obj_description(p.oid, 'pg_proc') NOT LIKE 'see the view %'))
FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
ORDER BY p.proname COLLATE "C", pg_get_function_identity_arguments(p.oid) COLLATE "C";

SELECT E'## Tables\n\nThe history and what is remembered of datamart users; `pg_monitor` may read them.\n';

SELECT format(E'### `%s`\n\n%s\n\n| column | type | |\n| --- | --- | --- |\n%s\n', c.relname,
		coalesce(pg_temp.cell(obj_description(c.oid, 'pg_class')), 'NO COMMENT'), pg_temp.columns(c.oid))
FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
WHERE c.relkind = 'r'
ORDER BY c.relname COLLATE "C";

SELECT E'## Views\n';

SELECT format(E'### `%s`\n\n%s\n\n| column | type | |\n| --- | --- | --- |\n%s\n', c.relname,
		coalesce(pg_temp.cell(obj_description(c.oid, 'pg_class')), 'NO COMMENT'), pg_temp.columns(c.oid))
FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
WHERE c.relkind = 'v'
ORDER BY c.relname COLLATE "C";

-- None of the usual kinds, and no row type, or array, of one of those.
SELECT E'## Others\n\n' || string_agg(line, E'\n' ORDER BY line COLLATE "C") || E'\n'
FROM members m, LATERAL (SELECT format('* %s `%s`', type, name) FROM pg_identify_object(m.classid, m.objid, 0)) o (line)
WHERE m.classid <> 'pg_proc'::regclass
  AND NOT (m.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = m.objid AND c.relkind IN ('r', 'v')))
  AND NOT (m.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t WHERE t.oid = m.objid AND (t.typrelid <> 0 OR t.typelem <> 0)))
HAVING count(*) > 0;

SELECT '## Settings

In `postgresql.conf`, by `ALTER DATABASE` or `ALTER ROLE`, or in a session, whose `SET` reaches the workers of its cycle.
A unit may be given, as in `''5min''`.

| `datamart_users.` | type | default | |
| --- | --- | --- | --- |';

SELECT format('| `%s` | %s | %s | %s%s%s |', substr(name, length('datamart_users.') + 1),
		vartype || CASE WHEN vartype NOT IN ('integer', 'real') THEN ''
							WHEN max_val = '2147483647' THEN ' from ' || min_val
							ELSE format(' from %s to %s', min_val, max_val) END
			|| CASE WHEN unit IS NULL THEN '' ELSE ', in ' || unit END
			|| coalesce(': ' || array_to_string(enumvals, ', '), ''),
		CASE WHEN boot_val = '' THEN 'none'
			 ELSE '`' || CASE WHEN unit IS NULL THEN boot_val ELSE set_config(name, boot_val || unit, FALSE) END || '`' END,
		pg_temp.cell(short_desc), coalesce(' ' || nullif(pg_temp.cell(extra_desc), ''), ''),
		CASE WHEN context <> 'user' THEN ' For superusers, and for roles that were granted `SET` on it.' ELSE '' END)
FROM pg_settings WHERE name LIKE 'datamart\_users.%'
ORDER BY name COLLATE "C";
