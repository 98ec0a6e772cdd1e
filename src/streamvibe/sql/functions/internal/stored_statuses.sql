-- Which statuses the rows of jobs with this one may have: a job that a worker holds is processing, and most often its
-- row still says pending. NULL: all.
CREATE OR REPLACE FUNCTION streamvibe.stored_statuses(p_status text) RETURNS text[]
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE WHEN p_status IS NULL THEN '{pending,processing,completed,failed,cancelled}'
                WHEN p_status = 'processing' THEN '{pending,processing}'
                ELSE ARRAY[p_status] END
$$;
