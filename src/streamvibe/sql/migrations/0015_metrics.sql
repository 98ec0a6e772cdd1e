-- Counters that only grow, and the trace that a job belongs to: see docs/decisions/0014-metrics.md.

-- What happened since ever, added up by compact_stats(). name, detail:
--   ended       status         how often jobs ended so; one that failed and is retried ends again
--   waited      upper bound    completed jobs by how long they waited, in seconds (streamvibe.histogram_bounds); processed: they took
--   waiting_us, processing_us  sums of the same
--   failed      kind           attempts that failed, and jobs that expired
--   asked       outcome        requests that made no job: joined, cached
--   recovered   outcome        jobs taken back from workers that were gone
--   removed                    jobs that are not in the queue any more: with the others, how many were created
CREATE TABLE streamvibe.counter (
    name     text   COLLATE "C" NOT NULL,
    job_type text   COLLATE "C" NOT NULL,
    detail   text   COLLATE "C" NOT NULL,
    value    bigint NOT NULL,
    PRIMARY KEY (name, job_type, detail)
) WITH (fillfactor = 50);

-- What one transaction adds to them, always as a new row, so that no two wait for each other. What streamvibe.stat_delta tells
-- already is not noted again (streamvibe.counts_of).
CREATE TABLE streamvibe.counter_note (
    name     text   COLLATE "C" NOT NULL,
    job_type text   COLLATE "C" NOT NULL,
    detail   text   COLLATE "C" NOT NULL,
    value    bigint NOT NULL
);
ALTER TABLE streamvibe.counter_note SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Upper bounds of the histograms' buckets, in seconds.
CREATE FUNCTION streamvibe.histogram_bounds() RETURNS double precision[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT '{0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60,300,900,3600,14400,Infinity}'::double precision[] $$;

-- The first of them that is not below a bucket of the sketch: durations within 1 % of a bound may count to the next one.
-- (The numbers: the largest sketch bucket whose sketch_seconds() each of the bounds holds, and one more.)
CREATE FUNCTION streamvibe.histogram_bound(p_bucket smallint) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT (streamvibe.histogram_bounds())[1 + pg_catalog.width_bucket(p_bucket::integer,
        '{-264,-229,-183,-149,-114,-68,-34,1,47,81,116,171,206,286,341,410,480}'::integer[])]::text
$$;

-- What a note of the statistics (streamvibe.stat_delta) says has happened: jobs that come to an end are noted with a positive
-- number then, and only then.
CREATE FUNCTION streamvibe.counts_of(
    p_status text, p_jobs bigint, p_waiting_us bigint, p_processing_us bigint, p_waited smallint[], p_processed smallint[]
) RETURNS TABLE (name text, detail text, value bigint)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 3
AS $$
    SELECT 'ended', p_status, p_jobs WHERE p_jobs > 0 AND p_status IN ('completed', 'failed', 'cancelled')
    UNION ALL
    SELECT m.name, '', m.us
    FROM (VALUES ('waiting_us', p_waiting_us), ('processing_us', p_processing_us)) m(name, us)
    WHERE p_jobs > 0 AND p_status = 'completed' AND m.us IS NOT NULL
    UNION ALL
    SELECT m.name, streamvibe.histogram_bound(u.bucket), pg_catalog.count(*)
    FROM (VALUES ('waited', p_waited), ('processed', p_processed)) m(name, buckets)
    CROSS JOIN LATERAL pg_catalog.unnest(m.buckets) u(bucket)
    WHERE p_jobs > 0 AND p_status = 'completed'
    GROUP BY 1, 2
$$;

-- Everything that counts; rows of one name, type and detail are to be added up.
CREATE VIEW streamvibe.counter_now AS
SELECT c.name, c.job_type, c.detail, c.value FROM streamvibe.counter c
UNION ALL
SELECT n.name, n.job_type, n.detail, n.value FROM streamvibe.counter_note n
UNION ALL
SELECT e.name, d.job_type, e.detail, e.value
FROM streamvibe.stat_delta d
CROSS JOIN LATERAL streamvibe.counts_of(d.status, d.jobs, d.waiting_us, d.processing_us, d.waited, d.processed) e
WHERE d.jobs > 0 AND d.status IN ('completed', 'failed', 'cancelled');

-- The queue may be older than its counters: from here on they agree with it.
INSERT INTO streamvibe.counter (name, job_type, detail, value)
SELECT 'ended', s.job_type, s.status, sum(s.jobs) FROM streamvibe.stat s
WHERE s.minutes = 0 AND s.status IN ('completed', 'failed', 'cancelled') GROUP BY s.job_type, s.status
UNION ALL
SELECT m.name, s.job_type, '', sum(m.us)
FROM streamvibe.stat s CROSS JOIN LATERAL (VALUES ('waiting_us', s.waiting_us), ('processing_us', s.processing_us)) m(name, us)
WHERE s.minutes = 0 AND s.status = 'completed' GROUP BY m.name, s.job_type
UNION ALL
SELECT CASE s.measure WHEN 'waiting' THEN 'waited' ELSE 'processed' END, s.job_type, streamvibe.histogram_bound(s.bucket), sum(s.jobs)
FROM streamvibe.stat_sketch s WHERE s.minutes = 0 GROUP BY 1, 2, 3;

-- The W3C trace context of who asked for the job, and NULL for most. Last, so that nothing that is stored changes: of a row without
-- one it takes no room (the bitmap of NULLs has a bit left).
ALTER TABLE public.job_queue ADD COLUMN traceparent text COLLATE "C";
COMMENT ON COLUMN public.job_queue.traceparent IS 'The W3C trace context of who asked for the job.';
