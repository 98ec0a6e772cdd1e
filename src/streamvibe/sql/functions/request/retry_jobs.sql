-- Retry a user's own failed jobs now, while attempts remain and the failure is retryable.
-- Returns: a row per id, in the order given, with an outcome of streamvibe.retry_job() and the status afterwards.
-- Locks:   the user's row, then the jobs' rows in id order.
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.retry_jobs(p_user_id uuid, p_job_ids uuid[])
    RETURNS TABLE (job_id uuid, outcome text, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_user_id uuid := streamvibe.authorize(p_user_id);
    v_ids uuid[];
    v_outcomes text[];
    v_statuses text[];
BEGIN
    PERFORM streamvibe.check_job_ids(p_job_ids);
    PERFORM streamvibe.require_read_committed('retry_jobs', 'Use READ COMMITTED.');
    FOR job_id IN SELECT DISTINCT u.id FROM unnest(p_job_ids) u(id) ORDER BY 1 LOOP
        v_ids := v_ids || job_id;
        v_outcomes := v_outcomes || streamvibe.retry_job(v_user_id, job_id);
        v_statuses := v_statuses || (
            SELECT j.status FROM streamvibe.job j WHERE j.id = job_id AND (j.user_id = v_user_id) IS TRUE);
    END LOOP;
    RETURN QUERY
    SELECT r.id, r.outcome, r.status FROM unnest(v_ids, v_outcomes, v_statuses) r(id, outcome, status)
    JOIN (SELECT u.id, min(u.n) AS n FROM unnest(p_job_ids) WITH ORDINALITY u(id, n) GROUP BY u.id) g ON g.id = r.id
    ORDER BY g.n;
END
$$;
