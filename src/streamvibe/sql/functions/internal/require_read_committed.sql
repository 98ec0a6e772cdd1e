-- Refuse a transaction whose snapshot is older than the locks it takes: it could not see what another
-- session committed while it waited, so no promise of "once" or "at most" would hold.
-- Raises: SV006.
CREATE OR REPLACE FUNCTION streamvibe.require_read_committed(p_what text, p_fix text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        PERFORM streamvibe.raise_error('SV006', 'transaction_isolation',
            current_setting('transaction_isolation'),
            p_what || ' cannot be exact inside this transaction', p_fix);
    END IF;
END
$$;
