-- What is wrong with the queue at this moment, by the statistics; no row when nothing is.
-- alert:   'pending' more jobs wait than p_pending; 'processing_time' jobs that ended in the last hour took longer than
--          p_processing on average; 'failures' more than p_failure_rate of them failed (of at least 20); 'stuck' jobs are held by
--          workers whose lease is over, or have been processing for 30 minutes in nobody's claim.
-- value, threshold: jobs, seconds, a share from 0 to 1, jobs.
-- Raises:  SV001, SV004.
CREATE OR REPLACE FUNCTION public.get_job_queue_alerts(
    p_pending bigint DEFAULT 1000, p_processing interval DEFAULT '5 minutes', p_failure_rate double precision DEFAULT 0.1
) RETURNS TABLE (alert text, severity text, value double precision, threshold double precision, message text, fix text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_bad record;
    v_now timestamptz := streamvibe.now();
    v_all record;
    v_hour record;
    v_stuck bigint;
BEGIN
    PERFORM streamvibe.require_service('get_job_queue_alerts');
    SELECT c.* INTO v_bad
    FROM (VALUES
        ('p_pending', p_pending::text, p_pending >= 0, 'Use 0 or more jobs.'),
        ('p_processing', p_processing::text, p_processing >= '0', 'Use an interval of 0 or more.'),
        ('p_failure_rate', p_failure_rate::text, p_failure_rate BETWEEN 0 AND 1, 'Use 0 to 1: 0.1 is ten percent.')
    ) c(field, received, good, fix) WHERE c.good IS NOT TRUE LIMIT 1;
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV001', v_bad.field, v_bad.received, v_bad.field || ' is out of range', v_bad.fix);
    END IF;
    SELECT s.* INTO v_all FROM public.get_job_queue_stats() s;
    SELECT s.* INTO v_hour FROM public.get_job_queue_stats(v_now - interval '1 hour') s;
    IF v_all.pending_jobs > p_pending THEN
        RETURN QUERY SELECT 'pending', CASE WHEN v_all.pending_jobs > 10 * p_pending THEN 'warning' ELSE 'notice' END,
            v_all.pending_jobs::double precision, p_pending::double precision,
            v_all.pending_jobs || ' jobs wait, more than ' || p_pending,
            'Start more workers: streamvibe worker --concurrency 100; see which wait: SELECT jobs_by_type FROM get_job_queue_stats()';
    END IF;
    IF v_hour.avg_processing_seconds > extract(epoch FROM p_processing) THEN
        RETURN QUERY SELECT 'processing_time', 'warning', v_hour.avg_processing_seconds, extract(epoch FROM p_processing)::double precision,
            'jobs that ended in the last hour took ' || round(v_hour.avg_processing_seconds::numeric, 1) || ' s on average, more than '
            || extract(epoch FROM p_processing)::integer || ' s',
            'SELECT job_type, avg(completed_at - started_at) FROM job_queue WHERE status = ''completed'' AND completed_at > now() - interval ''1 hour'' GROUP BY 1 ORDER BY 2 DESC';
    END IF;
    IF v_hour.error_rate > p_failure_rate AND v_hour.completed_jobs + v_hour.failed_jobs >= 20 THEN
        RETURN QUERY SELECT 'failures', CASE WHEN v_hour.error_rate > 0.5 THEN 'critical' ELSE 'warning' END, v_hour.error_rate,
            p_failure_rate,
            round(100 * v_hour.error_rate::numeric, 1) || ' % of the ' || v_hour.completed_jobs + v_hour.failed_jobs
            || ' jobs that ended in the last hour failed, more than ' || round(100 * p_failure_rate::numeric, 1) || ' %',
            'SELECT job_type, failure_kind, error_message, count(*) FROM job_queue WHERE status = ''failed'' AND completed_at > now() - interval ''1 hour'' GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT 10';
    END IF;
    v_stuck := (SELECT coalesce(sum(cardinality(c.job_ids)), 0)
                FROM streamvibe.live_claims() c LEFT JOIN streamvibe.worker w ON w.id = c.worker_id
                WHERE coalesce(w.heartbeat_at + w.lease, '-infinity') < v_now)
               + (SELECT count(*) FROM public.job_queue q
                  WHERE q.status = 'processing' AND q.started_at < v_now - interval '30 minutes'
                    AND q.id NOT IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c));
    IF v_stuck > 0 THEN
        RETURN QUERY SELECT 'stuck', 'critical', v_stuck::double precision, 0::double precision,
            v_stuck || ' jobs are held by workers that are gone', 'SELECT * FROM recover_stuck_jobs()';
    END IF;
END
$$;
