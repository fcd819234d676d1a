--
-- order.sql
--		Guards the order of the queue: against an SQL formulation of the rules
--		that shares nothing with the prioritisation query, and against what a
--		cycle really does.
--
CREATE EXTENSION datamart_users;
\getenv srcdir PG_ABS_SRCDIR
\set begin :srcdir '/include/begin.sql'
\i :begin
SET datamart_users.max_workers = 1;

--
-- The rules once more: classes are counted rather than chosen by CASE, facts
-- are looked up per datamart user, and positions come from a window.
--
CREATE FUNCTION expected_queue() RETURNS TABLE (
	queue_position bigint, dimension_user_id bigint, priority text,
	recency_class integer, activity_class integer, action_count bigint,
	last_action_at timestamp)
LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format($query$
		WITH classes AS (
			SELECT u.dimension_user_id::bigint AS id, f.actions, f.last,
				   1 + (SELECT count(*)::integer FROM unnest(%L::integer[]) AS days
						 WHERE (f.last >= date_trunc('day', localtimestamp)
										- make_interval(days => days)) IS NOT TRUE) AS recency,
				   1 + (SELECT count(*)::integer FROM unnest(%L::integer[]) AS threshold
						 WHERE f.actions <= threshold) AS activity
			  FROM %s AS u,
				   LATERAL (SELECT count(*) AS actions, max(action_at::timestamp) AS last
							  FROM %s
							 WHERE action_dimension_id_user = u.dimension_user_id) AS f
			 WHERE u.modified IS TRUE
			   AND u.dimension_user_id NOT IN (
					SELECT dimension_user_id FROM datamart_users_failures
					 WHERE next_attempt_at > now() AND users_oid = %L::regclass))
		SELECT row_number() OVER (ORDER BY recency, activity, -actions, last IS NULL, last DESC, id),
			   id,
			   CASE recency WHEN 1 THEN 'critical' WHEN 2 THEN 'high' WHEN 3 THEN 'medium'
					ELSE (ARRAY['historical', 'low', 'lowest'])[activity] END,
			   recency, activity, actions, last
		  FROM classes$query$,
		'{' || current_setting('datamart_users.recency_days') || '}',
		'{' || current_setting('datamart_users.activity_thresholds') || '}',
		current_setting('datamart_users.users_table'),
		current_setting('datamart_users.facts_table'),
		current_setting('datamart_users.users_table'));
END;
$$;

-- Where the two disagree; "ordinality" is the order in which rows come out.
CREATE VIEW differences AS
SELECT to_json(e) AS expected, to_json(q) AS queue
  FROM expected_queue() AS e
  FULL JOIN (SELECT ordinality AS queue_position, dimension_user_id, priority,
					recency_class, activity_class, action_count,
					last_action_at::timestamp, queue_position AS position
			   FROM datamart_users_queue() WITH ORDINALITY) AS q
	   USING (queue_position)
 WHERE (e.dimension_user_id, e.priority, e.recency_class, e.activity_class,
		e.action_count, e.last_action_at, e.queue_position)
	   IS DISTINCT FROM
	   (q.dimension_user_id, q.priority, q.recency_class, q.activity_class,
		q.action_count, q.last_action_at, q.position);

