-- The statistics do not say how many jobs there are
-- Rows were changed past the functions (an UPDATE or DELETE by hand): totals, alerts and metrics are off by that many. Or the
-- days, hours or minutes do not add up to all jobs: how many ended since some moment is told wrong. Or the partitions do not: once
-- one of them is dropped, all of it is. Or groups of durations do not hold as many jobs as their buckets: percentiles are those of others.
SELECT 'warning' AS severity, 'statistics' AS subject,
       k.jobs || ' live jobs by the statistics, ' || c.jobs || ' by a count' AS measured, 'SELECT * FROM recount_stats()' AS fix
FROM (SELECT count(*) AS jobs FROM public.job_queue q WHERE q.status IN ('pending', 'processing')) c
CROSS JOIN (
    SELECT coalesce(sum(e.jobs), 0) AS jobs
    FROM (SELECT s.status, s.jobs FROM streamvibe.stat_now s WHERE s.minutes = 0
          UNION ALL SELECT n.status, n.jobs FROM streamvibe.stat_note n) e
    WHERE e.status IN ('pending', 'processing')) k
WHERE k.jobs <> c.jobs
UNION ALL
SELECT 'warning', 'statistics of ' || n.name, p.jobs || ' jobs added up by the ' || n.name || ', ' || t.jobs || ' in all',
       'SELECT * FROM recount_stats()'
FROM (VALUES (-1, 'partition'), (1, 'minute'), (10, 'ten minutes'), (60, 'hour'), (1440, 'day')) n(minutes, name)
CROSS JOIN (SELECT coalesce(sum(s.jobs), 0) AS jobs FROM streamvibe.stat_now s WHERE s.minutes = 0) t
CROSS JOIN LATERAL (
    SELECT coalesce(sum(s.jobs), 0) AS jobs FROM streamvibe.stat s
    WHERE s.minutes = n.minutes AND s.leaf_number <> ALL (ARRAY(SELECT g.leaf_number FROM streamvibe.dropped_leaf g))) p
WHERE p.jobs <> t.jobs
UNION ALL
SELECT 'warning', 'statistics of durations', sum(g.grouped) || ' durations added up by the group, ' || sum(g.single) || ' by the bucket',
       'SELECT * FROM recount_stats()'
FROM (SELECT coalesce(sum(e.jobs) FILTER (WHERE e.minutes = -2), 0) AS grouped, coalesce(sum(e.jobs) FILTER (WHERE e.minutes = 0), 0) AS single
      FROM (SELECT s.job_type, s.measure, s.minutes, CASE s.minutes WHEN 0 THEN s.bucket >> 4 ELSE s.bucket END AS bucket_group, s.jobs
            FROM streamvibe.stat_sketch s WHERE s.minutes IN (-2, 0)) e
      GROUP BY e.job_type, e.measure, e.bucket_group) g
WHERE g.grouped <> g.single
HAVING count(*) > 0
