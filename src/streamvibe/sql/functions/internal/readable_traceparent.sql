-- A W3C trace context (traceparent) as far as it can be read: version, trace id, parent id and flags; NULL for anything else. A
-- trace that cannot be followed must not lose a job, so nobody is refused for it.
-- https://www.w3.org/TR/trace-context/#traceparent-header: of a later version only what is known of it counts.
CREATE OR REPLACE FUNCTION streamvibe.readable_traceparent(p_traceparent text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT CASE WHEN length(p_traceparent) < 1000 THEN substring(p_traceparent FROM
        '^(?:(?=00-.{52}$)|(?!00|ff))([0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?$') END
$$;
