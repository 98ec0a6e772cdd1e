-- Refuse a list of ids that no single call should carry.
-- Raises: SV001.
CREATE OR REPLACE FUNCTION streamvibe.check_job_ids(p_job_ids uuid[]) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_job_ids IS NULL OR cardinality(p_job_ids) NOT BETWEEN 1 AND 10000
       OR array_position(p_job_ids, NULL) IS NOT NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_job_ids',
            CASE WHEN p_job_ids IS NULL THEN NULL ELSE cardinality(p_job_ids) || ' ids' END,
            'p_job_ids is not a list of ids', 'Pass 1 to 10000 ids, none of them NULL.');
    END IF;
END
$$;
