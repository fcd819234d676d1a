--
-- What the history says of the present: was the last cycle as usual, are days
-- and weeks, and when is the backlog drained.
--
CREATE VIEW @extschema@.datamart_users_cycle_comparison AS
	SELECT c.cycle_id, c.users_table, s.measure, s.unit,
		   round(s.value::numeric, s.digits) AS value, s.cycles,
		   round(s.quartiles[2]::numeric, s.digits) AS median,
		   round(s.low::numeric, s.digits) AS low,
		   round(s.high::numeric, s.digits) AS high,
		   s.cycles >= 10
		   AND (s.value < s.low OR s.value > s.high)
		   AND abs(s.value - s.quartiles[2]) >= s.least
		   AND (s.value >= 2 * s.quartiles[2] OR 2 * s.value <= s.quartiles[2]) AS unusual
	  FROM @extschema@.datamart_users_cycles c
	 CROSS JOIN LATERAL (
		SELECT f.*,
			   CASE f.unit WHEN 'seconds' THEN 3 ELSE 1 END AS digits,
			   CASE WHEN f.cycles > 0 THEN
					greatest(f.quartiles[1] - 3 * (f.quartiles[3] - f.quartiles[1]), 0)
			   END AS low,
			   f.quartiles[3] + 3 * (f.quartiles[3] - f.quartiles[1]) AS high
		  FROM (
			SELECT m.position, m.measure, m.unit, m.least,
				   max(m.value) FILTER (WHERE NOT e.earlier) AS value,
				   count(m.value) FILTER (WHERE e.earlier) AS cycles,
				   percentile_cont('{0.25,0.5,0.75}'::double precision[])
					   WITHIN GROUP (ORDER BY m.value) FILTER (WHERE e.earlier) AS quartiles
			  FROM (
				(SELECT true AS earlier, p.cycle_id, p.elapsed, p.backlog, p.found,
						p.processed, p.failed, p.deferred, p.prioritisation_time
				   FROM @extschema@.datamart_users_cycles p
				  WHERE p.users_oid = c.users_oid AND p.cycle_id < c.cycle_id
					AND p.status IN ('completed', 'time_limit')
				  ORDER BY p.cycle_id DESC
				  LIMIT 30)
				UNION ALL
				SELECT false, c.cycle_id,
					   CASE WHEN c.status IN ('completed', 'time_limit') THEN c.elapsed END,
					   c.backlog, c.found, c.processed, c.failed, c.deferred,
					   c.prioritisation_time) AS e
			  LEFT JOIN @extschema@.datamart_users_cycle_profiles p USING (cycle_id)
			 CROSS JOIN LATERAL (VALUES
				(1, 'failed', 'datamart users', 5::double precision, e.failed::double precision),
				(2, 'deferred', 'datamart users', 5, e.deferred),
				(3, 'duration', 'seconds', 5, extract(epoch FROM e.elapsed)),
				(4, 'processed a minute', 'datamart users', 10,
				 e.processed * 60 / nullif(extract(epoch FROM e.elapsed), 0)),
				(5, 'backlog', 'datamart users', 100, e.backlog),
				(6, 'found', 'datamart users', 100, e.found),
				(7, 'median refresh', 'seconds', 0.01, extract(epoch FROM p.p50)),
				(8, '95 % refresh', 'seconds', 0.01, extract(epoch FROM p.p95)),
				(9, 'prioritisation', 'seconds', 1, extract(epoch FROM e.prioritisation_time))
			 ) AS m (position, measure, unit, least, value)
			 GROUP BY m.position, m.measure, m.unit, m.least) AS f
		 ORDER BY f.position) AS s
	 WHERE c.status <> 'running';

COMMENT ON VIEW @extschema@.datamart_users_cycle_comparison IS 'Each ended cycle beside the thirty of its datamart before it; ask for one cycle_id';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_comparison.value IS 'of this cycle; NULL = not known';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_comparison.cycles IS 'earlier cycles that it is compared with, thirty at the most';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_comparison.median IS 'of those';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_comparison.low IS 'lower bound of the usual: three quartile distances below the lower quartile, or nought';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_comparison.high IS 'upper bound of the usual, likewise';
COMMENT ON COLUMN @extschema@.datamart_users_cycle_comparison.unusual IS 'beyond low or high, double or half of the median, and by more than a trifle; needs ten cycles';

