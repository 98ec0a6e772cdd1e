-- Delete finished jobs that must not wait for their leaf to be dropped: of types that stay for a shorter time than others, and
-- in leaves that a live job holds up for longer than a leaf's width. What leaves with its leaf is none of its business.
-- p_limit: how many are deleted of each of such types, give or take as many, and leaves.
-- Returns: how many were deleted, and 1 at least where the call passed over 100 * p_limit jobs of other types: the next one goes on
--          there. Call it again until it is 0. One that is locked, or may be retried, stays until its leaf leaves.
-- Locks:   their rows (SKIP LOCKED); rows of streamvibe.partition, so that no leaf is sealed meanwhile, and of
--          streamvibe.job_type: register_job_type() waits.
-- Index:   idx_job_queue_cleanup from where the last call ended; the primary key.
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.cleanup_old_jobs(p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_longest interval := (SELECT max(t.retention) FROM streamvibe.job_type t);
    v_type record;
    v_seen record;
    v_deleted integer;
    v_from uuid[];
    v_before uuid[];
    v_leaf record;
    v_count integer := 0;
    v_rounds integer := 100;
    v_wal_compression text;
BEGIN
    PERFORM streamvibe.require_service('cleanup_old_jobs');
    PERFORM streamvibe.require_read_committed('cleanup_old_jobs', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    v_wal_compression := streamvibe.leave_pages_uncompressed();
    -- A sealed leaf's jobs may be in the archive already, and leave with it; none is sealed before this transaction ends.
    SELECT array_agg(p.from_id ORDER BY p.from_id), array_agg(p.upper_id ORDER BY p.from_id) INTO v_from, v_before
    FROM (SELECT streamvibe.id_bound(l.lower_at) AS from_id, l.upper_id FROM streamvibe.partition l
          WHERE l.parent_name = 'job_queue' AND l.sealed_at IS NULL FOR KEY SHARE SKIP LOCKED) p;
    FOR v_type IN
        SELECT t.name, v_now - t.retention AS until, t.cleaned_until AS last_at, t.cleaned_id AS last_id
        FROM streamvibe.job_type t WHERE t.retention < v_longest
        ORDER BY t.cleaned_until, t.cleaned_id, t.name FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        v_deleted := 0;
        -- Other types' jobs are passed over once, and never read again; so many in a call, whatever the number of types.
        WHILE v_rounds > 0 LOOP
            SELECT array_agg(f.id) FILTER (WHERE f.job_type = v_type.name
                                             AND f.id < v_before[width_bucket(f.id, v_from)]) AS ids,
                   count(*) AS n,
                   (array_agg(f.completed_at ORDER BY f.completed_at DESC, f.id DESC))[1] AS last_at,
                   (array_agg(f.id ORDER BY f.completed_at DESC, f.id DESC))[1] AS last_id
            INTO v_seen
            FROM (SELECT q.* FROM unnest('{completed,failed,cancelled}'::text[]) s(status)
                  CROSS JOIN LATERAL (
                      SELECT j.id, j.job_type, j.completed_at FROM public.job_queue j
                      WHERE j.status = s.status AND j.status IN ('completed', 'cancelled', 'failed') AND j.completed_at >= v_type.last_at AND j.completed_at < v_type.until
                        AND (j.completed_at > v_type.last_at OR j.id > v_type.last_id)
                        AND j.completed_at <= (
                            -- Of each status that many, read from the index alone; of their rows only those of the first of all.
                            SELECT CASE WHEN count(*) = p_limit THEN max(e.completed_at) ELSE v_type.until END
                            FROM (SELECT e.completed_at FROM unnest('{completed,failed,cancelled}'::text[]) t(status)
                                  CROSS JOIN LATERAL (
                                      SELECT j.completed_at FROM public.job_queue j
                                      WHERE j.status = t.status AND j.status IN ('completed', 'cancelled', 'failed')
                                        AND j.completed_at > v_type.last_at AND j.completed_at < v_type.until
                                      ORDER BY j.completed_at LIMIT p_limit) e
                                  ORDER BY e.completed_at LIMIT p_limit) e)
                      ORDER BY j.completed_at, j.id LIMIT p_limit) q
                  ORDER BY q.completed_at, q.id LIMIT p_limit) f;
            EXIT WHEN v_seen.n = 0;
            v_deleted := v_deleted + streamvibe.delete_jobs(v_seen.ids);
            v_type.last_at := v_seen.last_at;
            v_type.last_id := v_seen.last_id;
            EXIT WHEN v_seen.n < p_limit;
            v_rounds := v_rounds - 1;
            EXIT WHEN v_deleted >= p_limit;
        END LOOP;
        UPDATE streamvibe.job_type t SET cleaned_until = v_type.last_at, cleaned_id = v_type.last_id
        WHERE t.name = v_type.name AND (t.cleaned_until, t.cleaned_id) <> (v_type.last_at, v_type.last_id);
        v_count := v_count + v_deleted;
    END LOOP;
    FOR v_leaf IN
        SELECT streamvibe.id_bound(p.lower_at) AS from_id, p.upper_id FROM streamvibe.partition p, streamvibe.setting s
        WHERE p.parent_name = 'job_queue' AND p.upper_id = ANY (v_before)
          AND p.upper_at + coalesce(v_longest, '7 days') + s.partition_width < v_now
        ORDER BY p.lower_at
    LOOP
        v_count := v_count + streamvibe.delete_jobs(ARRAY(
            SELECT q.id FROM public.job_queue q LEFT JOIN streamvibe.job_type t ON t.name = q.job_type
            WHERE q.id >= v_leaf.from_id AND q.id < v_leaf.upper_id
              AND coalesce(q.status, '') IN ('completed', 'failed', 'cancelled') AND q.retry_at IS NULL
              AND q.completed_at < v_now - coalesce(t.retention, '7 days')
            ORDER BY q.id LIMIT p_limit));
    END LOOP;
    IF current_setting('wal_compression') <> v_wal_compression THEN
        PERFORM set_config('wal_compression', v_wal_compression, true);
    END IF;
    RETURN CASE WHEN v_rounds = 0 THEN greatest(v_count, 1) ELSE v_count END;
END
$$;
