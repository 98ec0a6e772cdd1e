-- How jobs and log lines leave: see docs/decisions/0011-retention.md.

-- sealed_at: nothing in it changes any more. row_count: counted since then; what its jobs are in the statistics stands ready in
-- streamvibe.leaf_stat.
ALTER TABLE streamvibe.partition
    ADD COLUMN leaf_number bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN sealed_at timestamptz,
    ADD COLUMN row_count bigint,
    ADD CHECK (row_count IS NULL OR sealed_at IS NOT NULL);

-- What a sealed leaf's jobs are in the statistics, as notes that take them away (see streamvibe.stat_delta), a row for an hour of
-- them: in a quiet week there are as many minutes as jobs. They count from the moment in which the leaf is dropped.
CREATE TABLE streamvibe.leaf_stat (
    leaf_number   bigint        NOT NULL,
    job_type      text          COLLATE "C" NOT NULL,
    status        text          COLLATE "C" NOT NULL,
    minutes       timestamptz[] NOT NULL,
    jobs          integer[]     NOT NULL,
    waiting_us    bigint[]      NOT NULL,
    processing_us bigint[]      NOT NULL
);
CREATE INDEX leaf_stat_leaf ON streamvibe.leaf_stat (leaf_number);
-- The same of how long its completed jobs waited and were processed: of each the bucket.
CREATE TABLE streamvibe.leaf_sketch (
    leaf_number bigint      NOT NULL,
    job_type    text        COLLATE "C" NOT NULL,
    hour        timestamptz NOT NULL,
    waited      smallint[]  NOT NULL,
    processed   smallint[]  NOT NULL
);
CREATE INDEX leaf_sketch_leaf ON streamvibe.leaf_sketch (leaf_number);

-- Leaves that are gone, until compact_stats() has taken their notes.
CREATE TABLE streamvibe.dropped_leaf (
    leaf_number bigint PRIMARY KEY
);

-- Every note that counts. Read these; write streamvibe.stat_delta.
CREATE VIEW streamvibe.stat_note AS
SELECT d.job_type, d.status, d.minute, d.jobs, d.waiting_us, d.processing_us FROM streamvibe.stat_delta d
UNION ALL
SELECT l.job_type, l.status, u.minute, u.jobs, u.waiting_us, u.processing_us
FROM streamvibe.dropped_leaf g JOIN streamvibe.leaf_stat l USING (leaf_number)
CROSS JOIN LATERAL unnest(l.minutes, l.jobs, l.waiting_us, l.processing_us) u(minute, jobs, waiting_us, processing_us);

CREATE VIEW streamvibe.sketch_note AS
SELECT d.job_type, date_bin('1 hour', d.minute, '2000-01-01 00:00:00+00') AS hour, m.measure, m.bucket, sign(d.jobs)::integer AS jobs
FROM streamvibe.stat_delta d
CROSS JOIN LATERAL (SELECT 'waiting', u.bucket FROM unnest(d.waited) u(bucket)
                    UNION ALL SELECT 'processing', u.bucket FROM unnest(d.processed) u(bucket)) m(measure, bucket)
UNION ALL
SELECT l.job_type, l.hour, m.measure, m.bucket, -1
FROM streamvibe.dropped_leaf g JOIN streamvibe.leaf_sketch l USING (leaf_number)
CROSS JOIN LATERAL (SELECT 'waiting', u.bucket FROM unnest(l.waited) u(bucket)
                    UNION ALL SELECT 'processing', u.bucket FROM unnest(l.processed) u(bucket)) m(measure, bucket);

-- How far cleanup_old_jobs() has come with the finished jobs of a type that stays for a shorter time than others.
ALTER TABLE streamvibe.job_type
    ADD COLUMN cleaned_until timestamptz NOT NULL DEFAULT '1970-01-01 00:00:00+00',
    ADD COLUMN cleaned_id    uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ADD CHECK (retention > '0'), ADD CHECK (log_retention > '0');

-- By which keys are forgotten once their jobs are gone.
CREATE INDEX idempotency_job ON streamvibe.idempotency (job_id);
