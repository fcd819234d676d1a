--
-- The report: one cycle on one screen.  This script is plain ASCII, because a
-- database may have any encoding.  What is not ASCII in the report is chr() of
-- what no planner can compute in advance: most encodings have no such character.
--
CREATE FUNCTION @extschema@.datamart_users_report_duration(duration interval)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT pg_catalog.replace(
				CASE WHEN s < 0.00095 THEN pg_catalog.concat(pg_catalog.round(s * 1000000), ' us')
					 WHEN s < 0.00995 THEN pg_catalog.concat(pg_catalog.round(s * 1000, 1), ' ms')
					 WHEN s < 0.9995 THEN pg_catalog.concat(pg_catalog.round(s * 1000), ' ms')
					 WHEN s < 59.95 THEN pg_catalog.concat(pg_catalog.round(s, 1), ' s')
					 WHEN s < 3599.5 THEN pg_catalog.concat(pg_catalog.div(pg_catalog.round(s), 60), ' min', ' ' || nullif(pg_catalog.round(s) % 60, 0) || ' s')
					 WHEN s >= 3599.5 THEN pg_catalog.concat(pg_catalog.div(pg_catalog.round(s / 60), 60), ' h', ' ' || nullif(pg_catalog.round(s / 60) % 60, 0) || ' min')
				END, '.0 ', ' ')
	  FROM (SELECT extract(epoch FROM $1) AS s) AS seconds;
END;

COMMENT ON FUNCTION @extschema@.datamart_users_report_duration(interval) IS 'part of datamart_users_report()';

CREATE FUNCTION @extschema@.datamart_users_report_number(number bigint)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
RETURN coalesce(pg_catalog.to_char($1, 'FM999,999,999,999,990'), '-');

COMMENT ON FUNCTION @extschema@.datamart_users_report_number(bigint) IS 'part of datamart_users_report()';

-- A bar of which "part" is filled in, of "width" characters where whole = most.
CREATE FUNCTION @extschema@.datamart_users_report_bar(part numeric, whole numeric, most numeric, width integer, blocks boolean)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT pg_catalog.concat(
				pg_catalog.repeat(pg_catalog.chr(CASE WHEN $5 THEN 9608 ELSE pg_catalog.ascii('#') END), n.filled),
				pg_catalog.repeat(pg_catalog.chr(CASE WHEN $5 THEN 9617 ELSE pg_catalog.ascii('.') END), n.length - n.filled))
	  FROM (SELECT l.length,
				   CASE WHEN $1 >= $2 THEN l.length
						WHEN l.length = 1 THEN pg_catalog.round($1 / $2)::integer
						ELSE least(pg_catalog.ceil(l.length * $1 / nullif($2, 0))::integer, l.length - 1) END AS filled
			  FROM (SELECT pg_catalog.ceil($4 * $2 / nullif($3, 0))::integer AS length) AS l) AS n;
END;

COMMENT ON FUNCTION @extschema@.datamart_users_report_bar(numeric, numeric, numeric, integer, boolean) IS 'part of datamart_users_report()';

-- One character for each value, higher for more; a blank for nothing at all.
CREATE FUNCTION @extschema@.datamart_users_report_sparkline(samples integer[], blocks boolean)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT pg_catalog.string_agg(
				CASE WHEN s.value = 0 THEN ' '
					 WHEN $2 THEN pg_catalog.chr(9600 + l.level)
					 ELSE pg_catalog.substr('.:-=+*#@', l.level, 1) END, '' ORDER BY s.position)
	  FROM pg_catalog.unnest($1) WITH ORDINALITY AS s (value, position)
	 CROSS JOIN LATERAL (
			SELECT pg_catalog.ceil(8.0 * s.value / m.most)::integer AS level
			  FROM (SELECT pg_catalog.max(v.value) AS most FROM pg_catalog.unnest($1) AS v (value)) AS m
			 WHERE m.most > 0) AS l;
END;

COMMENT ON FUNCTION @extschema@.datamart_users_report_sparkline(integer[], boolean) IS 'part of datamart_users_report()';

