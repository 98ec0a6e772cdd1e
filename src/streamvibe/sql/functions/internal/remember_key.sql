-- Note which job an idempotency key means from now on; nothing for a NULL key. Call it under the user's lock.
-- A key whose job has left with its partition may mean a new one.
CREATE OR REPLACE FUNCTION streamvibe.remember_key(p_user_id uuid, p_idempotency_key text, p_job_id uuid) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    IF p_idempotency_key IS NOT NULL THEN
        INSERT INTO streamvibe.idempotency (user_id, idempotency_key, job_id)
        VALUES (p_user_id, p_idempotency_key, p_job_id)
        ON CONFLICT (user_id, idempotency_key) DO UPDATE SET job_id = excluded.job_id
        WHERE idempotency.job_id <> excluded.job_id;
    END IF;
END
$$;
