-- A partition cannot be dropped
-- A job in it is live, or waits for a retry: it and its indexes stay, though all others in it are deleted.
SELECT 'warning' AS severity, p.partition_name AS subject,
       'it should have gone by ' || date_trunc('second', p.upper_at + r.retention + s.partition_width) || '; held up by job ' || j.id
       || ' of user ' || j.user_id || ' (' || j.status || ')' AS measured,
       format('SELECT * FROM cancel_jobs(%L, ARRAY[%L]::uuid[])', j.user_id, j.id) AS fix
FROM streamvibe.partition p
CROSS JOIN streamvibe.setting s
CROSS JOIN (SELECT coalesce(max(t.retention), '7 days') AS retention FROM streamvibe.job_type t) r
CROSS JOIN LATERAL (
    SELECT q.id, q.user_id, q.status FROM public.job_queue q
    WHERE q.id >= streamvibe.id_bound(p.lower_at) AND q.id < p.upper_id
      AND (q.status IN ('pending', 'processing') OR q.status = 'failed' AND q.retry_at IS NOT NULL)
    LIMIT 1) j
WHERE p.parent_name = 'job_queue' AND p.upper_at + r.retention + s.partition_width < streamvibe.now()
