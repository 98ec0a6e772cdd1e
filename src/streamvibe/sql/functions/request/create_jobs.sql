-- Create many jobs in one statement, for any users; the service's door.
-- p_jobs:  [{"user_id", "job_type", "params"?, "priority"?, "scheduled_for"?}, ...]; all or nothing.
-- The cache is not asked. p_dedupe joins live twins inside each type's window (also within the batch);
-- p_enforce_limit refuses what is over a user's limit. Both are exact, and both off unless asked for;
-- what is created counts against its user's limit all the same.
-- p_traceparent: the W3C trace context of who asks, for all of them, as in request_job().
-- Returns: a row per element in order; outcome 'created', 'joined' (job_id is the twin) or 'refused' (NULL).
-- Locks:   with either promise on, the users' rows in streamvibe.account in id order.
-- Raises:  SV001 naming the element and field, SV002, SV003, SV004, SV006, SV009.
-- Its parameters or columns were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS public.create_jobs(jsonb, boolean, boolean);
CREATE OR REPLACE FUNCTION public.create_jobs(
    p_jobs jsonb, p_dedupe boolean DEFAULT false, p_enforce_limit boolean DEFAULT false,
    p_traceparent text DEFAULT NULL
) RETURNS TABLE (ordinal integer, job_id uuid, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_batch uuid := gen_random_uuid();
BEGIN
    PERFORM streamvibe.require_service('create_jobs');
    IF p_jobs IS NULL OR jsonb_typeof(p_jobs) <> 'array' THEN
        PERFORM streamvibe.raise_error('SV001', 'p_jobs', left(p_jobs::text, 200), 'p_jobs is not a JSON array',
            'Pass an array of objects with user_id, job_type and params.');
    END IF;
    IF EXISTS (SELECT FROM jsonb_array_elements(p_jobs) e
               WHERE CASE WHEN jsonb_typeof(e.value) = 'object'
                          THEN e.value - '{user_id,job_type,params,priority,scheduled_for}'::text[] <> '{}'
                          ELSE true END) THEN
        PERFORM streamvibe.refuse_unreadable_job(p_jobs);
    END IF;
    BEGIN
        INSERT INTO streamvibe.staging (batch, ordinal, user_id, job_type, params, priority, scheduled_for)
        SELECT v_batch, e.ordinality, (e.value ->> 'user_id')::uuid, e.value ->> 'job_type',
               coalesce(e.value -> 'params', '{}'), (e.value ->> 'priority')::integer,
               (e.value ->> 'scheduled_for')::timestamptz
        FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e;
    EXCEPTION
        -- Which one it was is only looked for when there is one: a subtransaction for each costs more than its row.
        WHEN data_exception THEN
            PERFORM streamvibe.refuse_unreadable_job(p_jobs);
            RAISE;
    END;
    RETURN QUERY SELECT c.* FROM streamvibe.create_staged_jobs(v_batch, p_dedupe, p_enforce_limit, p_traceparent) c;
END
$$;
