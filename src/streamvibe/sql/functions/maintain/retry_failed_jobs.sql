-- Bring back failed jobs whose retry_at has come. A job waits on while its user is at the limit or an identical
-- one is live, and is looked at again a minute later, so that it never keeps others from being looked at.
-- Users whose lock another session holds are left for the next run; nobody's open transaction is waited for.
-- p_limit: how many are looked at in one round, of which there are 20 at most.
-- Returns: how many came back.
-- Locks:   users' rows in streamvibe.account in id order, then their jobs' rows.
-- Index:   idx_job_queue_retry_eligible.
-- Raises:  SV001, SV004, SV006.
CREATE OR REPLACE FUNCTION public.retry_failed_jobs(p_limit integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := streamvibe.now();
    v_due record;
    v_job record;
    v_count integer := 0;
    v_seen integer;
    v_busy uuid[] := '{}';  -- users whose lock another session holds
    v_full text[];  -- types of the user for which there is no room
    v_waiting uuid[];
    v_outcome text;
BEGIN
    PERFORM streamvibe.require_service('retry_failed_jobs');
    PERFORM streamvibe.require_read_committed('retry_failed_jobs', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_batch_size(p_limit);
    -- In rounds, because what has to wait must not keep others from being looked at.
    FOR v_round IN 1..20 LOOP
        v_seen := 0;
        FOR v_due IN
            SELECT d.user_id, array_agg(d.id ORDER BY d.retry_at, d.id) AS ids
            FROM (SELECT q.user_id, q.id, q.retry_at
                  -- As far as there are any: what a type allows may have been lowered since.
                  FROM generate_series(1, (SELECT max(m.retry_count) FROM public.job_queue m WHERE m.status = 'failed')) n(retry_count)
                  CROSS JOIN LATERAL (
                      SELECT j.user_id, j.id, j.retry_at FROM public.job_queue j
                      WHERE j.status = 'failed' AND j.retry_count = n.retry_count AND j.retry_at <= v_now
                        AND j.user_id <> ALL (v_busy)
                      ORDER BY j.retry_at LIMIT p_limit) q
                  ORDER BY q.retry_at LIMIT p_limit) d
            GROUP BY d.user_id
            ORDER BY d.user_id
        LOOP
            v_seen := v_seen + cardinality(v_due.ids);
            IF NOT streamvibe.try_lock_account(v_due.user_id) THEN
                v_busy := v_busy || v_due.user_id;
                CONTINUE;
            END IF;
            v_full := '{}';
            v_waiting := '{}';
            FOR v_job IN
                SELECT u.id, q.job_type FROM unnest((streamvibe.lock_jobs(v_due.ids)).locked) WITH ORDINALITY u(id, n)
                CROSS JOIN LATERAL (SELECT j.job_type FROM public.job_queue j WHERE j.id = u.id OFFSET 0) q
                ORDER BY array_position(v_due.ids, u.id)
            LOOP
                v_outcome := CASE WHEN v_job.job_type = ANY (v_full) THEN 'at_limit'
                                  ELSE streamvibe.retry_job(v_due.user_id, v_job.id) END;
                CASE v_outcome
                    WHEN 'retried' THEN v_count := v_count + 1;
                    WHEN 'attempts_exhausted' THEN
                        -- The type allows fewer now: it is final.
                        UPDATE public.job_queue q SET retry_at = NULL WHERE q.id = v_job.id;
                    ELSE
                        IF v_outcome = 'at_limit' THEN
                            v_full := v_full || v_job.job_type;
                        END IF;
                        v_waiting := v_waiting || v_job.id;
                END CASE;
            END LOOP;
            UPDATE public.job_queue q SET retry_at = v_now + interval '1 minute'
            -- See policies/plans.sql.
            WHERE q.id = ANY (v_waiting) AND coalesce(q.status, '') = 'failed' AND q.retry_at <= v_now;
        END LOOP;
        EXIT WHEN v_seen < p_limit OR v_count >= p_limit;
    END LOOP;
    RETURN v_count;
END
$$;
