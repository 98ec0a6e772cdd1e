-- The two tables of the queue, partitioned by the time in their ids, and what supports them.

CREATE TABLE public.job_queue (
    id               uuid        NOT NULL DEFAULT streamvibe.new_id(),
    user_id          uuid        NOT NULL,
    -- streamvibe.id_time(id), written by what inserts. Not GENERATED: PostgreSQL (18) prepares such an expression anew for
    -- every row that an UPDATE touches, which was a third of the cost of completing a job.
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL DEFAULT streamvibe.now(),
    scheduled_for    timestamptz NOT NULL DEFAULT streamvibe.now(),
    expires_at       timestamptz,
    started_at       timestamptz,
    completed_at     timestamptz,
    retry_at         timestamptz,
    claim_token      bigint,
    job_priority     smallint    NOT NULL DEFAULT 5,
    retry_count      smallint    NOT NULL DEFAULT 0,
    progress         real,
    turn             integer     NOT NULL DEFAULT 0,
    isolated         boolean     NOT NULL DEFAULT false,
    job_type         text        COLLATE "C" NOT NULL,
    status           text        COLLATE "C" NOT NULL DEFAULT 'pending',
    worker_id        text,
    idempotency_key  text        COLLATE "C",
    failure_kind     text,
    error_message    text,
    progress_message text,
    params           jsonb       NOT NULL DEFAULT '{}',
    result           jsonb,
    CONSTRAINT job_queue_pkey PRIMARY KEY (id) INCLUDE (status),
    CONSTRAINT job_queue_status_known
        CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    CONSTRAINT job_queue_priority_range CHECK (job_priority BETWEEN 0 AND 9),
    CONSTRAINT job_queue_finished_has_end
        CHECK ((completed_at IS NULL) = (status IN ('pending', 'processing'))),
    CONSTRAINT job_queue_processing_has_claim
        CHECK (status <> 'processing' OR (worker_id IS NOT NULL AND claim_token IS NOT NULL AND started_at IS NOT NULL)),
    CONSTRAINT job_queue_params_object CHECK (jsonb_typeof(params) = 'object')
) PARTITION BY RANGE (id);

COMMENT ON TABLE public.job_queue IS 'StreamVibe: one row per job. Written by functions only.';
COMMENT ON COLUMN public.job_queue.created_at IS 'The time in the id, so both orders agree.';
COMMENT ON COLUMN public.job_queue.retry_count IS 'Attempts that failed so far; the running attempt is retry_count + 1.';
COMMENT ON COLUMN public.job_queue.retry_at IS 'On a failed job: when retry_failed_jobs() brings it back; NULL when it never will.';
COMMENT ON COLUMN public.job_queue.turn IS 'How many minutes later than its own time the job counts as due, because others of the user wait: see streamvibe.pickup_rank().';
COMMENT ON COLUMN public.job_queue.isolated IS 'Was held by a worker that died with several jobs: runs alone in its process next time.';
COMMENT ON COLUMN public.job_queue.claim_token IS 'The claim that holds a processing job. Stale tokens are refused.';

CREATE TABLE public.job_log (
    id         uuid        NOT NULL DEFAULT streamvibe.new_id(),
    job_id     uuid        NOT NULL,
    user_id    uuid        NOT NULL,
    created_at timestamptz NOT NULL GENERATED ALWAYS AS (streamvibe.id_time(id)) STORED,
    log_level  text        COLLATE "C" NOT NULL DEFAULT 'info',
    message    text        NOT NULL,
    metadata   jsonb,
    CONSTRAINT job_log_pkey PRIMARY KEY (id),
    CONSTRAINT job_log_level_known CHECK (log_level IN ('debug', 'info', 'warning', 'error'))
) PARTITION BY RANGE (id);

COMMENT ON TABLE public.job_log IS
    'StreamVibe: what handlers logged. No foreign key: logs and jobs leave on their own schedules.';

-- Which range each partition holds. Read instead of the catalogue, so that a missing one has its own error.
CREATE TABLE streamvibe.partition (
    parent_name    text        NOT NULL,
    lower_at       timestamptz NOT NULL,
    upper_at       timestamptz NOT NULL,
    upper_id       uuid        NOT NULL,
    partition_name text        NOT NULL UNIQUE,
    PRIMARY KEY (parent_name, lower_at),
    CHECK (lower_at < upper_at)
);

