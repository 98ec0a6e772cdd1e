-- Take a user's lock if nobody has it, making their account row if they never asked for a job (bulk creation makes none).
-- Returns: whether it is held now, until the end of the transaction.
-- Locks:   the user's row in streamvibe.account; a row that another transaction is just making is waited for for p_patience.
CREATE OR REPLACE FUNCTION streamvibe.try_lock_account(p_user_id uuid, p_patience text DEFAULT '50ms') RETURNS boolean
    LANGUAGE plpgsql
AS $$
DECLARE
    v_timeout text := current_setting('lock_timeout');
BEGIN
    PERFORM FROM streamvibe.account a WHERE a.user_id = p_user_id FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        RETURN true;
    ELSIF EXISTS (SELECT FROM streamvibe.account a WHERE a.user_id = p_user_id) THEN
        RETURN false;
    END IF;
    BEGIN
        -- SKIP LOCKED does not see a row that is not committed; inserting another waits for it.
        PERFORM set_config('lock_timeout', p_patience, true);
        INSERT INTO streamvibe.account (user_id) VALUES (p_user_id) ON CONFLICT DO NOTHING;
        PERFORM set_config('lock_timeout', v_timeout, true);
    EXCEPTION
        WHEN lock_not_available THEN
            RETURN false;
    END;
    PERFORM FROM streamvibe.account a WHERE a.user_id = p_user_id FOR NO KEY UPDATE SKIP LOCKED;
    RETURN FOUND;
END
$$;