CREATE VIEW @extschema@.datamart_users_periods AS
	SELECT m.users_table, m.period, m.period_start, m.cycles, m.found, m.processed,
		   m.failed, m.deferred, m.success_rate, m.users_per_minute,
		   m.users_per_minute_working, m.p50, m.p95, m.p99,
		   c.cycle_p50, c.cycle_p95,
		   -- The history may have begun in the midst of the first one.
		   CASE WHEN row_number() OVER earlier > 2 THEN
				round(100.0 * (m.users_per_minute - lag(m.users_per_minute) OVER earlier)
					  / nullif(lag(m.users_per_minute) OVER earlier, 0), 1)
		   END AS processed_change,
		   round((100 * (extract(epoch FROM m.p95) - extract(epoch FROM lag(m.p95) OVER earlier))
				 / nullif(extract(epoch FROM lag(m.p95) OVER earlier), 0))::numeric, 1) AS p95_change,
		   m.failed - lag(m.failed) OVER earlier AS failed_change
	  FROM @extschema@.datamart_users_metrics m
	  LEFT JOIN (
		SELECT c.users_table, p.period, p.period_start,
			   percentile_cont(0.5) WITHIN GROUP (ORDER BY c.elapsed) AS cycle_p50,
			   percentile_cont(0.95) WITHIN GROUP (ORDER BY c.elapsed) AS cycle_p95
		  FROM @extschema@.datamart_users_cycles c
		 CROSS JOIN LATERAL (
			VALUES ('day', date_trunc('day', c.started_at)),
				   ('week', date_trunc('week', c.started_at))) AS p (period, period_start)
		 WHERE c.status IN ('completed', 'time_limit')
		 GROUP BY c.users_table, p.period, p.period_start) AS c
		 ON c.users_table = m.users_table AND c.period = m.period
		AND c.period_start = m.period_start
	 WHERE m.priority IS NULL AND m.period IN ('day', 'week')
	WINDOW earlier AS (PARTITION BY m.users_table, m.period ORDER BY m.period_start);

COMMENT ON VIEW @extschema@.datamart_users_periods IS 'Days and weeks of the history, each beside the one before it in which there were cycles';
COMMENT ON COLUMN @extschema@.datamart_users_periods.p50 IS 'time that half of the refreshes did not exceed';
COMMENT ON COLUMN @extschema@.datamart_users_periods.cycle_p50 IS 'median duration of the cycles that came to their end';
COMMENT ON COLUMN @extschema@.datamart_users_periods.processed_change IS 'percent more (or fewer) processed a minute than in the period before; NULL for the first two';
COMMENT ON COLUMN @extschema@.datamart_users_periods.p95_change IS 'percent that p95 is higher than in the period before';
COMMENT ON COLUMN @extschema@.datamart_users_periods.failed_change IS 'how many more failed than in the period before';