--
-- Hand-made cases.  A datamart user has one fact at "last", the others of
-- "actions" are 400 days old and more.
--
CREATE TEMP TABLE cases (id integer, label text, actions integer, last timestamptz);
INSERT INTO cases VALUES
	(101, 'today, 101 actions', 101, CURRENT_DATE),
	(102, 'today, 100 actions', 100, CURRENT_DATE),
	(103, 'today, 11 actions', 11, CURRENT_DATE),
	(104, 'today, 10 actions', 10, CURRENT_DATE),
	(105, 'tomorrow', 1, CURRENT_DATE + 1),
	(106, 'infinity', 1, 'infinity'),
	(107, '-infinity', 1, '-infinity'),
	(207, '7 days at midnight', 1, CURRENT_DATE - 7),
	(208, '7 days and 1 us', 1, CURRENT_DATE - 7 - interval '1 us'),
	(230, '30 days at midnight', 1, CURRENT_DATE - 30),
	(231, '30 days and 1 us', 1, CURRENT_DATE - 30 - interval '1 us'),
	(290, '90 days at midnight', 1, CURRENT_DATE - 90),
	(291, '90 days and 1 us', 1, CURRENT_DATE - 90 - interval '1 us'),
	(301, '200 days, 101 actions', 101, CURRENT_DATE - 200),
	(302, '200 days, 100 actions', 100, CURRENT_DATE - 200),
	(303, '200 days, 11 actions', 11, CURRENT_DATE - 200),
	(304, '200 days, 10 actions', 10, CURRENT_DATE - 200),
	(402, 'tie, second id', 5, CURRENT_DATE - 10),
	(401, 'tie, first id', 5, CURRENT_DATE - 10),
	(403, 'tie, but later', 5, CURRENT_DATE - 9),
	(404, 'tie, but more actions', 6, CURRENT_DATE - 11),
	(-1, 'tie, negative id', 5, CURRENT_DATE - 10),
	(502, 'no facts, second id', 0, NULL),
	(501, 'no facts, first id', 0, NULL),
	(503, 'times unknown', 2, NULL),
	(504, 'some times unknown', 1, CURRENT_DATE - 20),
	(505, 'times known, as many actions', 2, CURRENT_DATE - 300),
	(601, 'not modified', 200, CURRENT_DATE),
	(602, 'modified unknown', 200, CURRENT_DATE),
	(701, 'held by back-off', 200, CURRENT_DATE),
	(702, 'back-off is over', 3, CURRENT_DATE - 95);

INSERT INTO dwh.dimension_users
SELECT id, label,
	   CASE label WHEN 'not modified' THEN false
				  WHEN 'modified unknown' THEN NULL
				  ELSE true END
  FROM cases
 ORDER BY md5(label);
INSERT INTO dwh.facts
SELECT id, CASE WHEN i = 1 THEN last
				WHEN last IS NOT NULL THEN CURRENT_DATE - 400 - i * interval '1 hour' END
  FROM cases, generate_series(1, actions) AS i
 WHERE label <> '-infinity'
UNION ALL
SELECT 107, '-infinity'
UNION ALL
SELECT 504, NULL FROM generate_series(1, 2)
UNION ALL
-- Anonymous actions, and those of nobody in the users table.
SELECT actor, CURRENT_DATE FROM unnest(ARRAY[NULL, 999]) AS actor, generate_series(1, 150);

INSERT INTO datamart_users_failures
	(dimension_user_id, attempts, first_failed_at, last_failed_at, next_attempt_at,
	 sqlstate, message, cycle_id)
SELECT id, 1, now(), now(),
	   now() + CASE label WHEN 'held by back-off' THEN interval '1 hour'
						  ELSE interval '-1 second' END,
	   'P0001', 'made up', 0
  FROM cases
 WHERE label IN ('held by back-off', 'back-off is over');

SELECT queue_position, label, priority, recency_class, activity_class, action_count
  FROM datamart_users_queue()
  JOIN dwh.dimension_users USING (dimension_user_id)
 ORDER BY queue_position;
SELECT * FROM differences;

-- The same by numbers, with the one that is held.
SELECT priority, waiting, held FROM datamart_users_backlog;

-- The limit cuts the end off, and nothing else.
SELECT n, count(q) AS rows
  FROM unnest(ARRAY[1, 5, 27, 28, 29, 10000000]) AS n,
	   LATERAL datamart_users_queue(n) AS q
  JOIN expected_queue() AS e USING (queue_position, dimension_user_id)
 GROUP BY n
 ORDER BY n;

--
-- Other boundaries.
--
SET datamart_users.recency_days = '1, 9, 10';
SET datamart_users.activity_thresholds = '10, 0';
SELECT label, priority, recency_class, activity_class
  FROM datamart_users_queue()
  JOIN dwh.dimension_users USING (dimension_user_id)
 WHERE label ~ '^(tie|today|no facts|200 days)'
 ORDER BY queue_position;
SELECT * FROM differences;
SET datamart_users.recency_days = '30, 90, 365000';
SET datamart_users.activity_thresholds = '2147483647, 5';
SELECT priority, count(*)
  FROM datamart_users_queue()
 GROUP BY priority
 ORDER BY min(queue_position);
SELECT * FROM differences;
RESET datamart_users.recency_days;
RESET datamart_users.activity_thresholds;

