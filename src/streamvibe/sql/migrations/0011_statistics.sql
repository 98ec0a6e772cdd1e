-- What is counted, so that nobody has to scan the queue for it: see docs/decisions/0010-statistics.md.

-- What one transaction changed: so many jobs more (or fewer) of a type and status, by the minute in which they ended, or were
-- asked for when they have not. Whoever writes a job's row writes the difference here in the same transaction, always as a
-- new row, so that no two wait for each other; compact_stats() adds them up.
-- waiting_us, processing_us: sums over completed jobs. waited, processed: of each completed job the bucket it falls into
-- (streamvibe.sketch_bucket).
CREATE TABLE streamvibe.stat_delta (
    job_type      text        COLLATE "C" NOT NULL,
    status        text        COLLATE "C" NOT NULL,
    minute        timestamptz NOT NULL,
    jobs          integer     NOT NULL,
    waiting_us    bigint,
    processing_us bigint,
    waited        smallint[],
    processed     smallint[]
);
ALTER TABLE streamvibe.stat_delta SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, toast_tuple_target = 8160);

-- The same added up: minutes 1 for a minute, 60 for an hour, 0 for all of them.
CREATE TABLE streamvibe.stat (
    minutes       smallint    NOT NULL,
    job_type      text        COLLATE "C" NOT NULL,
    status        text        COLLATE "C" NOT NULL,
    since         timestamptz NOT NULL,
    jobs          bigint      NOT NULL,
    waiting_us    bigint      NOT NULL,
    processing_us bigint      NOT NULL,
    PRIMARY KEY (minutes, since, job_type, status),
    CHECK (minutes IN (0, 1, 60))
) WITH (fillfactor = 50);

-- How many completed jobs waited, or were processed, for how long: by the hour (minutes 60) and in all (0).
CREATE TABLE streamvibe.stat_sketch (
    minutes     smallint    NOT NULL,
    job_type    text        COLLATE "C" NOT NULL,
    since       timestamptz NOT NULL,
    measure     text        COLLATE "C" NOT NULL,
    bucket      smallint    NOT NULL,
    jobs        bigint      NOT NULL,
    PRIMARY KEY (minutes, since, job_type, measure, bucket),
    CHECK (minutes IN (0, 60)),
    CHECK (measure IN ('waiting', 'processing'))
) WITH (fillfactor = 50);

CREATE FUNCTION streamvibe.minute_of(p_at timestamptz) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT pg_catalog.date_bin('1 minute', p_at, '2000-01-01 00:00:00+00'::timestamptz) $$;

-- Microseconds.
CREATE FUNCTION streamvibe.duration_us(p_from timestamptz, p_to timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT (pg_catalog.date_part('epoch', p_to - p_from) * 1000000)::bigint $$;

-- The bucket of a duration: its borders grow by (1 + 0.01) / (1 - 0.01), so that the value that stands for a bucket
-- (sketch_seconds) is within 1 % of all in it. (C. Masson, J. Rim, H. Lee: DDSketch, VLDB 2019.) What is shorter than a
-- microsecond counts as one. (Not STRICT: with greatest() in it, it would be called instead of inlined, at ten times the cost.)
CREATE FUNCTION streamvibe.sketch_bucket(p_from timestamptz, p_to timestamptz) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN p_to > p_from THEN
        pg_catalog.ceil(pg_catalog.ln(greatest(pg_catalog.date_part('epoch', p_to - p_from), 0.000001::double precision))
                        / 0.020000666706669543::double precision)::smallint
    WHEN p_to <= p_from THEN -690 END::smallint
$$;

CREATE FUNCTION streamvibe.sketch_seconds(p_bucket smallint) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT pg_catalog.exp(p_bucket * 0.020000666706669543::double precision) * 0.99::double precision $$;

-- Whoever adds up the notes, or counts anew, has this row locked: one at a time. (Not a lock on a table, which every vacuum of
-- it would hold up; not an advisory one, which anybody could hold.)
CREATE TABLE streamvibe.stat_keeper (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);
INSERT INTO streamvibe.stat_keeper DEFAULT VALUES;
