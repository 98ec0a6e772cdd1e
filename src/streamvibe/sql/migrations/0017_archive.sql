-- What leaves is kept in an archive of Parquet files: see docs/decisions/0013-archive.md.

-- Where: file:///folder or s3://bucket/prefix; NULL: nowhere. archive_id stands there too, so that no two queues share a place,
-- and a folder that is not mounted is not taken for it.
ALTER TABLE streamvibe.setting ADD COLUMN archive_url text, ADD COLUMN archive_id uuid;

-- archived_at: all of it is in complete files.
ALTER TABLE streamvibe.partition
    ADD COLUMN archived_at timestamptz,
    ADD CHECK (archived_at IS NULL OR sealed_at IS NOT NULL);

-- Jobs that were deleted one by one (cleanup_old_jobs) and are not archived yet: the columns of job_queue, and
-- batch: with which others it is being archived.
CREATE TABLE streamvibe.leaving_job (
    LIKE public.job_queue,
    batch   bigint,
    left_at timestamptz NOT NULL DEFAULT streamvibe.now(),
    PRIMARY KEY (id)
);
CREATE INDEX leaving_job_batch ON streamvibe.leaving_job (batch) WHERE batch IS NOT NULL;

-- The process whose turn it is to write to the archive; as streamvibe.leader.
CREATE TABLE streamvibe.archiver (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    holder     text,
    fence      bigint      NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity',
    last_batch bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO streamvibe.archiver DEFAULT VALUES;

-- Every object that may be in the archive; written down before the object is. What is not complete is not part of the archive:
-- it is being written, or is to be deleted.
-- source: the leaf, or 'leaving-' and the batch. replaces: the complete file whose rows it has, but for erased ones.
-- deleted_at: the object was deleted; a process that was stopped in the middle of writing it may still finish.
CREATE TABLE streamvibe.archive_file (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text        COLLATE "C" NOT NULL CHECK (kind IN ('jobs', 'logs')),
    source      text        COLLATE "C" NOT NULL,
    day         date        NOT NULL,
    url         text        NOT NULL,
    key         text        COLLATE "C" NOT NULL UNIQUE,
    state       text        COLLATE "C" NOT NULL DEFAULT 'writing' CHECK (state IN ('writing', 'complete', 'obsolete')),
    replaces    bigint,
    row_count   bigint,
    byte_count  bigint,
    checksum    numeric,
    written_at  timestamptz NOT NULL DEFAULT streamvibe.now(),
    verified_at timestamptz,
    deleted_at  timestamptz,
    CHECK (state <> 'complete' OR verified_at IS NOT NULL),
    CHECK ((verified_at IS NULL) = (row_count IS NULL) AND (verified_at IS NULL) = (byte_count IS NULL)
           AND (verified_at IS NULL) = (checksum IS NULL))
);
-- Nothing is in the archive twice.
CREATE UNIQUE INDEX archive_file_complete ON streamvibe.archive_file (source, day) WHERE state = 'complete';
CREATE INDEX archive_file_incomplete ON streamvibe.archive_file (id) WHERE state <> 'complete';

-- Users of whom nothing is to be kept that was asked for before before_id. beside: transactions that wrote to
-- the queue at that moment, and may bring jobs of that time (pg_locks.virtualtransaction). left_queue_at: only the archive still has to be searched.
CREATE TABLE streamvibe.erasure (
    user_id       uuid        PRIMARY KEY,
    begun_at      timestamptz NOT NULL,
    before_id     uuid        NOT NULL,
    beside        text[]      NOT NULL,
    left_queue_at timestamptz
);

-- A time as the archive has it: microseconds since 1970, exactly (streamvibe.microseconds is that only until 2255), infinity as
-- the largest number and its opposite. (Not STRICT: it would be called instead of inlined, at ten times the cost.)
CREATE FUNCTION streamvibe.archived_time(p_at timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN pg_catalog.isfinite(p_at)
                THEN (extract(epoch FROM p_at - '1970-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint
                WHEN p_at = 'infinity'::timestamptz THEN 9223372036854775807
                WHEN p_at = '-infinity'::timestamptz THEN -9223372036854775807 END
$$;

-- The day of an id, as days since 1970 in UTC.
CREATE FUNCTION streamvibe.day_of_id(p_id uuid) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT (('x' || pg_catalog.substr(pg_catalog.encode(pg_catalog.uuid_send(p_id), 'hex'), 1, 12))::bit(48)::bigint
            / 86400000)::integer
$$;

-- Rows as the archive has them, and of each a digest of all columns: 60 bits of the MD5 of every value, after its length, or '-'
-- for NULL. A file is whole when the sum of its rows' digests, worked out again from what is in it (streamvibe.archive.columns),
-- is the sum of these. place: 'queue', or 'leaving' with its batch.
CREATE VIEW streamvibe.archivable_job AS
SELECT j.place, j.batch, j.id AS row_id, j.user_id AS row_user_id, t.*, ('x' || pg_catalog.left(pg_catalog.md5(pg_catalog.concat_ws('|',
        coalesce(length(t.id) || ':' || t.id, '-'), coalesce(length(t.user_id) || ':' || t.user_id, '-'),
        coalesce(length(t.created_at::text) || ':' || t.created_at::text, '-'),
        coalesce(length(t.updated_at::text) || ':' || t.updated_at::text, '-'),
        coalesce(length(t.scheduled_for::text) || ':' || t.scheduled_for::text, '-'),
        coalesce(length(t.expires_at::text) || ':' || t.expires_at::text, '-'),
        coalesce(length(t.started_at::text) || ':' || t.started_at::text, '-'),
        coalesce(length(t.completed_at::text) || ':' || t.completed_at::text, '-'),
        coalesce(length(t.retry_at::text) || ':' || t.retry_at::text, '-'),
        coalesce(length(t.claim_token::text) || ':' || t.claim_token::text, '-'),
        coalesce(length(t.job_priority::text) || ':' || t.job_priority::text, '-'),
        coalesce(length(t.retry_count::text) || ':' || t.retry_count::text, '-'),
        coalesce(length(b.progress) || ':' || b.progress, '-'),
        coalesce(length(t.turn::text) || ':' || t.turn::text, '-'),
        coalesce(length(t.isolated::integer::text) || ':' || t.isolated::integer::text, '-'),
        coalesce(length(t.job_type) || ':' || t.job_type, '-'), coalesce(length(t.status) || ':' || t.status, '-'),
        coalesce(length(t.worker_id) || ':' || t.worker_id, '-'),
        coalesce(length(t.idempotency_key) || ':' || t.idempotency_key, '-'),
        coalesce(length(t.failure_kind) || ':' || t.failure_kind, '-'),
        coalesce(length(t.error_message) || ':' || t.error_message, '-'),
        coalesce(length(t.progress_message) || ':' || t.progress_message, '-'),
        coalesce(length(t.params) || ':' || t.params, '-'), coalesce(length(t.result) || ':' || t.result, '-'),
        coalesce(length(t.traceparent) || ':' || t.traceparent, '-')
       )), 15))::bit(60)::bigint AS digest
FROM (
    SELECT 'queue' AS place, NULL::bigint AS batch, q.id, q.user_id, q.created_at, q.updated_at, q.scheduled_for,
           q.expires_at, q.started_at, q.completed_at, q.retry_at, q.claim_token, q.job_priority, q.retry_count, q.progress, q.turn,
           q.isolated, q.job_type, q.status, q.worker_id, q.idempotency_key, q.failure_kind, q.error_message,
           q.progress_message, q.params, q.result, q.traceparent
    FROM public.job_queue q
    UNION ALL
    SELECT 'leaving', l.batch, l.id, l.user_id, l.created_at, l.updated_at, l.scheduled_for, l.expires_at, l.started_at,
           l.completed_at, l.retry_at, l.claim_token, l.job_priority, l.retry_count, l.progress, l.turn,
           l.isolated, l.job_type, l.status, l.worker_id, l.idempotency_key, l.failure_kind, l.error_message,
           l.progress_message, l.params, l.result, l.traceparent
    FROM streamvibe.leaving_job l) j
-- OFFSET 0: each value is worked out once, not in every place where the digest names it.
CROSS JOIN LATERAL (
    SELECT j.id::text AS id, j.user_id::text AS user_id, streamvibe.archived_time(j.created_at) AS created_at,
           streamvibe.archived_time(j.updated_at) AS updated_at,
           streamvibe.archived_time(j.scheduled_for) AS scheduled_for,
           streamvibe.archived_time(j.expires_at) AS expires_at, streamvibe.archived_time(j.started_at) AS started_at,
           streamvibe.archived_time(j.completed_at) AS completed_at, streamvibe.archived_time(j.retry_at) AS retry_at,
           j.claim_token, j.job_priority, j.retry_count, j.progress, j.turn, j.isolated, j.job_type, j.status,
           j.worker_id, j.idempotency_key, j.failure_kind, j.error_message, j.progress_message,
           j.params::text AS params, j.result::text AS result, j.traceparent
    OFFSET 0) t
-- The bits of a number: two programs may write one differently.
CROSS JOIN LATERAL (
    SELECT ('x' || pg_catalog.encode(pg_catalog.float4send(j.progress), 'hex'))::bit(32)::integer::text AS progress
    OFFSET 0) b;

CREATE VIEW streamvibe.archivable_line AS
SELECT j.id AS row_id, j.user_id AS row_user_id, t.*, ('x' || pg_catalog.left(pg_catalog.md5(pg_catalog.concat_ws('|',
        coalesce(length(t.id) || ':' || t.id, '-'), coalesce(length(t.job_id) || ':' || t.job_id, '-'),
        coalesce(length(t.user_id) || ':' || t.user_id, '-'),
        coalesce(length(t.created_at::text) || ':' || t.created_at::text, '-'),
        coalesce(length(t.log_level) || ':' || t.log_level, '-'),
        coalesce(length(t.message) || ':' || t.message, '-'), coalesce(length(t.metadata) || ':' || t.metadata, '-')
       )), 15))::bit(60)::bigint AS digest
FROM public.job_log j
CROSS JOIN LATERAL (
    SELECT j.id::text AS id, j.job_id::text AS job_id, j.user_id::text AS user_id,
           streamvibe.archived_time(j.created_at) AS created_at, j.log_level, j.message, j.metadata::text AS metadata
    OFFSET 0) t;
