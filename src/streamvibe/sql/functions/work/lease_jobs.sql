-- Turn claims that last into ordinary leases: the jobs' rows become 'processing' under this worker.
-- p_tokens, p_job_ids and p_started_at are parallel.
-- Returns: only those not leased, with their status now (cancelled, or another worker's), or 'busy': another
--          transaction has the row; the claim still holds it, so lease it again in a moment.
-- Locks:   the claims, then the jobs' rows in id order (SKIP LOCKED).
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.lease_jobs(
    p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_started_at timestamptz[]
) RETURNS TABLE (job_id uuid, status text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_nestloop = off  -- see policies/plans.sql
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_leased uuid[];
    v_mine record;
BEGIN
    PERFORM streamvibe.require_service('lease_jobs');
    SELECT l.* INTO v_mine FROM streamvibe.lock_held_jobs(p_worker_id, p_tokens, p_job_ids,
        ARRAY[cardinality(p_started_at)]) l;
    v_now := streamvibe.now();
    WITH leased AS (
        UPDATE public.job_queue q
        SET status = 'processing', worker_id = p_worker_id, claim_token = r.token, updated_at = v_now,
            started_at = least(greatest(r.started_at, r.since), v_now)
        FROM unnest(p_tokens, p_job_ids, p_started_at, v_mine.since) r(token, job_id, started_at, since)
        WHERE q.id = r.job_id AND r.since IS NOT NULL AND coalesce(q.status, '') = 'pending'
          AND q.id = ANY (v_mine.locked)
          AND q.id BETWEEN v_mine.locked[1] AND v_mine.locked[cardinality(v_mine.locked)]
        RETURNING q.tableoid AS leaf, q.id, q.job_type, q.created_at
    ), notes AS MATERIALIZED (
        SELECT l.leaf, l.job_type, streamvibe.minute_of(l.created_at) AS minute, count(*) AS jobs FROM leased l
        GROUP BY l.leaf, l.job_type, streamvibe.minute_of(l.created_at)
    ), noted AS (
        INSERT INTO streamvibe.stat_delta (leaf_number, job_type, status, minute, jobs)
        SELECT coalesce((SELECT f.leaf_number FROM streamvibe.leaf f WHERE f.table_oid = n.leaf), 0),
               n.job_type, m.status, n.minute, m.sign * n.jobs
        FROM notes n CROSS JOIN (VALUES ('pending', -1), ('processing', 1)) m(status, sign)
    )
    SELECT coalesce(array_agg(l.id), '{}') INTO v_leased FROM leased l;
    RETURN QUERY
    SELECT s.* FROM streamvibe.statuses_now(
        ARRAY(SELECT u.id FROM unnest(p_job_ids) u(id) WHERE u.id NOT IN (SELECT unnest(v_leased))), v_mine.busy) s;
END
$$;
