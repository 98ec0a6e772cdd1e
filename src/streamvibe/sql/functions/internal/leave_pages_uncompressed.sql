-- Let this transaction write whole pages into the WAL as they are. The first change to a page after a checkpoint writes all of it;
-- compressing it with pglz takes 0.1 ms, and saves half to two thirds of it. What changes thousands of pages at once is half as long
-- again for it, or three times as long. Other compressions are left alone, and so is a server that lets nobody but its superuser
-- decide.
-- Returns: what wal_compression was, for set_config() at the end of the call: the transaction may go on with other work.
CREATE OR REPLACE FUNCTION streamvibe.leave_pages_uncompressed() RETURNS text
    LANGUAGE plpgsql
AS $$
DECLARE
    v_was text := current_setting('wal_compression');
BEGIN
    IF v_was IN ('on', 'pglz') AND has_parameter_privilege('wal_compression', 'SET') THEN
        PERFORM set_config('wal_compression', 'off', true);
    END IF;
    RETURN v_was;
END
$$;
