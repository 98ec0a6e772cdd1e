-- Take jobs, but for p_keep, out of their claims' lists; a claim that holds nothing more goes.
-- Call it with the claims locked, in the transaction that moves the jobs.
CREATE OR REPLACE FUNCTION streamvibe.drop_from_claims(
    p_worker_id text, p_tokens bigint[], p_job_ids uuid[], p_keep uuid[]
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WITH rest AS MATERIALIZED (
        SELECT c.token, ARRAY(
                   SELECT u.id FROM unnest(c.job_ids) u(id)
                   -- NOT IN is hashed; NOT EXISTS could become a nested loop over both lists.
                   WHERE (c.token, u.id) NOT IN (
                       SELECT r.token, r.id FROM unnest(p_tokens, p_job_ids) r(token, id)
                       WHERE r.token IS NOT NULL AND r.id IS NOT NULL AND r.id NOT IN (SELECT unnest(p_keep)))
               ) AS job_ids
        FROM streamvibe.claim c
        WHERE c.token = ANY (p_tokens) AND c.worker_id = p_worker_id
    ), emptied AS (
        -- = ANY: looked up by token; the join alone would read every version of every claim.
        DELETE FROM streamvibe.claim c USING rest
        WHERE c.token = ANY (p_tokens) AND c.token = rest.token AND cardinality(rest.job_ids) = 0
    )
    UPDATE streamvibe.claim c SET job_ids = rest.job_ids
    FROM rest WHERE c.token = ANY (p_tokens) AND c.token = rest.token AND cardinality(rest.job_ids) > 0;
END
$$;
