-- Take a user's lock until the end of the transaction, making their account row at their first request.
-- Other users are never waited for.
-- p_default: what the settings give each user, where the caller has read it already.
-- Returns: how many live jobs the user may have.
-- Locks:   the user's row in streamvibe.account.
CREATE OR REPLACE FUNCTION streamvibe.lock_account(p_user_id uuid, p_default integer DEFAULT NULL)
    RETURNS integer
    LANGUAGE plpgsql
AS $$
DECLARE
    v_limit integer;
BEGIN
    LOOP
        SELECT a.max_live_jobs INTO v_limit FROM streamvibe.account a WHERE a.user_id = p_user_id FOR NO KEY UPDATE;
        EXIT WHEN FOUND;
        -- Erasing a user takes the row away, also from who waits for it.
        INSERT INTO streamvibe.account (user_id) VALUES (p_user_id) ON CONFLICT DO NOTHING;
    END LOOP;
    v_limit := coalesce(v_limit, p_default);
    IF v_limit IS NULL THEN
        SELECT s.default_max_live_jobs INTO v_limit FROM streamvibe.setting s;
    END IF;
    RETURN v_limit;
END
$$;