--
-- Types.  Every combination gives the same order as the formulation above,
-- with the rows that each type can hold.
--
CREATE FUNCTION try_types(users_key regtype, facts_key regtype, at regtype,
						  OUT queued bigint, OUT different bigint)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE dwh.typed_users AS
					SELECT dimension_user_id::%s, modified FROM dwh.dimension_users', users_key);
	EXECUTE format('CREATE TABLE dwh.typed_facts AS
					SELECT action_dimension_id_user::%s, action_at::%s FROM dwh.facts', facts_key, at);
	PERFORM set_config('datamart_users.users_table', 'dwh.typed_users', true),
			set_config('datamart_users.facts_table', 'dwh.typed_facts', true);
	SELECT count(*) INTO queued FROM datamart_users_queue();
	SELECT count(*) INTO different FROM differences;
	DROP TABLE dwh.typed_users, dwh.typed_facts;
END;
$$;
CREATE DOMAIN dwh.user_key AS bigint CHECK (value < 1000);
CREATE DOMAIN dwh.moment AS timestamp;

SELECT users_key, facts_key, at, t.*
  FROM unnest(ARRAY['smallint', 'integer', 'bigint', 'dwh.user_key']::regtype[]) AS users_key,
	   unnest(ARRAY['smallint', 'integer', 'bigint']::regtype[]) AS facts_key,
	   unnest(ARRAY['date', 'timestamp', 'timestamptz', 'dwh.moment']::regtype[]) AS at,
	   try_types(users_key, facts_key, at) AS t
 ORDER BY users_key, facts_key, at;

--
-- Kinds of relations.
--
CREATE TABLE dwh.partitioned_facts (LIKE dwh.facts) PARTITION BY RANGE (action_at);
CREATE TABLE dwh.partitioned_facts_other PARTITION OF dwh.partitioned_facts DEFAULT;
DO $$
BEGIN
	FOR age IN 0 .. 100 BY 10 LOOP
		EXECUTE format('CREATE TABLE dwh.partitioned_facts_%s PARTITION OF dwh.partitioned_facts
						FOR VALUES FROM (%L) TO (%L)',
					   age, CURRENT_DATE - age, CURRENT_DATE - age + 10);
	END LOOP;
END;
$$;
INSERT INTO dwh.partitioned_facts SELECT * FROM dwh.facts;
SET datamart_users.facts_table = 'dwh.partitioned_facts';
SELECT count(*) FROM datamart_users_queue();
SELECT * FROM differences;

CREATE MATERIALIZED VIEW dwh.materialized_facts AS SELECT * FROM dwh.facts;
SET datamart_users.facts_table = 'dwh.materialized_facts';
SELECT count(*) FROM datamart_users_queue();
SELECT * FROM differences;

-- A view that gives other columns the names, and adds a row without a key.
CREATE TABLE dwh.accounts (id bigint, dirty boolean);
INSERT INTO dwh.accounts
SELECT dimension_user_id, modified FROM dwh.dimension_users
UNION ALL
SELECT NULL, true;
CREATE VIEW dwh.account_users AS SELECT id AS dimension_user_id, dirty AS modified FROM dwh.accounts;
SET datamart_users.users_table = 'dwh.account_users';
SELECT count(*) FROM datamart_users_queue();
SELECT * FROM differences WHERE expected->>'dimension_user_id' IS NOT NULL;
RESET datamart_users.users_table;
RESET datamart_users.facts_table;

--
-- Local times that do not exist, or exist twice, where the clocks change:
-- what counts is the value in the table.
--
BEGIN;
SET LOCAL TimeZone = 'America/New_York';
CREATE TABLE dwh.local_users AS
SELECT i AS dimension_user_id, true AS modified FROM generate_series(1, 4) AS i;
CREATE TABLE dwh.local_facts (action_dimension_id_user, action_at) AS
VALUES (1, timestamp '2021-03-14 02:30'), (2, '2021-03-14 03:10'),
	   (3, '2021-11-07 01:50'), (4, '2021-11-07 02:10');
SET LOCAL datamart_users.users_table = 'dwh.local_users';
SET LOCAL datamart_users.facts_table = 'dwh.local_facts';
SELECT dimension_user_id, action_at AS last_action
  FROM datamart_users_queue()
  JOIN dwh.local_facts ON action_dimension_id_user = dimension_user_id
 ORDER BY queue_position;
ROLLBACK;

--
-- The text to EXPLAIN is the query that runs: with the ids held by back-off,
-- with limit and boundaries.
--
CREATE FUNCTION text_differences(max_users integer) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[];
BEGIN
	EXECUTE format('SELECT array_agg(dimension_user_id) FROM (%s) AS q',
				   datamart_users_priority_query(max_users)) INTO ids;
	RETURN (SELECT count(*)
			  FROM unnest(ids) WITH ORDINALITY AS t (dimension_user_id, queue_position)
			  FULL JOIN datamart_users_queue(max_users) AS q USING (queue_position)
			 WHERE t.dimension_user_id IS DISTINCT FROM q.dimension_user_id);
END;
$$;
SELECT text_differences(NULL), text_differences(7);
SET datamart_users.max_users_per_cycle = 3;
SET datamart_users.recency_days = '1, 9, 10';
SELECT text_differences(NULL), text_differences(7);
RESET datamart_users.max_users_per_cycle;
RESET datamart_users.recency_days;
DO $$
DECLARE
	line text;
BEGIN
	EXECUTE 'EXPLAIN ' || datamart_users_priority_query() INTO line;
	RAISE INFO '%', substring(line FROM '^ *\w+');
END;
$$;

--
-- What queue() shows is what a cycle takes: with one worker, in that order.
--
CREATE TABLE shown (LIKE dwh.refreshes INCLUDING IDENTITY);
CREATE VIEW taken_otherwise AS
SELECT s.dimension_user_id AS shown, r.dimension_user_id AS taken
  FROM (SELECT row_number() OVER (ORDER BY refresh_id) AS n, dimension_user_id FROM shown) AS s
  FULL JOIN (SELECT row_number() OVER (ORDER BY refresh_id) AS n, dimension_user_id
			   FROM dwh.refreshes) AS r USING (n)
 WHERE s.dimension_user_id IS DISTINCT FROM r.dimension_user_id;

INSERT INTO shown (dimension_user_id)
SELECT dimension_user_id FROM datamart_users_queue(1) ORDER BY queue_position;
SELECT status, backlog, found, processed FROM datamart_users_run_cycle(1);
SELECT * FROM taken_otherwise;
INSERT INTO shown (dimension_user_id)
SELECT dimension_user_id FROM datamart_users_queue(11) ORDER BY queue_position;
SELECT status, backlog, found, processed FROM datamart_users_run_cycle(11);
SELECT * FROM taken_otherwise;

-- Objects of the caller that would turn the order upside down.
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.never(timestamptz, date) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR hostile.>= (FUNCTION = hostile.never, LEFTARG = timestamptz, RIGHTARG = date);
CREATE FUNCTION hostile.never(integer, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR hostile.= (FUNCTION = hostile.never, LEFTARG = integer, RIGHTARG = bigint);
CREATE AGGREGATE hostile.max (timestamptz) (SFUNC = pg_catalog.timestamptz_smaller, STYPE = timestamptz);
INSERT INTO shown (dimension_user_id)
SELECT dimension_user_id FROM datamart_users_queue() ORDER BY queue_position;
SET search_path = hostile, pg_catalog, public;
SELECT status, backlog, found, processed FROM datamart_users_run_cycle();
RESET search_path;
SELECT * FROM taken_otherwise;

-- Only those held, not modified or of unknown state are left.
SELECT label, modified
  FROM dwh.dimension_users
 WHERE modified IS DISTINCT FROM false OR label = 'not modified'
 ORDER BY label COLLATE "C";
SELECT count(*) FROM datamart_users_queue();

--
-- The warehouse of the fixtures.
--
DROP SCHEMA dwh CASCADE;
DROP TABLE shown CASCADE;
\set warehouse :srcdir '/fixtures/warehouse.sql'
\set users 80
\set facts 3000
\i :warehouse
SELECT count(*), count(DISTINCT priority) AS priorities FROM datamart_users_queue();
SELECT * FROM differences;
SELECT text_differences(NULL), text_differences(20);

DROP VIEW differences;
DROP FUNCTION expected_queue(), text_differences(integer), try_types(regtype, regtype, regtype);
DROP SCHEMA dwh, hostile CASCADE;
DROP EXTENSION datamart_users;