CREATE TABLE streamvibe.setting (
    only_row               boolean  PRIMARY KEY DEFAULT true CHECK (only_row),
    default_max_live_jobs  integer  NOT NULL DEFAULT 10 CHECK (default_max_live_jobs >= 0),
    partition_width        interval NOT NULL DEFAULT '7 days' CHECK (
        -- Whole days: leaves are named for the day they begin, and months differ in length.
        partition_width >= '1 day' AND partition_width = date_trunc('day', partition_width)
        AND extract(year FROM partition_width) = 0 AND extract(month FROM partition_width) = 0),
    -- A retry due within this time waits as pending and keeps the user's live slot; a later one waits as
    -- failed with retry_at, outside the limit, until retry_failed_jobs() finds room for it.
    retry_in_place_max     interval NOT NULL DEFAULT '5 minutes',
    max_result_bytes       integer  NOT NULL DEFAULT 1048576 CHECK (max_result_bytes > 0)
);
INSERT INTO streamvibe.setting DEFAULT VALUES;

CREATE TABLE streamvibe.job_type (
    name             text        COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_.-]{0,62}$'),
    cache_ttl        interval    NOT NULL DEFAULT '1 hour',
    dedupe_window    interval    NOT NULL DEFAULT '5 minutes',
    max_attempts     smallint    NOT NULL DEFAULT 3 CHECK (max_attempts BETWEEN 1 AND 100),
    backoff_base     interval    NOT NULL DEFAULT '2 seconds',
    backoff_max      interval    NOT NULL DEFAULT '1 hour',
    timeout          interval    NOT NULL DEFAULT '30 minutes',
    max_live_jobs    integer     CHECK (max_live_jobs >= 0),
    priority         smallint    NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
    expires_after    interval    DEFAULT '24 hours',
    retention        interval    NOT NULL DEFAULT '7 days',
    log_retention    interval    NOT NULL DEFAULT '30 days',
    max_params_bytes integer     NOT NULL DEFAULT 1048576 CHECK (max_params_bytes > 0),
    registered_at    timestamptz NOT NULL DEFAULT streamvibe.now()
);

-- One row per user who ever asked for a job. Locking it is the user's lock; it also carries their limit.
CREATE TABLE streamvibe.account (
    user_id       uuid    PRIMARY KEY,
    max_live_jobs integer CHECK (max_live_jobs >= 0)
);

-- Which job an idempotency key of a user means, whether that request made it, joined it or found its result.
CREATE TABLE streamvibe.idempotency (
    user_id         uuid NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    job_id          uuid NOT NULL,
    PRIMARY KEY (user_id, idempotency_key)
);

CREATE TABLE streamvibe.worker (
    id           text        PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),
    job_types    text[],
    lease        interval    NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    started_at   timestamptz NOT NULL,
    asleep       boolean     NOT NULL DEFAULT false,
    -- The same for the types whose jobs it claims to run them inside transactions: it looks for those by itself.
    transaction_types   text[]  NOT NULL DEFAULT '{}',
    transactions_asleep boolean NOT NULL DEFAULT false,
    metadata     jsonb,
    -- It is gone, but others have rows of its jobs locked: what recovery does with those when it can. Handed back by
    -- a worker that left; isolated, and not taken for the killer, when it died with several.
    left_over    text        CHECK (left_over IN ('hand back', 'isolate'))
) WITH (fillfactor = 50);

-- Who holds what, until it is finished. A job that stands in a list is held by that claim's worker, whatever
-- its row says; a finished one leaves the list in the transaction that finishes it.
CREATE TABLE streamvibe.claim (
    token      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    worker_id  text        NOT NULL,
    claimed_at timestamptz NOT NULL,
    -- Its jobs run inside a transaction that has this row locked (hold_claim): once the row can be locked, that
    -- transaction is over, and so is whoever ran it.
    in_transaction boolean NOT NULL DEFAULT false,
    -- Only ever true inside that transaction: it cannot commit before all jobs have left the list, or keep_claim().
    held       boolean     NOT NULL DEFAULT false,
    job_ids    uuid[]      NOT NULL,
    -- The transaction that made it, by which live_claims() finds it.
    made_in    xid8        NOT NULL DEFAULT pg_current_xact_id()
);
ALTER TABLE streamvibe.claim ALTER COLUMN job_ids SET STORAGE EXTERNAL;
CREATE INDEX claim_made_in ON streamvibe.claim (made_in);
ALTER TABLE streamvibe.claim SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Looked at when a transaction that holds a claim commits: what a handler wrote must not be kept without its end.
CREATE FUNCTION streamvibe.refuse_held_claim() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM streamvibe.claim c WHERE c.token = new.token AND c.held) THEN
        PERFORM streamvibe.raise_error('SV001', 'connection', 'COMMIT or SET CONSTRAINTS ALL IMMEDIATE',
            'the transaction of a claim ends with its jobs, not before',
            'Return, and the worker commits; raise, and it rolls back; name constraints that are to be checked now.');
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER refuse_held_claim AFTER UPDATE ON streamvibe.claim
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.held) EXECUTE FUNCTION streamvibe.refuse_held_claim();

