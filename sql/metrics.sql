-- Metrics.  Figures of cycles that have ended, by datamart, period and priority.
--
CREATE VIEW @extschema@.datamart_users_metrics AS
	WITH figures AS (
		-- Nobody knows when an aborted cycle ended: finished_at is when that
		-- was noticed.  Its counts are those of counted_at.
		SELECT c.cycle_id, c.users_table, c.started_at,
			   CASE WHEN c.status <> 'aborted' THEN c.elapsed
					ELSE c.counted_at - c.started_at END AS elapsed,
			   NULL::text AS priority, c.found, c.processed, c.failed, c.skipped,
			   c.deferred, t.total_time, t.max_time
		  FROM @extschema@.datamart_users_cycles c
		  LEFT JOIN (SELECT p.cycle_id, sum(p.total_time) AS total_time,
							max(p.max_time) AS max_time
					   FROM @extschema@.datamart_users_cycle_priorities p
					  GROUP BY p.cycle_id) t USING (cycle_id)
		 WHERE c.status <> 'running'
		UNION ALL
		SELECT c.cycle_id, c.users_table, c.started_at,
			   CASE WHEN c.status <> 'aborted' THEN c.elapsed
					ELSE c.counted_at - c.started_at END,
			   p.priority, p.found, p.processed, p.failed, p.skipped,
			   p.deferred, p.total_time, p.max_time
		  FROM @extschema@.datamart_users_cycles c
		  JOIN @extschema@.datamart_users_cycle_priorities p USING (cycle_id)
		 WHERE c.status <> 'running'
	), sums AS (
		SELECT period.period, period.period_start, period.cycle_id,
			   f.users_table, f.priority,
			   count(*) AS cycles,
			   sum(f.found) AS found,
			   sum(f.processed) AS processed,
			   sum(f.failed) AS failed,
			   sum(f.skipped) AS skipped,
			   sum(f.deferred) AS deferred,
			   sum(f.elapsed) AS elapsed,
			   sum(f.total_time) AS total_time,
			   max(f.max_time) AS max_time,
			   min(f.started_at) AS first_start,
			   max(f.started_at + f.elapsed) AS last_end
		  FROM figures f
		 CROSS JOIN LATERAL (
			VALUES ('cycle', f.started_at, f.cycle_id),
				   ('day', date_trunc('day', f.started_at), NULL),
				   ('week', date_trunc('week', f.started_at), NULL),
				   ('all', NULL, NULL)) AS period (period, period_start, cycle_id)
		 GROUP BY period.period, period.period_start, period.cycle_id,
				  f.users_table, f.priority
	), daily AS (
		-- Histograms of all cycles of a day.  Those of a week and of all of the
		-- history are made of these, which are few.
		SELECT date_trunc('day', c.started_at) AS day, c.users_table, p.priority,
			   least(b.upto, p.max_time) AS upto, sum(b.refreshes) AS refreshes
		  FROM @extschema@.datamart_users_cycles c
		  JOIN @extschema@.datamart_users_cycle_priorities p USING (cycle_id)
		 CROSS JOIN LATERAL unnest(p.bucket_upto, p.bucket_count) AS b (upto, refreshes)
		 WHERE c.status <> 'running'
		 GROUP BY date_trunc('day', c.started_at), c.users_table, p.priority,
				  least(b.upto, p.max_time)
	), buckets AS (
		-- An empty name stands for all priorities, and the beginning of time for
		-- all days: so the join below is one by equality, and is left out
		-- where nobody asks for its columns.
		SELECT period.period, period.period_start, d.users_table,
			   whose.priority, d.upto, sum(d.refreshes) AS refreshes
		  FROM daily d
		 CROSS JOIN LATERAL (
			VALUES ('day', d.day),
				   ('week', date_trunc('week', d.day)),
				   ('all', '-infinity')) AS period (period, period_start)
		 CROSS JOIN LATERAL (VALUES (d.priority), ('')) AS whose (priority)
		 GROUP BY period.period, period.period_start, d.users_table,
				  whose.priority, d.upto
	), ranks AS (
		SELECT b.*,
			   sum(b.refreshes) OVER (sorted) AS seen,
			   sum(b.refreshes) OVER (PARTITION BY b.period, b.period_start, b.users_table, b.priority) AS total
		  FROM buckets b
		WINDOW sorted AS (PARTITION BY b.period, b.period_start, b.users_table, b.priority ORDER BY b.upto)
	), percentiles AS (
		SELECT r.period, r.period_start, r.users_table, r.priority,
			   min(r.upto) FILTER (WHERE r.seen >= 0.50 * r.total) AS p50,
			   min(r.upto) FILTER (WHERE r.seen >= 0.95 * r.total) AS p95,
			   min(r.upto) FILTER (WHERE r.seen >= 0.99 * r.total) AS p99
		  FROM ranks r
		 GROUP BY r.period, r.period_start, r.users_table, r.priority
	)
	SELECT s.period, s.period_start, s.cycle_id, s.users_table, s.priority, s.cycles,
		   s.found, s.processed, s.failed, s.skipped, s.deferred,
		   s.elapsed, s.total_time,
		   -- A day or a week takes as long as it does, or has done until now,
		   -- or as its cycles, if one of them goes on beyond its end.
		   round((s.processed * 60 / nullif(extract(epoch FROM
				CASE s.period
					 WHEN 'cycle' THEN s.elapsed
					 WHEN 'all' THEN max(s.last_end) OVER datamart - min(s.first_start) OVER datamart
					 ELSE greatest(least(now(), s.period_start + ('1 ' || s.period)::interval), s.last_end) - s.period_start
				END), 0))::numeric, CASE s.period WHEN 'cycle' THEN 1 ELSE 2 END) AS users_per_minute,
		   round((s.processed * 60 / nullif(extract(epoch FROM s.elapsed), 0))::numeric, 1) AS users_per_minute_working,
		   trunc(100.0 * s.processed / nullif(s.processed + s.failed + s.deferred, 0), 2) AS success_rate,
		   round(100.0 * s.found / nullif(sum(s.found) FILTER (WHERE s.priority IS NOT NULL)
				 OVER (PARTITION BY s.period, s.period_start, s.cycle_id, s.users_table), 0), 1) AS share,
		   s.total_time / nullif(s.processed + s.failed + s.skipped + s.deferred, 0)::double precision AS avg_time,
		   s.max_time,
		   coalesce(profile.p50, one.p50, many.p50) AS p50,
		   coalesce(profile.p95, one.p95, many.p95) AS p95,
		   coalesce(profile.p99, one.p99, many.p99) AS p99
	  FROM sums s
	  LEFT JOIN @extschema@.datamart_users_cycle_profiles profile
			 ON profile.cycle_id = s.cycle_id AND s.priority IS NULL
	  LEFT JOIN @extschema@.datamart_users_cycle_priorities one
			 ON one.cycle_id = s.cycle_id AND one.priority = s.priority
	  LEFT JOIN percentiles many
			 ON many.period = s.period
			AND many.period_start = coalesce(s.period_start, '-infinity')
			AND many.users_table = s.users_table
			AND many.priority = coalesce(s.priority, '')
	WINDOW datamart AS (PARTITION BY s.period, s.users_table);

