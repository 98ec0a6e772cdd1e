-- Refuse a page size or a filter that no list has.
-- Raises: SV001 naming the parameter.
CREATE OR REPLACE FUNCTION streamvibe.check_page(p_limit integer, p_status text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 1000 THEN
        PERFORM streamvibe.raise_error('SV001', 'p_limit', p_limit::text,
            'p_limit is out of range', 'Ask for 1 to 1000 rows a page.');
    END IF;
    IF p_status NOT IN ('pending', 'processing', 'completed', 'failed', 'cancelled') THEN
        PERFORM streamvibe.raise_error('SV001', 'p_status', p_status, 'p_status is unknown',
            'Use pending, processing, completed, failed or cancelled, or NULL for all.');
    END IF;
END
$$;
