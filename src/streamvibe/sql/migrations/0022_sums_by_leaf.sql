-- What is counted, by the leaf that the jobs are in: when one is dropped, its sums are left out from that moment, and none of its jobs
-- has to be read for it. See docs/decisions/0010-statistics.md and 0011-retention.md.

-- Who adds up meanwhile finds the row locked and comes again, who makes, counts or drops leaves waits; and until the functions of this
-- release are there, nobody does any of it. A call of the one before that was just about to drop a leaf finds it uncounted, and is
-- refused: it would leave the leaf's jobs in sums that are not its.
SELECT FROM streamvibe.stat_keeper FOR UPDATE;
LOCK TABLE streamvibe.partition IN EXCLUSIVE MODE;
UPDATE streamvibe.partition SET row_count = NULL WHERE parent_name = 'job_queue' AND row_count IS NOT NULL;
DROP FUNCTION IF EXISTS public.compact_stats(integer);
DROP FUNCTION IF EXISTS public.recount_stats();
DROP FUNCTION IF EXISTS streamvibe.count_partition(text);
DROP FUNCTION IF EXISTS streamvibe.drop_partition(text, interval);
DROP FUNCTION IF EXISTS streamvibe.counted_jobs(uuid, uuid);
-- Users can be erased meanwhile.
CREATE OR REPLACE FUNCTION streamvibe.open_leaves(p_parent text, p_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE streamvibe.partition p SET row_count = NULL WHERE p.parent_name = p_parent AND p.row_count IS NOT NULL;
END
$$;

-- minutes 1 for a minute, 10 for ten, 60 for an hour, 1440 for a day, 0 for all of them; -1 for all of one leaf.
-- leaf_number: streamvibe.partition's; 0 for those of all leaves (minutes 0), and of jobs in a partition that is not listed there; -1 for
-- what was noted before notes knew it: once a recount has placed them, a leaf can be dropped (streamvibe.place_sums).
CREATE TABLE streamvibe.stat_by_leaf (
    leaf_number   bigint      NOT NULL,
    minutes       smallint    NOT NULL CHECK (minutes IN (-1, 0, 1, 10, 60, 1440)),
    job_type      text        COLLATE "C" NOT NULL,
    status        text        COLLATE "C" NOT NULL,
    since         timestamptz NOT NULL,
    jobs          bigint      NOT NULL,
    waiting_us    bigint      NOT NULL,
    processing_us bigint      NOT NULL
) WITH (fillfactor = 50);
-- job_type: '' for all types together, where minutes is 0 or -1.
CREATE TABLE streamvibe.sketch_by_leaf (
    leaf_number bigint      NOT NULL,
    minutes     smallint    NOT NULL CHECK (minutes IN (-1, 0, 60)),
    bucket      smallint    NOT NULL,
    job_type    text        COLLATE "C" NOT NULL,
    measure     text        COLLATE "C" NOT NULL CHECK (measure IN ('waiting', 'processing')),
    since       timestamptz NOT NULL,
    jobs        bigint      NOT NULL
) WITH (fillfactor = 50);

-- What there is, without what dropped leaves left behind: that is taken from it here.
WITH left_behind AS (
    SELECT l.job_type, l.status, u.minute, u.jobs, u.waiting_us, u.processing_us
    FROM streamvibe.dropped_leaf g JOIN streamvibe.leaf_stat l USING (leaf_number)
    CROSS JOIN LATERAL unnest(l.minutes, l.jobs, l.waiting_us, l.processing_us) u(minute, jobs, waiting_us, processing_us)
), removed AS (
    INSERT INTO streamvibe.counter_note (name, job_type, detail, value)
    SELECT 'removed', l.job_type, '', -sum(l.jobs) FROM left_behind l GROUP BY l.job_type
)
INSERT INTO streamvibe.stat_by_leaf (leaf_number, minutes, job_type, status, since, jobs, waiting_us, processing_us)
SELECT CASE e.minutes WHEN 0 THEN 0 ELSE -1 END, e.minutes, e.job_type, e.status, e.since, sum(e.jobs), sum(e.waiting_us),
       sum(e.processing_us)
FROM (SELECT s.minutes, s.job_type, s.status, s.since, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat s
      UNION ALL
      SELECT w.minutes, l.job_type, l.status,
             CASE w.minutes WHEN 0 THEN 'epoch' ELSE date_bin(w.minutes * interval '1 minute', l.minute, '2000-01-01 00:00:00+00') END,
             l.jobs, coalesce(l.waiting_us, 0), coalesce(l.processing_us, 0)
      FROM left_behind l CROSS JOIN (VALUES (0::smallint), (1::smallint), (60::smallint), (1440::smallint)) w(minutes)) e
GROUP BY e.minutes, e.job_type, e.status, e.since
HAVING sum(e.jobs) <> 0 OR sum(e.waiting_us) <> 0 OR sum(e.processing_us) <> 0
ORDER BY e.minutes, e.since, e.job_type, e.status;

INSERT INTO streamvibe.sketch_by_leaf (leaf_number, minutes, bucket, job_type, measure, since, jobs)
SELECT CASE e.minutes WHEN 0 THEN 0 ELSE -1 END, e.minutes, e.bucket, e.job_type, e.measure, e.since, sum(e.jobs)
FROM (SELECT s.minutes, s.bucket, s.job_type, s.measure, s.since, s.jobs FROM streamvibe.stat_sketch s
      UNION ALL
      SELECT w.minutes, m.bucket, l.job_type, m.measure, CASE w.minutes WHEN 0 THEN 'epoch' ELSE l.hour END, -1
      FROM streamvibe.dropped_leaf g JOIN streamvibe.leaf_sketch l USING (leaf_number)
      CROSS JOIN LATERAL (SELECT 'waiting', u.bucket FROM unnest(l.waited) u(bucket)
                          UNION ALL SELECT 'processing', u.bucket FROM unnest(l.processed) u(bucket)) m(measure, bucket)
      CROSS JOIN (VALUES (0::smallint), (60::smallint)) w(minutes)) e
GROUP BY e.minutes, e.bucket, e.job_type, e.measure, e.since
HAVING sum(e.jobs) <> 0
ORDER BY e.minutes, e.since, e.job_type, e.measure, e.bucket;

-- The leaves' own add up to those of all; durations of all types together are those of each.
INSERT INTO streamvibe.stat_by_leaf (leaf_number, minutes, job_type, status, since, jobs, waiting_us, processing_us)
SELECT -1, -1, s.job_type, s.status, s.since, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat_by_leaf s WHERE s.minutes = 0;
INSERT INTO streamvibe.sketch_by_leaf (leaf_number, minutes, bucket, job_type, measure, since, jobs)
SELECT s.leaf_number, 0, s.bucket, '', s.measure, s.since, sum(s.jobs) FROM streamvibe.sketch_by_leaf s
WHERE s.minutes = 0 GROUP BY s.leaf_number, s.bucket, s.measure, s.since;
-- And minutes to tens of them: what is asked of an hour that is not whole reads fourteen rows of a type and status at most, instead of 59.
INSERT INTO streamvibe.stat_by_leaf (leaf_number, minutes, job_type, status, since, jobs, waiting_us, processing_us)
SELECT s.leaf_number, 10, s.job_type, s.status, date_bin('10 minutes', s.since, '2000-01-01 00:00:00+00'), sum(s.jobs), sum(s.waiting_us),
       sum(s.processing_us)
FROM streamvibe.stat_by_leaf s WHERE s.minutes = 1 GROUP BY 1, 3, 4, 5;

ALTER TABLE streamvibe.stat_by_leaf ADD PRIMARY KEY (minutes, since, job_type, status, leaf_number);
ALTER TABLE streamvibe.sketch_by_leaf ADD PRIMARY KEY (minutes, since, job_type, measure, bucket, leaf_number);
-- By which what a dropped leaf left is found.
CREATE INDEX stat_leaf ON streamvibe.stat_by_leaf (leaf_number);
CREATE INDEX stat_sketch_leaf ON streamvibe.sketch_by_leaf (leaf_number);

-- Now what readers and writers have open, all of it or nothing, in tries of 50 ms: they take it in any order, and would be in each
-- other's way.
DO $$
DECLARE
    v_was CONSTANT text := current_setting('lock_timeout');
    v_begun CONSTANT timestamptz := clock_timestamp();
BEGIN
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '50ms', true);
            LOCK TABLE streamvibe.stat_note, streamvibe.sketch_note, streamvibe.stat, streamvibe.stat_sketch IN ACCESS EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF v_was::interval > '0' AND clock_timestamp() > v_begun + v_was::interval THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', v_was, true);
