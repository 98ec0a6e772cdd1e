-- The jobs that stand in these claims of this worker: what it may finish, hand back or log for.
CREATE OR REPLACE FUNCTION streamvibe.held_jobs(p_worker_id text, p_tokens bigint[])
    RETURNS TABLE (token bigint, job_id uuid, claimed_at timestamptz)
    LANGUAGE sql VOLATILE ROWS 100
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.token, u.id, c.claimed_at
    FROM streamvibe.claim c CROSS JOIN LATERAL unnest(c.job_ids) u(id)
    WHERE c.token = ANY (p_tokens) AND c.worker_id = p_worker_id
$$;
