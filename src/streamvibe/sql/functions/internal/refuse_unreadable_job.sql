-- Name the first element of an array for create_jobs() that cannot be read, and what is wrong with it. Returns when all can.
-- Raises: SV001 naming the element and field.
CREATE OR REPLACE FUNCTION streamvibe.refuse_unreadable_job(p_jobs jsonb) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_ordinal integer;
    v_job jsonb;
    v_field text;
BEGIN
    FOR v_job, v_ordinal IN SELECT e.value, e.ordinality FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e LOOP
        IF jsonb_typeof(v_job) <> 'object' THEN
            PERFORM streamvibe.raise_error('SV001', 'p_jobs[' || v_ordinal || ']', left(v_job::text, 200),
                'the element is not an object', 'Pass objects with user_id, job_type and params.');
        END IF;
        BEGIN
            v_field := 'user_id';
            PERFORM (v_job ->> 'user_id')::uuid;
            v_field := 'priority';
            PERFORM (v_job ->> 'priority')::integer;
            v_field := 'scheduled_for';
            PERFORM (v_job ->> 'scheduled_for')::timestamptz;
        EXCEPTION WHEN data_exception THEN
            PERFORM streamvibe.raise_error('SV001', 'p_jobs[' || v_ordinal || '].' || v_field,
                v_job ->> v_field, v_field || ' cannot be read',
                'Use a UUID for user_id, 0 to 9 for priority, an ISO 8601 time for scheduled_for.');
        END;
        SELECT k.key INTO v_field FROM jsonb_object_keys(v_job) k(key)
        WHERE k.key NOT IN ('user_id', 'job_type', 'params', 'priority', 'scheduled_for') LIMIT 1;
        IF FOUND THEN
            PERFORM streamvibe.raise_error('SV001', 'p_jobs[' || v_ordinal || '].' || v_field,
                left((v_job -> v_field)::text, 200), 'the field is unknown',
                'Use user_id, job_type, params, priority and scheduled_for.');
        END IF;
    END LOOP;
END
$$;
