-- The total of a user's list, and how long ago it was counted: now, up to 10,000 jobs; a longer list is counted once in
-- five minutes. What was counted is kept in a setting of the session, {"list": [total, epoch second]}, so that a read
-- writes nothing and works on a standby.
-- One row, not a set of them: assigned to a variable it is called without a query around it.
-- It was a set once.
DROP FUNCTION IF EXISTS streamvibe.total_of_user_jobs(uuid, text, text, timestamptz, timestamptz);
CREATE OR REPLACE FUNCTION streamvibe.total_of_user_jobs(
    p_user_id uuid, p_status text, p_job_type text, p_from timestamptz, p_end timestamptz, OUT total bigint, OUT age interval
)
    LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_most CONSTANT bigint := 10000;
    v_list text;
    v_known jsonb;
    v_now double precision;
BEGIN
    IF p_status IN ('completed', 'failed', 'cancelled') AND p_job_type IS NULL AND p_from IS NULL AND p_end IS NULL THEN
        -- What is asked for most: one range of the index, and nothing that a worker may hold.
        SELECT count(*) INTO total
        FROM (SELECT FROM public.job_queue q WHERE q.user_id = p_user_id AND q.status = p_status LIMIT v_most + 1) c;
    ELSE
        total := streamvibe.count_user_jobs(p_user_id, p_status, p_job_type, p_from, p_end, v_most + 1);
    END IF;
    age := '0';
    IF total > v_most THEN
        v_now := extract(epoch FROM streamvibe.now());
        -- Hashed: sessions are shared, and whoever reads the setting must not see whose jobs were counted.
        v_list := hashtextextended(concat_ws('|', p_user_id, coalesce(p_status, '*'), coalesce(p_job_type, '*'), p_from,
                                             p_end), 0)::text;
        SELECT jsonb_object_agg(k.key, k.value) INTO v_known
        FROM jsonb_each(coalesce(nullif(current_setting('streamvibe.totals', true), ''), '{}')::jsonb) k
        WHERE (k.value->>1)::double precision > v_now - 300 AND (k.value->>1)::double precision <= v_now;
        IF v_known ? v_list THEN
            total := v_known->v_list->>0;
            age := make_interval(secs => v_now - (v_known->v_list->>1)::double precision);
        ELSE
            total := streamvibe.count_user_jobs(p_user_id, p_status, p_job_type, p_from, p_end, NULL);
            -- Not more than a session may well ask about in five minutes.
            IF (SELECT count(*) FROM jsonb_object_keys(v_known)) >= 100 THEN
                v_known := NULL;
            END IF;
            PERFORM set_config('streamvibe.totals',
                (coalesce(v_known, '{}') || jsonb_build_object(v_list, jsonb_build_array(total, v_now)))::text, false);
        END IF;
    END IF;
END
$$;
