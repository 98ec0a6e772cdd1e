-- The jobs with these ids, as readers see them, in any order. (Its rows are the view's: who drops that drops this before.)
-- Each id is looked up by itself (OFFSET 0): no plan can read more. Inlined, so it has the settings of whoever calls it.
CREATE OR REPLACE FUNCTION streamvibe.page_of_jobs(p_job_ids uuid[]) RETURNS SETOF streamvibe.job
    LANGUAGE sql STABLE
AS $$
    SELECT j.* FROM unnest(p_job_ids) i(id) CROSS JOIN LATERAL (SELECT j.* FROM streamvibe.job j WHERE j.id = i.id OFFSET 0) j
$$;
