-- What is counted of jobs that ended (or were asked for, when they have not ended) since this minute; NULL: of all. Rows are to
-- be added up: the whole days (UTC), the hours before the first of them, the tens of minutes before the first of those, and so on. Without what
-- is only noted yet (stat_delta). Hours are added, never days, which are 23 or 25 hours long where the session's clocks change.
CREATE OR REPLACE FUNCTION streamvibe.stat_since(p_since timestamptz)
    RETURNS TABLE (job_type text, status text, jobs bigint, waiting_us bigint, processing_us bigint)
    LANGUAGE sql STABLE ROWS 100
AS $$
    SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
    WHERE p_since IS NULL AND s.minutes = 0
    UNION ALL
    SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
    WHERE s.minutes = 1440 AND s.since >= p_since
    UNION ALL
    SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
    WHERE s.minutes = 60 AND s.since >= p_since
      AND s.since < date_bin('1 day', p_since + interval '23:59', '2000-01-01 00:00:00+00'::timestamptz)
    UNION ALL
    SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
    WHERE s.minutes = 10 AND s.since >= p_since
      AND s.since < date_bin('1 hour', p_since + interval '59 minutes', '2000-01-01 00:00:00+00'::timestamptz)
    UNION ALL
    SELECT s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_now s
    WHERE s.minutes = 1 AND s.since >= p_since
      AND s.since < date_bin('10 minutes', p_since + interval '9 minutes', '2000-01-01 00:00:00+00'::timestamptz)
$$;
