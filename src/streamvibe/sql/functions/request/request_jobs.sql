-- Ask for many jobs in one transaction, each for itself: what one is refused for undoes none of the others. For the service.
-- p_requests: [{"user_id", "job_type", "params"?, "priority"?, "scheduled_for"?, "force"?, "idempotency_key"?,
--          "dedupe_window"?, "cache_ttl"?, "enforce_limit"?, "traceparent"?}, ...], 1 to 1000; each means what request_job's parameter of
--          that name does. Every promise of request_job holds, also between elements.
-- Returns: a row per element in order: request_job's; or outcome 'refused' with the error ("code", "field", "message",
--          "received", "fix"); or outcome 'busy': another transaction holds the user's lock; ask for that one again.
-- Locks:   the users' rows in streamvibe.account (SKIP LOCKED; one that another transaction is
--          just making is waited for for 5 ms, and after the first of those for 1 ms).
-- Raises:  SV001 when p_requests is not such an array, SV004. What is the server's fault (a full disk) undoes all.
-- Its parameters or columns were others once; in one transaction with all functions, so that it is never missing.
DROP FUNCTION IF EXISTS public.request_jobs(jsonb);
CREATE OR REPLACE FUNCTION public.request_jobs(p_requests jsonb)
    RETURNS TABLE (
        ordinal integer, outcome text, job_id uuid, status text, result jsonb, result_age interval, error jsonb, traceparent text
    )
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_request jsonb;
    v_user_id uuid;
    v_patience text := '5ms';
    v_field text;
    v_code text;
    v_message text;
    v_detail text;
    v_hint text;
    v_column text;
BEGIN
    PERFORM streamvibe.require_service('request_jobs');
    IF p_requests IS NULL OR jsonb_typeof(p_requests) <> 'array' OR jsonb_array_length(p_requests) NOT BETWEEN 1 AND 1000
    THEN
        PERFORM streamvibe.raise_error('SV001', 'p_requests', left(p_requests::text, 200),
            'p_requests is not an array of 1 to 1000 requests', 'Pass an array of objects with user_id, job_type and params.');
    END IF;
    FOR v_request, ordinal IN SELECT e.value, e.ordinality FROM jsonb_array_elements(p_requests) WITH ORDINALITY e LOOP
        outcome := NULL;
        job_id := NULL;
        status := NULL;
        result := NULL;
        result_age := NULL;
        error := NULL;
        traceparent := NULL;
        BEGIN
            IF jsonb_typeof(v_request) <> 'object' THEN
                PERFORM streamvibe.raise_error('SV001', 'p_requests[' || ordinal || ']', left(v_request::text, 200),
                    'the element is not an object', 'Pass objects with user_id, job_type and params.');
            ELSIF v_request - ARRAY['user_id', 'job_type', 'params', 'priority', 'scheduled_for', 'force',
                      'idempotency_key', 'dedupe_window', 'cache_ttl', 'enforce_limit', 'traceparent'] <> '{}' THEN
                PERFORM streamvibe.raise_error('SV001', 'p_requests[' || ordinal || ']', left(v_request::text, 200),
                    'the element has an unknown field', 'Use user_id, job_type, params, priority, scheduled_for, force, '
                    || 'idempotency_key, dedupe_window, cache_ttl, enforce_limit and traceparent.');
            END IF;
            v_field := 'user_id';
            v_user_id := (v_request ->> 'user_id')::uuid;
            IF v_user_id IS NOT NULL AND NOT streamvibe.try_lock_account(v_user_id, v_patience) THEN
                outcome := 'busy';
                v_patience := '1ms';
            ELSE
                v_field := NULL;
                SELECT r.outcome, r.job_id, r.status, r.result, r.result_age, r.traceparent
                INTO outcome, job_id, status, result, result_age, traceparent
                FROM public.request_job(
                    v_user_id, v_request ->> 'job_type', coalesce(v_request -> 'params', '{}'),
                    (v_request ->> 'priority')::integer, (v_request ->> 'scheduled_for')::timestamptz,
                    coalesce((v_request ->> 'force')::boolean, false), v_request ->> 'idempotency_key',
                    (v_request ->> 'dedupe_window')::interval, (v_request ->> 'cache_ttl')::interval,
                    coalesce((v_request ->> 'enforce_limit')::boolean, true), v_request ->> 'traceparent') r;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_code = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT,
                v_detail = PG_EXCEPTION_DETAIL, v_hint = PG_EXCEPTION_HINT, v_column = COLUMN_NAME;
            IF v_code NOT LIKE 'SV%' THEN
                IF v_code NOT LIKE '22%' THEN
                    RAISE;
                END IF;
                v_field := coalesce(v_field, streamvibe.unreadable_field(v_request));
                IF v_field IS NULL THEN
                    RAISE;
                END IF;
                v_code := 'SV001';
                v_column := 'p_' || v_field;
                v_message := v_column || ' cannot be read';
                v_detail := 'Received: ' || left(v_request ->> v_field, 200);
                v_hint := 'Use a UUID for user_id, 0 to 9 for priority, an ISO 8601 time for scheduled_for, intervals for '
                    || 'dedupe_window and cache_ttl, true or false for force and enforce_limit.';
            END IF;
            outcome := 'refused';
            error := jsonb_build_object('code', v_code, 'field', v_column, 'message', v_message,
                                        'received', v_detail, 'fix', v_hint);
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