END
$$;

-- NULL: noted by a function of an older release.
ALTER TABLE streamvibe.stat_delta ADD COLUMN leaf_number bigint;

-- Everything that is noted of jobs that are there. Read these; write streamvibe.stat_delta.
CREATE OR REPLACE VIEW streamvibe.stat_note AS
SELECT d.job_type, d.status, d.minute, d.jobs, d.waiting_us, d.processing_us FROM streamvibe.stat_delta d
WHERE (d.leaf_number = ANY (ARRAY(SELECT g.leaf_number FROM streamvibe.dropped_leaf g))) IS NOT TRUE;

CREATE OR REPLACE VIEW streamvibe.sketch_note AS
SELECT d.job_type, date_bin('1 hour', d.minute, '2000-01-01 00:00:00+00') AS hour, m.measure, m.bucket, sign(d.jobs)::integer AS jobs
FROM streamvibe.stat_delta d
CROSS JOIN LATERAL (SELECT 'waiting', u.bucket FROM unnest(d.waited) u(bucket)
                    UNION ALL SELECT 'processing', u.bucket FROM unnest(d.processed) u(bucket)) m(measure, bucket)
WHERE (d.leaf_number = ANY (ARRAY(SELECT g.leaf_number FROM streamvibe.dropped_leaf g))) IS NOT TRUE;

