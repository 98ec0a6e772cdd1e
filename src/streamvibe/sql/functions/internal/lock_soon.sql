-- Lock tables (a list as LOCK TABLE has it) in this mode until the transaction ends, without making others wait for long: who
-- asks for one of them meanwhile waits behind this lock for p_try, then it steps back, lets go of all, and tries again.
-- A plain LOCK TABLE behind one forgotten transaction would stop everybody.
-- Raises: 55P03 they were not free within p_patience.
CREATE OR REPLACE FUNCTION streamvibe.lock_soon(
    p_tables text, p_mode text, p_patience interval, p_try interval DEFAULT '50 milliseconds'
) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_before text := current_setting('lock_timeout');
    v_until timestamptz := clock_timestamp() + p_patience;
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', ceil(extract(epoch FROM p_try) * 1000)::text, true);
            EXECUTE format('LOCK TABLE %s IN %s MODE', p_tables, p_mode);
            PERFORM set_config('lock_timeout', v_before, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF clock_timestamp() > v_until THEN
                PERFORM streamvibe.raise_error('55P03', 'p_patience', p_patience::text,
                    'others hold ' || p_tables || ' and did not let go of them in time',
                    'Try again later, or look for who does: SELECT * FROM pg_locks JOIN pg_stat_activity USING (pid).');
            END IF;
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
END
$$;
