-- Jobs are due that no live worker takes
-- They wait until a worker declares their type, and expire after a day.
SELECT 'critical' AS severity, 'job type ' || t.name AS subject,
       'the oldest is due since ' || date_trunc('second', o.scheduled_for) AS measured,
       -- What the platform brings along needs no application; with --app a process takes that one's types alone.
       CASE WHEN t.name = 'sync_youtube' THEN 'streamvibe up' ELSE 'streamvibe worker --app yourapp.jobs' END AS fix
FROM streamvibe.job_type t
CROSS JOIN LATERAL (
    SELECT min(f.scheduled_for) AS scheduled_for
    FROM (SELECT q.scheduled_for FROM public.job_queue q
          WHERE q.job_type = t.name AND q.status = 'pending' AND q.scheduled_for < streamvibe.now() - interval '1 minute'
          LIMIT 1000) f) o
WHERE o.scheduled_for IS NOT NULL
  AND NOT EXISTS (SELECT FROM get_workers() w WHERE w.is_alive AND (w.job_types IS NULL OR t.name = ANY (w.job_types)))
  AND streamvibe.not_paused(ARRAY[t.name]) <> '{}'