DROP TABLE streamvibe.stat, streamvibe.stat_sketch, streamvibe.leaf_stat, streamvibe.leaf_sketch;
DELETE FROM streamvibe.dropped_leaf;
ALTER TABLE streamvibe.stat_by_leaf RENAME TO stat;
ALTER TABLE streamvibe.sketch_by_leaf RENAME TO stat_sketch;
ALTER INDEX streamvibe.stat_by_leaf_pkey RENAME TO stat_pkey;
ALTER INDEX streamvibe.sketch_by_leaf_pkey RENAME TO stat_sketch_pkey;
ALTER TABLE streamvibe.stat RENAME CONSTRAINT stat_by_leaf_minutes_check TO stat_minutes_check;
ALTER TABLE streamvibe.stat_sketch RENAME CONSTRAINT sketch_by_leaf_minutes_check TO stat_sketch_minutes_check;
ALTER TABLE streamvibe.stat_sketch RENAME CONSTRAINT sketch_by_leaf_measure_check TO stat_sketch_measure_check;

-- What is added up of jobs that are there; rows of one type, status and time are to be added up.
CREATE VIEW streamvibe.stat_now AS
SELECT s.minutes, s.since, s.job_type, s.status, s.jobs, s.waiting_us, s.processing_us FROM streamvibe.stat s
WHERE s.minutes >= 0 AND s.leaf_number <> ALL (ARRAY(SELECT g.leaf_number FROM streamvibe.dropped_leaf g))
UNION ALL
SELECT 0::smallint, s.since, s.job_type, s.status, -s.jobs, -s.waiting_us, -s.processing_us
-- (OFFSET: nothing is read but of these leaves.)
FROM streamvibe.dropped_leaf g
CROSS JOIN LATERAL (SELECT s.* FROM streamvibe.stat s WHERE s.minutes = -1 AND s.leaf_number = g.leaf_number OFFSET 0) s;

-- The same of durations, by the hour; those of all time: streamvibe.sketch_total.
CREATE VIEW streamvibe.sketch_now AS
SELECT s.since AS hour, s.job_type, s.measure, s.bucket, s.jobs FROM streamvibe.stat_sketch s
WHERE s.minutes = 60 AND s.leaf_number <> ALL (ARRAY(SELECT g.leaf_number FROM streamvibe.dropped_leaf g));

-- Which leaf a job's row is in: its tableoid is table_oid. (Not a join, which functions that have nested loops off would read whole.)
CREATE VIEW streamvibe.leaf AS
SELECT c.oid AS table_oid, (SELECT p.leaf_number FROM streamvibe.partition p WHERE p.partition_name = c.relname::text) AS leaf_number
FROM pg_catalog.pg_class c WHERE c.relnamespace = 'streamvibe'::regnamespace;
