-- Delete log lines of types whose log_retention is shorter than others': those of the others leave with their partitions. Where there
-- is an archive, nothing: it takes whole partitions, and a line that is deleted here would not be in it.
-- p_limit: how many are deleted of each of such types.
-- Returns: how many were deleted, and 1 at least where the call passed over 100 * p_limit lines of other types: the next one goes on
--          there. Call it again until it is 0. One that is locked stays until its partition leaves.
-- Locks:   their rows (SKIP LOCKED); rows of streamvibe.partition, so that no partition is sealed meanwhile, and of
--          streamvibe.job_type: register_job_type() waits; that of streamvibe.setting against set_archive().
-- Index:   the primary key from where the last call ended.
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.cleanup_old_logs(p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_archive text;
    v_type record;
    v_seen record;
    v_ids uuid[];
    v_deleted integer;
    v_from uuid[];
    v_before uuid[];
    v_count integer := 0;
    v_rounds integer := 100;
BEGIN
    PERFORM streamvibe.require_service('cleanup_old_logs');
    PERFORM streamvibe.require_read_committed('cleanup_old_logs', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    SELECT s.archive_url INTO v_archive FROM streamvibe.setting s FOR SHARE;
    IF v_archive IS NOT NULL THEN
        RETURN 0;
    END IF;
    -- A sealed partition's lines leave with it; none is sealed before this transaction ends.
    SELECT array_agg(p.from_id ORDER BY p.from_id), array_agg(p.upper_id ORDER BY p.from_id) INTO v_from, v_before
    FROM (SELECT streamvibe.id_bound(l.lower_at) AS from_id, l.upper_id FROM streamvibe.partition l
          WHERE l.parent_name = 'job_log' AND l.sealed_at IS NULL FOR KEY SHARE SKIP LOCKED) p;
    FOR v_type IN
        SELECT t.name, streamvibe.id_floor(v_now - t.log_retention) AS until_id, t.lines_cleaned_id AS last_id
        FROM streamvibe.job_type t WHERE t.log_retention < (SELECT max(l.log_retention) FROM streamvibe.job_type l)
        ORDER BY t.lines_cleaned_id, t.name FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        v_deleted := 0;
        -- Other types' lines are passed over once, and never read again; so many in a call, whatever the number of types.
        WHILE v_rounds > 0 LOOP
            SELECT array_agg(f.id) FILTER (WHERE f.job_type = v_type.name
                                             AND f.id < v_before[width_bucket(f.id, v_from)]) AS ids,
                   count(*) AS n,
                   (array_agg(f.id ORDER BY f.id))[1] AS first_id,
                   (array_agg(f.id ORDER BY f.id DESC))[1] AS last_id
            INTO v_seen
            FROM (SELECT l.id, l.job_type FROM public.job_log l
                  WHERE l.id > v_type.last_id AND l.id < v_type.until_id ORDER BY l.id LIMIT p_limit) f;
            EXIT WHEN v_seen.n = 0;
            v_ids := ARRAY(SELECT l.id FROM public.job_log l
                           WHERE l.id = ANY (v_seen.ids) AND l.id BETWEEN v_seen.first_id AND v_seen.last_id
                           FOR UPDATE SKIP LOCKED);
            DELETE FROM public.job_log l WHERE l.id = ANY (v_ids) AND l.id BETWEEN v_seen.first_id AND v_seen.last_id;
            v_deleted := v_deleted + cardinality(v_ids);
            v_type.last_id := v_seen.last_id;
            EXIT WHEN v_seen.n < p_limit;
            v_rounds := v_rounds - 1;
            EXIT WHEN v_deleted >= p_limit;
        END LOOP;
        UPDATE streamvibe.job_type t SET lines_cleaned_id = v_type.last_id
        WHERE t.name = v_type.name AND t.lines_cleaned_id <> v_type.last_id;
        v_count := v_count + v_deleted;
    END LOOP;
    RETURN CASE WHEN v_rounds = 0 THEN greatest(v_count, 1) ELSE v_count END;
END
$$;
