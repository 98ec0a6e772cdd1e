-- Leaves that hold nothing that is to stay: every job in it ended as long ago as its type's retention says, every log line is as
-- old as the longest log retention. The oldest first. Whether a job in it is still live is not looked at (see seal_partition).
-- Index: idx_job_queue_cleanup, of which only what ended within the longest retention is read.
CREATE OR REPLACE FUNCTION streamvibe.old_partitions() RETURNS SETOF streamvibe.partition
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_sort = off  -- so that the order is that of the index
AS $$
    SELECT p.*
    FROM streamvibe.partition p
    CROSS JOIN LATERAL (SELECT streamvibe.now() AS now) n
    CROSS JOIN LATERAL (SELECT coalesce(max(t.retention), '7 days') AS of_jobs, coalesce(max(t.log_retention), '30 days') AS of_logs
                        FROM streamvibe.job_type t) longest
    WHERE p.upper_at + interval '1 hour' < n.now
      AND CASE p.parent_name
          WHEN 'job_log' THEN p.upper_at + longest.of_logs < n.now
          -- A type whose retention is long keeps a leaf only when it has jobs in it.
          ELSE p.upper_at + (SELECT coalesce(min(t.retention), '7 days') FROM streamvibe.job_type t) < n.now
               AND NOT EXISTS (
                   SELECT FROM unnest('{completed,failed,cancelled}'::text[]) s(status)
                   CROSS JOIN LATERAL (
                       SELECT FROM public.job_queue q LEFT JOIN streamvibe.job_type t ON t.name = q.job_type
                       WHERE q.status = s.status AND q.status IN ('completed', 'cancelled', 'failed')
                         AND q.completed_at > n.now - greatest(longest.of_jobs, '7 days')
                         AND q.completed_at > n.now - coalesce(t.retention, '7 days')
                         AND q.id >= streamvibe.id_bound(p.lower_at) AND q.id < p.upper_id
                       -- The newest is the likeliest; without an order all of the leaf would be read by its ids.
                       ORDER BY q.completed_at DESC LIMIT 1) f)
          END
    ORDER BY p.parent_name, p.lower_at
$$;