-- The histogram, in at most seven lines: with the finest of three scales for
-- which that is enough.
CREATE FUNCTION @extschema@.datamart_users_report_histogram(upto interval[], counts bigint[], blocks boolean)
RETURNS SETOF text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	scale text;
	bounds interval[];
	first integer;
	last integer;
	sums bigint[];
BEGIN
	FOREACH scale IN ARRAY ARRAY[
		'{10us,20us,50us,100us,200us,500us,1ms,2ms,5ms,10ms,20ms,50ms,100ms,200ms,500ms,1s,2s,5s,10s,20s,30s,1min,2min,5min,10min,20min,30min,1h,2h,5h,10h,20h,50h}',
		'{10us,30us,100us,300us,1ms,3ms,10ms,30ms,100ms,300ms,1s,3s,10s,30s,1min,5min,15min,1h,5h,50h}',
		'{100us,1ms,10ms,100ms,1s,10s,1min,10min,1h,50h}']
	LOOP
		bounds := scale;
		first := (SELECT min(b.position) FROM unnest(bounds) WITH ORDINALITY AS b (bound, position)
				   WHERE b.bound >= upto[1]);
		last := (SELECT min(b.position) FROM unnest(bounds) WITH ORDINALITY AS b (bound, position)
				  WHERE b.bound >= upto[cardinality(upto)]);
		EXIT WHEN last - first < 7;
	END LOOP;
	-- If even that is too much, what is fastest goes together.
	first := greatest(first, last - 6);

	sums := ARRAY(SELECT coalesce(sum(h.count), 0)
					FROM generate_series(first, last) AS i
					LEFT JOIN unnest(upto, counts) AS h (upto, count)
						   ON h.upto <= bounds[i] AND (i = first OR h.upto > bounds[i - 1])
				   GROUP BY i ORDER BY i);
	RETURN QUERY
		SELECT rtrim(format('  %s %s%s  %s', chr(CASE WHEN blocks THEN 8804 ELSE ascii('<') END) || CASE WHEN blocks THEN '' ELSE '=' END,
							rpad(@extschema@.datamart_users_report_duration(bounds[first + s.position::integer - 1]), 7),
							lpad(@extschema@.datamart_users_report_number(s.count), CASE WHEN blocks THEN 11 ELSE 10 END),
							@extschema@.datamart_users_report_bar(s.count, s.count, m.most, 54, blocks)))
		  FROM unnest(sums) WITH ORDINALITY AS s (count, position)
		 CROSS JOIN (SELECT max(v) AS most FROM unnest(sums) AS v) AS m
		 ORDER BY s.position;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_report_histogram(interval[], bigint[], boolean) IS 'part of datamart_users_report()';

-- A text of somebody else on one line.
CREATE FUNCTION @extschema@.datamart_users_report_line(line text, width integer, blocks boolean)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT CASE WHEN pg_catalog.length(t.plain) <= $2 THEN t.plain
				ELSE pg_catalog.concat(pg_catalog."left"(t.plain, $2 - 3), '...') END
	  FROM (SELECT pg_catalog.regexp_replace(
						pg_catalog.regexp_replace($1, '[[:space:][:cntrl:]]+', ' ', 'g'),
						CASE WHEN $3 THEN '$^' ELSE '[^ -~]' END, '?', 'g') AS plain) AS t;
END;

COMMENT ON FUNCTION @extschema@.datamart_users_report_line(text, integer, boolean) IS 'part of datamart_users_report()';

-- The cycle as its history has it, or as it stands if it is running; lives is
-- false if nobody knows how it stands.
CREATE FUNCTION @extschema@.datamart_users_report_cycle(
	cycle_id bigint,
	OUT cycle @extschema@.datamart_users_cycles,
	OUT lives boolean,
	OUT phase text,
	OUT done integer,
	OUT time_left interval)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	progress record;