CREATE VIEW @extschema@.datamart_users_drain AS
	WITH ended AS (
		-- A cycle looks at the backlog when it begins.  Where it was not the
		-- limit that kept the queue short, and it has come to its end, there
		-- was nobody left that it could have taken.
		SELECT c.users_table, c.cycle_id, c.started_at, c.backlog,
			   coalesce(c.processed, 0) + coalesce(c.skipped, 0) AS cleared,
			   c.processed + c.skipped + c.failed + c.deferred >= c.found
			   AND (c.found < c.max_users OR c.found = c.backlog) AS drained
		  FROM @extschema@.datamart_users_cycles c
		 WHERE c.backlog IS NOT NULL
	), looks AS (
		-- What it has cleared, and what is there at the next look, give what
		-- has come.
		SELECT e.*,
			   lead(e.cycle_id) OVER later IS NULL AS is_last,
			   lag(e.started_at) OVER later AS looked_before,
			   e.backlog - lag(e.backlog) OVER later + lag(e.cleared) OVER later AS came,
			   lag(e.cleared) OVER later AS went
		  FROM ended e
		WINDOW later AS (PARTITION BY e.users_table ORDER BY e.cycle_id)
	), failing AS (
		SELECT t.users_table, count(*) AS users
		  FROM (SELECT f.users_table, f.users_oid, f.dimension_user_id
				  FROM @extschema@.datamart_users_failures f
				 UNION
				SELECT c.users_table, c.users_oid, c.dimension_user_id
				  FROM @extschema@.datamart_users_contention c) AS t
		  LEFT JOIN @extschema@.datamart_users_parked p USING (users_oid, dimension_user_id)
		 WHERE p.dimension_user_id IS NULL
		 GROUP BY t.users_table
	), flow AS (
		-- Where fewer are there than came, somebody else has cleared flags.
		SELECT l.users_table, period.period, period.position,
			   count(s.came) AS looks,
			   max(l.started_at) AS looked_at,
			   greatest(max(l.backlog - l.cleared), 0) AS backlog,
			   bool_or(l.drained) AS drained,
			   bool_or(l.went > l.came) AS shrinks,
			   max(s.started_at) FILTER (WHERE s.drained) AS drained_at,
			   coalesce(sum(greatest(s.came, 0)), 0)::bigint AS inflow,
			   coalesce(sum(s.went - least(s.came, 0)), 0)::bigint AS outflow,
			   sum(s.started_at - s.looked_before) AS time
		  FROM looks l
		 CROSS JOIN (VALUES (1, 'hour'), (2, 'day'), (3, 'week')) AS period (position, period)
		  LEFT JOIN looks s
			ON s.users_table = l.users_table AND s.came IS NOT NULL
		   AND s.started_at > now() - ('1 ' || period.period)::interval
		 WHERE l.is_last
		 GROUP BY l.users_table, period.period, period.position
	), rest AS (
		SELECT f.*,
			   CASE WHEN f.drained THEN f.backlog
					ELSE least(coalesce(failing.users, 0), f.backlog) END AS failing
		  FROM flow f
		  LEFT JOIN failing USING (users_table)
	)
	SELECT f.users_table, f.period, f.looks, f.looked_at, f.backlog, f.failing,
		   f.inflow, f.outflow, f.outflow - f.inflow AS difference,
		   round((f.inflow * 3600 / nullif(extract(epoch FROM f.time), 0))::numeric, 1) AS inflow_per_hour,
		   round((f.outflow * 3600 / nullif(extract(epoch FROM f.time), 0))::numeric, 1) AS outflow_per_hour,
		   f.drained_at,
		   e.drained_in,
		   CASE WHEN f.backlog = 0 THEN 'drained'
				WHEN f.backlog = f.failing THEN 'drained, but for ' || f.failing || ' failing'
				WHEN f.looks = 0 THEN 'unknown: fewer than two cycles'
				WHEN f.drained_at IS NOT NULL AND f.shrinks THEN 'comes and goes, last drained ' || span.words || ' ago'
				WHEN e.drained_in IS NULL THEN 'never at this rate'
				ELSE 'in ' || span.words
		   END AS estimate
	  FROM rest f
	 CROSS JOIN LATERAL (
		-- What was drained meanwhile, and becomes smaller again, has come in
		-- bursts: what is left of them is no rate.
		SELECT CASE WHEN f.backlog = f.failing THEN 0
					WHEN (f.drained_at IS NULL OR NOT f.shrinks) AND f.outflow > f.inflow THEN
						 round((f.backlog - f.failing) * extract(epoch FROM f.time) / (f.outflow - f.inflow))
			   END AS seconds) AS s
	 CROSS JOIN LATERAL (
		-- What takes more than ten years is not going to happen.
		SELECT CASE WHEN s.seconds < 315360000 THEN justify_hours(make_interval(secs => s.seconds::double precision))
			   END AS drained_in) AS e
	 CROSS JOIN LATERAL (
		SELECT CASE WHEN i.seconds < 60 THEN 'less than a minute'
					WHEN i.seconds < 7200 THEN 'about ' || round(i.seconds / 60) || ' min'
					WHEN i.seconds < 172800 THEN 'about ' || round(i.seconds / 3600) || ' hours'
					ELSE 'about ' || round(i.seconds / 86400) || ' days'
			   END AS words
		  FROM (SELECT CASE WHEN f.drained_at IS NOT NULL AND f.shrinks THEN extract(epoch FROM now() - f.drained_at)
							ELSE extract(epoch FROM e.drained_in) END AS seconds) AS i) AS span
	 ORDER BY f.users_table, f.position;

COMMENT ON VIEW @extschema@.datamart_users_drain IS 'What was flagged and what was cleared in the last hour, day and week, and when the backlog is drained';
COMMENT ON COLUMN @extschema@.datamart_users_drain.period IS 'hour, day or week until now';
COMMENT ON COLUMN @extschema@.datamart_users_drain.looks IS 'cycles in it that could be compared with the one before';
COMMENT ON COLUMN @extschema@.datamart_users_drain.looked_at IS 'when the last cycle looked at the backlog; what was flagged since is not known';
COMMENT ON COLUMN @extschema@.datamart_users_drain.backlog IS 'what it found, without what it has cleared';
COMMENT ON COLUMN @extschema@.datamart_users_drain.failing IS 'how many of those failed or collided the last time; the estimate is of the others';
COMMENT ON COLUMN @extschema@.datamart_users_drain.inflow IS 'datamart users newly flagged between two looks; flagged again while flagged counts as none';
COMMENT ON COLUMN @extschema@.datamart_users_drain.outflow IS 'datamart users whose flag was cleared, by cycles or by others';
COMMENT ON COLUMN @extschema@.datamart_users_drain.difference IS 'outflow without inflow: by how many the backlog became smaller';
COMMENT ON COLUMN @extschema@.datamart_users_drain.drained_at IS 'start of the last cycle in the period that left nobody whom it could have taken; NULL = none';
COMMENT ON COLUMN @extschema@.datamart_users_drain.drained_in IS 'when the backlog is drained if it goes on like that; NULL = never, or not known';
COMMENT ON COLUMN @extschema@.datamart_users_drain.estimate IS 'the same in words';