COMMENT ON VIEW @extschema@.datamart_users_metrics IS 'Figures of ended cycles by cycle, day, week and in total, for each datamart and each priority';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.period IS 'cycle, day, week (from Monday on), or all (of the history)';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.period_start IS 'start of the cycle, of the day or of the week, by the TimeZone of the session; NULL for all';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.cycle_id IS 'the cycle, where period is cycle';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.users_table IS 'the datamart: its users table, by name';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.priority IS 'NULL = all priorities together';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.cycles IS 'cycles with this priority in their queue; for all priorities: ended cycles';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.elapsed IS 'duration of the cycles, added up; of an aborted cycle until its counts were written down';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.total_time IS 'time that workers spent on these datamart users, added up';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.users_per_minute IS 'processed per minute of the cycle, of the day or week so far, or from first start to last end';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.users_per_minute_working IS 'processed per minute of elapsed: how fast cycles are while they run';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.success_rate IS 'percent processed of those processed, failed or deferred; rounded down, so 100 means all';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.share IS 'percent of the found datamart users that have this priority';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.avg_time IS 'total_time per datamart user with an outcome';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.max_time IS 'time of the longest refresh';
COMMENT ON COLUMN @extschema@.datamart_users_metrics.p50 IS 'time that half of the refreshes did not exceed; as p95 and p99 at most a quarter too high';