BEGIN
	-- Progress first: a cycle that ends in between has its history row then.
	-- One that begins in between is seen at the second look.
	FOR look IN 1 .. 2 LOOP
		SELECT * INTO progress FROM @extschema@.datamart_users_progress p
		 WHERE p.cycle_id = $1;
		SELECT * INTO cycle FROM @extschema@.datamart_users_cycles c
		 WHERE c.cycle_id = $1;
		EXIT WHEN cycle.status <> 'running' OR progress.cycle_id IS NOT NULL;
		PERFORM pg_sleep(0.1);
	END LOOP;
	lives := cycle.status = 'running' AND progress.cycle_id IS NOT NULL;
	IF lives THEN
		phase := progress.phase;
		done := progress.done;
		time_left := progress.time_left;
		cycle.backlog := progress.backlog;
		cycle.found := progress.found;
		cycle.processed := progress.processed;
		cycle.failed := progress.failed;
		cycle.skipped := progress.skipped;
		cycle.deferred := progress.deferred;
		cycle.workers := progress.workers;
	END IF;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_report_cycle(bigint) IS 'part of datamart_users_report()';

-- What was asked, and what came of it.
CREATE FUNCTION @extschema@.datamart_users_report_head(cycle_id bigint, blocks boolean)
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	state record;
	cycle @extschema@.datamart_users_cycles;
	rates record;
	waiting bigint;
	held bigint;
BEGIN
	SELECT * INTO state FROM @extschema@.datamart_users_report_cycle($1);
	cycle := state.cycle;
	waiting := cycle.backlog - coalesce(cycle.processed, 0) - coalesce(cycle.skipped, 0);
	SELECT count(*) INTO held
	  FROM @extschema@.datamart_users_failures f
	 WHERE f.next_attempt_at > clock_timestamp();

	RETURN NEXT format('Cycle %s: %s', $1,
		CASE WHEN state.lives
			 THEN format('%s since %s', state.phase,
						 @extschema@.datamart_users_report_duration(clock_timestamp() - cycle.started_at))
			 WHEN cycle.status = 'running'
			 THEN 'left running when it died, the next cycle will mark it as aborted'
			 WHEN cycle.status = 'aborted' THEN 'aborted'
			 ELSE format('%s after %s',
						 CASE cycle.status WHEN 'time_limit' THEN 'stopped at its time limit' ELSE cycle.status END,
						 @extschema@.datamart_users_report_duration(cycle.finished_at - cycle.started_at))
		END);
	IF cycle.message IS NOT NULL THEN
		RETURN NEXT '  ' || @extschema@.datamart_users_report_line(cycle.message, 78, blocks);
	END IF;
	RETURN NEXT format('  started %s by %s', to_char(cycle.started_at, 'YYYY-MM-DD HH24:MI:SSOF'),
					   @extschema@.datamart_users_report_line(cycle.role_name, 40, blocks));
	RETURN NEXT '  asked for ' || concat_ws(', ',
		'up to ' || to_char(cycle.max_users, 'FM999,999,990') || ' datamart users',
		CASE cycle.workers_requested WHEN 1 THEN '1 worker' ELSE cycle.workers_requested || ' workers' END
			|| CASE WHEN cycle.workers < cycle.workers_requested AND cycle.workers < cycle.found
					THEN format(' (got %s)', cycle.workers) ELSE '' END,
		'at most ' || @extschema@.datamart_users_report_duration(cycle.time_limit));

	RETURN NEXT '';
	IF state.lives AND cycle.found > 0 THEN
		RETURN NEXT format('  [%s] %s %%%s',
			rpad(@extschema@.datamart_users_report_bar(state.done, cycle.found, cycle.found, 46, blocks), 46),
			100 * state.done::bigint / cycle.found,
			', about ' || @extschema@.datamart_users_report_duration(state.time_left) || ' left');
		RETURN NEXT '';
	END IF;
	RETURN NEXT '    backlog      found  processed     failed    skipped   deferred';
	RETURN NEXT (
		SELECT string_agg(lpad(@extschema@.datamart_users_report_number(v.figure), 11), '' ORDER BY v.position)
		  FROM unnest(ARRAY[cycle.backlog, cycle.found, cycle.processed, cycle.failed,
							cycle.skipped, cycle.deferred]) WITH ORDINALITY AS v (figure, position));

	SELECT m.users_per_minute, m.success_rate INTO rates
	  FROM @extschema@.datamart_users_metrics m
	 WHERE m.period = 'cycle' AND m.cycle_id = $1 AND m.priority IS NULL;
	IF cycle.found > 0 AND NOT state.lives THEN
		RETURN NEXT '  ' || concat_ws(', ',
			to_char(rates.users_per_minute, 'FM999,999,990') || ' processed a minute',
			rates.success_rate || ' % succeeded',
			'queue filled in ' || @extschema@.datamart_users_report_duration(cycle.prioritisation_time));
	END IF;
	IF waiting >= 0 THEN
		RETURN NEXT format('  %s of the backlog still wait; held by back-off now: %s',
						   @extschema@.datamart_users_report_number(waiting),
						   @extschema@.datamart_users_report_number(held));
	END IF;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_report_head(bigint, boolean) IS 'part of datamart_users_report()';

