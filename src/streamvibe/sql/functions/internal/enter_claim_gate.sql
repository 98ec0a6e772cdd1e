-- Let claims of many jobs go one after the other, each until it is committed. Side by side they take what another has just
-- claimed, find that out, and look again; and the other's worker finds its jobs locked when they are done. Eight workers on
-- two cores drained 20,000 jobs a second that way, and 26,000 with this.
-- It is no promise: after 250 ms a claim goes on without, and its session does not ask again for a second, so that nobody waits
-- for somebody's open transaction, or for a slow disk, for long.
-- Locks: streamvibe.claim_gate (EXCLUSIVE), until the transaction ends.
CREATE OR REPLACE FUNCTION streamvibe.enter_claim_gate() RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '250ms'
AS $$
BEGIN
    IF clock_timestamp() < coalesce(nullif(current_setting('streamvibe.claim_gate_after', true), ''), '-infinity')::timestamptz THEN
        RETURN;
    END IF;
    BEGIN
        LOCK TABLE streamvibe.claim_gate IN EXCLUSIVE MODE;
    EXCEPTION WHEN lock_not_available THEN
        PERFORM set_config('streamvibe.claim_gate_after', (clock_timestamp() + interval '1 second')::text, false);
    END;
END
$$;
