-- The prioritisation as the script's description has it, made valid SQL: in
-- its SELECT DISTINCT the order could not be by what is not selected.  "take"
-- is how many datamart users a cycle takes.
SELECT f.action_dimension_id_user
FROM dwh.facts AS f
JOIN dwh.dimension_users AS u ON u.dimension_user_id = f.action_dimension_id_user
WHERE u.modified = TRUE
GROUP BY f.action_dimension_id_user
ORDER BY CASE WHEN max(f.action_at) >= CURRENT_DATE - INTERVAL '7 days' THEN 1
			  WHEN max(f.action_at) >= CURRENT_DATE - INTERVAL '30 days' THEN 2
			  WHEN max(f.action_at) >= CURRENT_DATE - INTERVAL '90 days' THEN 3
			  ELSE 4 END,
		 CASE WHEN count(*) > 100 THEN 1
			  WHEN count(*) > 10 THEN 2
			  ELSE 3 END,
		 count(*) DESC,
		 max(f.action_at) DESC NULLS LAST
LIMIT :take