-- How the work was spread: over priorities, refresh times, and the cycle.
CREATE FUNCTION @extschema@.datamart_users_report_profile(cycle_id bigint, blocks boolean)
RETURNS SETOF text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	lines text[];
	profile record;
BEGIN
	lines := ARRAY(
		SELECT rtrim(format('  %s%s%s%s%s%s  %s', rpad(p.priority, 10),
							lpad(@extschema@.datamart_users_report_number(p.found), 11),
							lpad(@extschema@.datamart_users_report_number(p.processed), 11),
							lpad(@extschema@.datamart_users_report_number(p.failed), 9),
							lpad(coalesce(@extschema@.datamart_users_report_duration(
								p.total_time / nullif(p.processed + p.failed + p.skipped + p.deferred, 0)), '-'), 11),
							lpad(@extschema@.datamart_users_report_duration(p.max_time), 12),
							@extschema@.datamart_users_report_bar(p.processed, p.found, max(p.found) OVER (), 12, blocks)))
		  FROM @extschema@.datamart_users_cycle_priorities p
		 WHERE p.cycle_id = $1
		 ORDER BY array_position('{critical,high,medium,historical,low,lowest}', p.priority));
	IF lines <> '{}' THEN
		RETURN NEXT '';
		RETURN NEXT 'By priority       found  processed   failed    average     longest';
		RETURN QUERY SELECT l FROM unnest(lines) AS l;
	END IF;

	SELECT * INTO profile FROM @extschema@.datamart_users_cycle_profiles p WHERE p.cycle_id = $1;
	IF cardinality(profile.bucket_upto) > 0 THEN
		RETURN NEXT '';
		RETURN NEXT format('Refresh times: half within %s, 95 %% within %s, 99 %% within %s',
						   @extschema@.datamart_users_report_duration(profile.p50),
						   @extschema@.datamart_users_report_duration(profile.p95),
						   @extschema@.datamart_users_report_duration(profile.p99));
		RETURN QUERY SELECT * FROM @extschema@.datamart_users_report_histogram(profile.bucket_upto, profile.bucket_count, blocks);
	END IF;

	-- Less than that is no picture.
	IF cardinality(profile.samples) >= 3 THEN
		RETURN NEXT '';
		RETURN NEXT format('Datamart users per second over the cycle, a column is %s, the highest %s',
						   @extschema@.datamart_users_report_duration(profile.sample_width),
						   (SELECT trim_scale(round(max(s) / extract(epoch FROM profile.sample_width), 1)) FROM unnest(profile.samples) AS s));
		RETURN NEXT rtrim('  ' || @extschema@.datamart_users_report_sparkline(profile.samples, blocks));
	END IF;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_report_profile(bigint, boolean) IS 'part of datamart_users_report()';

