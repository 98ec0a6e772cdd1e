-- Tell sleeping workers that a job of this type is due; nobody asleep, nothing sent, because a NOTIFY makes
-- the commit wait for every other commit that notifies. One message per type and transaction is sent at most.
CREATE OR REPLACE FUNCTION streamvibe.wake_workers(p_job_type text) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (
        SELECT FROM streamvibe.worker w
        WHERE CASE WHEN p_job_type = ANY (w.transaction_types) THEN w.transactions_asleep
                   ELSE w.asleep AND (w.job_types IS NULL OR p_job_type = ANY (w.job_types)) END
    ) THEN
        PERFORM pg_notify('streamvibe_jobs', p_job_type);
    END IF;
END
$$;
