-- Lock tables (a list as LOCK TABLE has it) in this mode until the transaction ends, without making others wait for long: who
-- asks for them meanwhile waits behind this lock for a twentieth of a second, then it steps back and tries again.
-- A plain LOCK TABLE behind one forgotten transaction would stop everybody.
-- Raises: 55P03 they were not free within p_patience.
CREATE OR REPLACE FUNCTION streamvibe.lock_soon(p_tables text, p_mode text, p_patience interval) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_before text := current_setting('lock_timeout');
    v_until timestamptz := clock_timestamp() + p_patience;
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '50ms', true);
            EXECUTE format('LOCK TABLE %s IN %s MODE', p_tables, p_mode);
            PERFORM set_config('lock_timeout', v_before, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF clock_timestamp() > v_until THEN
                PERFORM streamvibe.raise_error('55P03', 'p_patience', p_patience::text,
                    'another transaction holds ' || p_tables || ' and did not end',
                    'Try again later, or look in pg_stat_activity for what has been open for long.');
            END IF;
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
END
$$;