-- What needs a second look: failures, and the slowest.
CREATE FUNCTION @extschema@.datamart_users_report_tail(cycle_id bigint, blocks boolean)
RETURNS SETOF text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	lines text[];
BEGIN
	lines := ARRAY(
		SELECT format('  %s%s  %s', f.sqlstate, lpad(@extschema@.datamart_users_report_number(f.number), 9),
					  @extschema@.datamart_users_report_line(f.message, 62, blocks))
		  FROM (SELECT f.sqlstate, count(*) AS number, min(f.message) AS message
				  FROM @extschema@.datamart_users_failures f
				 WHERE f.cycle_id = $1
				 GROUP BY f.sqlstate) AS f
		 ORDER BY f.number DESC, f.sqlstate);
	IF cardinality(lines) > 3 THEN
		lines := lines[:2] || format('  and %s other SQLSTATEs', cardinality(lines) - 2);
	END IF;
	IF lines <> '{}' THEN
		RETURN NEXT '';
		RETURN NEXT 'Failures that are still to be overcome, with a message of each kind';
		RETURN QUERY SELECT l FROM unnest(lines) AS l;
	END IF;

	lines := ARRAY(
		SELECT format('  %s  %s%s  %s', lpad(s.dimension_user_id::text, 12), rpad(s.priority, 10),
					  lpad(@extschema@.datamart_users_report_duration(s.elapsed), 12), s.outcome)
		  FROM @extschema@.datamart_users_slowest s
		 WHERE s.cycle_id = $1
		 ORDER BY s.position
		 LIMIT 3);
	IF lines <> '{}' THEN
		RETURN NEXT '';
		RETURN NEXT 'The slowest datamart users';
		RETURN QUERY SELECT l FROM unnest(lines) AS l;
	END IF;
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_report_tail(bigint, boolean) IS 'part of datamart_users_report()';

CREATE FUNCTION @extschema@.datamart_users_report(cycle_id bigint DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- chr() beyond ASCII is Unicode in a UTF8 database only.
	blocks boolean := pg_client_encoding() = 'UTF8' AND getdatabaseencoding() = 'UTF8';
	id bigint := coalesce($1, (SELECT max(c.cycle_id) FROM @extschema@.datamart_users_cycles c));
BEGIN
	IF id IS NULL THEN
		RETURN 'There was no cycle yet.';
	ELSIF NOT EXISTS (SELECT FROM @extschema@.datamart_users_cycles c WHERE c.cycle_id = id) THEN
		RAISE EXCEPTION 'cycle % is not in the history', id
			USING ERRCODE = 'invalid_parameter_value',
				  HINT = 'See datamart_users_cycles for those that are, and datamart_users.history_retention for how long.';
	END IF;
	RETURN (
		SELECT string_agg(lines.line, E'\n' ORDER BY lines.part, lines.position)
		  FROM (SELECT 1 AS part, h.* FROM @extschema@.datamart_users_report_head(id, blocks) WITH ORDINALITY AS h (line, position)
				UNION ALL
				SELECT 2, p.* FROM @extschema@.datamart_users_report_profile(id, blocks) WITH ORDINALITY AS p (line, position)
				UNION ALL
				SELECT 3, t.* FROM @extschema@.datamart_users_report_tail(id, blocks) WITH ORDINALITY AS t (line, position)) AS lines);
END;
$$;

COMMENT ON FUNCTION @extschema@.datamart_users_report(bigint) IS 'one cycle on one screen, the latest by default; in ASCII where the encoding has no block characters';

REVOKE ALL ON FUNCTION
	@extschema@.datamart_users_report_duration(interval),
	@extschema@.datamart_users_report_number(bigint),
	@extschema@.datamart_users_report_bar(numeric, numeric, numeric, integer, boolean),
	@extschema@.datamart_users_report_sparkline(integer[], boolean),
	@extschema@.datamart_users_report_histogram(interval[], bigint[], boolean),
	@extschema@.datamart_users_report_line(text, integer, boolean),
	@extschema@.datamart_users_report_cycle(bigint),
	@extschema@.datamart_users_report_head(bigint, boolean),
	@extschema@.datamart_users_report_profile(bigint, boolean),
	@extschema@.datamart_users_report_tail(bigint, boolean),
	@extschema@.datamart_users_report(bigint)
FROM PUBLIC;

-- It runs as the owner, so this is all that its caller needs.
GRANT EXECUTE ON FUNCTION @extschema@.datamart_users_report(bigint) TO pg_monitor;
