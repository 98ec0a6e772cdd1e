-- What ended in a day, added up (minutes 1440), beside hours and minutes: what is asked of a week reads seven rows of a type and
-- status instead of 168. Who adds up meanwhile (compact_stats) finds the row locked and comes again;
-- and until the functions of this release are there nobody adds up, because the one before would leave days out.
SELECT FROM streamvibe.stat_keeper FOR UPDATE;
DROP FUNCTION IF EXISTS public.compact_stats(integer);
ALTER TABLE streamvibe.stat DROP CONSTRAINT stat_minutes_check, ADD CONSTRAINT stat_minutes_check CHECK (minutes IN (0, 1, 60, 1440));
INSERT INTO streamvibe.stat (minutes, since, job_type, status, jobs, waiting_us, processing_us)
SELECT 1440, pg_catalog.date_bin('1 day', s.since, '2000-01-01 00:00:00+00'), s.job_type, s.status, sum(s.jobs), sum(s.waiting_us),
       sum(s.processing_us)
FROM streamvibe.stat s WHERE s.minutes = 60
GROUP BY 2, s.job_type, s.status;