-- Bulk creation arrives here by COPY; create_staged_jobs() moves a batch on in the same transaction.
CREATE UNLOGGED TABLE streamvibe.staging (
    batch           uuid    NOT NULL,
    ordinal         integer NOT NULL,
    user_id         uuid,
    job_type        text    COLLATE "C",
    params          jsonb,
    priority        integer,
    scheduled_for   timestamptz,
    PRIMARY KEY (batch, ordinal)
);

-- All claims. The rows of ended ones stay behind as long as a forgotten transaction may still see them, and reading past
-- a million of them takes half a second. So a session remembers which transactions can have made a claim that lives: those
-- whose claims it saw, those that had not ended, and those that begin later. What it remembers is exact, and stays so: a
-- claim that is committed late was made by a transaction that had not ended. It is brought up to date every hundred
-- transactions, and kept in a setting of the session, {first of the later ones, the others...}, because a table's rows
-- would pile up in the same way.
-- On a standby the transactions that have not ended are not known: there every look is a full one.
-- Index: claim_made_in.
CREATE FUNCTION streamvibe.live_claims() RETURNS SETOF streamvibe.claim
    LANGUAGE plpgsql STABLE ROWS 100
AS $$
DECLARE
    v_known xid8[] := coalesce(nullif(current_setting('streamvibe.live_claims', true), ''), '{0}');
BEGIN
    -- STABLE: the snapshot is the calling statement's, and so is what is read here.
    IF pg_snapshot_xmax(pg_current_snapshot())::text::bigint - v_known[1]::text::bigint > 100
       AND NOT pg_is_in_recovery() THEN
        v_known := pg_snapshot_xmax(pg_current_snapshot()) || ARRAY(
            SELECT c.made_in FROM streamvibe.claim c WHERE c.made_in >= v_known[1]
            UNION
            SELECT c.made_in FROM streamvibe.claim c WHERE c.made_in = ANY (v_known[2:])
            UNION
            SELECT pg_snapshot_xip(pg_current_snapshot())
            UNION
            -- A snapshot does not count its own transaction.
            SELECT o.xid FROM (SELECT pg_current_xact_id_if_assigned() AS xid) o WHERE o.xid IS NOT NULL);
        PERFORM set_config('streamvibe.live_claims', v_known::text, false);
    END IF;
    RETURN QUERY
    -- BETWEEN: so that the planner expects few, and reads the index, whatever it believes of the table.
    SELECT c.* FROM streamvibe.claim c WHERE c.made_in BETWEEN v_known[1] AND '18446744073709551615'
    UNION ALL
    SELECT c.* FROM streamvibe.claim c WHERE c.made_in = ANY (v_known[2:]) AND c.made_in < v_known[1];
END
$$;

-- A job as every reader sees it: one that a worker holds is processing, though its row says so only once it
-- has run for a while. The list of held jobs is short (what workers run at this moment) and hashed once.
CREATE VIEW streamvibe.job AS
SELECT q.id, q.user_id, q.job_type,
       CASE WHEN q.status = 'pending' AND q.id IN (SELECT unnest(c.job_ids) FROM streamvibe.live_claims() c)
            THEN 'processing' ELSE q.status END AS status,
       q.job_priority::integer AS job_priority, q.params, q.result, q.failure_kind, q.error_message,
       q.retry_count::integer AS retry_count, q.progress, q.progress_message, q.worker_id,
       q.created_at, q.updated_at, q.scheduled_for, q.started_at, q.completed_at, q.expires_at, q.retry_at,
       q.idempotency_key
FROM public.job_queue q;
