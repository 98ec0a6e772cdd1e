-- Hold these claims still until the transaction ends, so that nobody takes their jobs away meanwhile.
-- Every function that moves a held job locks first the claim, then the job.
-- Raises: SV001 the arrays are not parallel.
CREATE OR REPLACE FUNCTION streamvibe.lock_claims(p_worker_id text, p_tokens bigint[], p_sizes integer[])
    RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM unnest(p_sizes) s(size) WHERE s.size IS DISTINCT FROM cardinality(p_tokens)) THEN
        PERFORM streamvibe.raise_error('SV001', 'p_tokens', cardinality(p_tokens) || ' tokens',
            'the arrays differ in length', 'Pass one token per job, and one entry per job in every other array.');
    END IF;
    PERFORM streamvibe.require_read_committed('moving a claimed job', 'Use READ COMMITTED.');
    PERFORM FROM streamvibe.claim c
    WHERE c.token = ANY (p_tokens) AND c.worker_id = p_worker_id
    ORDER BY c.token FOR NO KEY UPDATE;
END
$$;
