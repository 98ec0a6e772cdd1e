-- A failure's kind as the counters have it: one of ours, or 'other'. Callers of fail_jobs() may use any text, and a counter for
-- each would be without end.
CREATE OR REPLACE FUNCTION streamvibe.counted_kind(p_kind text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN p_kind IN ('error', 'permanent', 'retry_later', 'timeout', 'crash', 'expired', 'invalid_params', 'invalid_result')
                THEN p_kind ELSE 'other' END
$$;
