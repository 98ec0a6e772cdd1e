-- Register a job type or change its settings. Running jobs keep going; new requests obey at once.
-- p_max_live_jobs NULL: no limit of its own beside the user's. p_expires_after NULL: never expires.
-- '0' for p_cache_ttl or p_dedupe_window switches cache or dedupe off.
-- Raises: SV001 naming the parameter, SV004.
CREATE OR REPLACE FUNCTION public.register_job_type(
    p_name text,
    p_cache_ttl interval DEFAULT '1 hour',
    p_dedupe_window interval DEFAULT '5 minutes',
    p_max_attempts integer DEFAULT 3,
    p_backoff_base interval DEFAULT '2 seconds',
    p_backoff_max interval DEFAULT '1 hour',
    p_timeout interval DEFAULT '30 minutes',
    p_max_live_jobs integer DEFAULT NULL,
    p_priority integer DEFAULT 5,
    p_expires_after interval DEFAULT '24 hours',
    p_retention interval DEFAULT '7 days',
    p_log_retention interval DEFAULT '30 days',
    p_max_params_bytes integer DEFAULT 1048576
) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_bad record;
BEGIN
    PERFORM streamvibe.require_service('register_job_type');
    SELECT c.* INTO v_bad
    FROM (VALUES
        ('p_name', p_name, p_name ~ '^[a-z][a-z0-9_.-]{0,62}$',
            'Use a lowercase letter, then up to 62 of a-z 0-9 _ . -'),
        ('p_cache_ttl', p_cache_ttl::text, p_cache_ttl BETWEEN '0' AND '100 years',
            'Use ''0'' (off) to ''100 years''.'),
        ('p_dedupe_window', p_dedupe_window::text, p_dedupe_window BETWEEN '0' AND '100 years',
            'Use ''0'' (off) to ''100 years''.'),
        ('p_max_attempts', p_max_attempts::text, p_max_attempts BETWEEN 1 AND 100, 'Use 1 to 100.'),
        ('p_backoff_base', p_backoff_base::text, p_backoff_base BETWEEN '0' AND '1 year',
            'Use ''0'' to ''1 year''.'),
        ('p_backoff_max', p_backoff_max::text, p_backoff_max BETWEEN p_backoff_base AND '1 year',
            'Use at least p_backoff_base, and at most ''1 year''.'),
        ('p_timeout', p_timeout::text, p_timeout > '0' AND p_timeout <= '100 years',
            'Use more than ''0'', up to ''100 years''.'),
        ('p_max_live_jobs', p_max_live_jobs::text, p_max_live_jobs IS NULL OR p_max_live_jobs >= 0,
            'Use 0 or more, or NULL for no limit of its own.'),
        ('p_priority', p_priority::text, p_priority BETWEEN 0 AND 9, 'Use 0 to 9; higher runs first.'),
        ('p_expires_after', p_expires_after::text,
            p_expires_after IS NULL OR p_expires_after > '0' AND p_expires_after <= '100 years',
            'Use more than ''0'', up to ''100 years'', or NULL for never.'),
        ('p_retention', p_retention::text, p_retention > '0' AND p_retention <= '100 years',
            'Use more than ''0'', up to ''100 years''.'),
        ('p_log_retention', p_log_retention::text, p_log_retention > '0' AND p_log_retention <= '100 years',
            'Use more than ''0'', up to ''100 years''.'),
        ('p_max_params_bytes', p_max_params_bytes::text, p_max_params_bytes BETWEEN 2 AND 104857600,
            'Use 2 to 104857600 (100 MiB).')
    ) c(field, received, good, fix)
    WHERE c.good IS NOT TRUE LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV001', v_bad.field, v_bad.received,
            v_bad.field || ' is not a possible setting', v_bad.fix);
    END IF;
    INSERT INTO streamvibe.job_type AS t
        (name, cache_ttl, dedupe_window, max_attempts, backoff_base, backoff_max, timeout, max_live_jobs,
         priority, expires_after, retention, log_retention, max_params_bytes)
    VALUES (p_name, p_cache_ttl, p_dedupe_window, p_max_attempts, p_backoff_base, p_backoff_max, p_timeout,
            p_max_live_jobs, p_priority, p_expires_after, p_retention, p_log_retention, p_max_params_bytes)
    ON CONFLICT (name) DO UPDATE
    SET cache_ttl = excluded.cache_ttl, dedupe_window = excluded.dedupe_window,
        max_attempts = excluded.max_attempts, backoff_base = excluded.backoff_base,
        backoff_max = excluded.backoff_max, timeout = excluded.timeout,
        max_live_jobs = excluded.max_live_jobs, priority = excluded.priority,
        expires_after = excluded.expires_after, retention = excluded.retention,
        log_retention = excluded.log_retention, max_params_bytes = excluded.max_params_bytes
    WHERE (t.cache_ttl, t.dedupe_window, t.max_attempts, t.backoff_base, t.backoff_max, t.timeout,
           t.max_live_jobs, t.priority, t.expires_after, t.retention, t.log_retention, t.max_params_bytes)
        IS DISTINCT FROM
          (excluded.cache_ttl, excluded.dedupe_window, excluded.max_attempts, excluded.backoff_base,
           excluded.backoff_max, excluded.timeout, excluded.max_live_jobs, excluded.priority,
           excluded.expires_after, excluded.retention, excluded.log_retention, excluded.max_params_bytes);
END
$$;
