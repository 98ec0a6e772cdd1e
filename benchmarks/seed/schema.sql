-- The design that this queue grew out of, as its document describes it: one plain table for jobs and one for logs, its fifteen
-- indexes with its names and columns, its settings, and functions that do what it says they do, in the way it says.
-- `streamvibe bench queries --baseline seed` copies the jobs of the measured queue into it and asks both.
--
-- Where the document is silent: columns it never names are left out (a job's progress, its claim); auth.uid() is a setting of the
-- session; updated_at is written by a BEFORE trigger, because an AFTER trigger cannot; ids are those of the measured jobs, which
-- are in the order of their making and so kinder to its indexes than the random ones that it shows.

CREATE SCHEMA seed;

CREATE FUNCTION seed.uid() RETURNS uuid
    LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('seed.uid', true), '')::uuid $$;

CREATE TABLE seed.job_queue (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id       uuid        NOT NULL,
    job_type      text        NOT NULL,
    status        text        NOT NULL DEFAULT 'pending',
    job_priority  integer     NOT NULL DEFAULT 5,
    params        jsonb       NOT NULL DEFAULT '{}',
    result        jsonb,
    error_message text,
    worker_id     text,
    retry_count   integer     NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    scheduled_for timestamptz NOT NULL DEFAULT now(),
    started_at    timestamptz,
    completed_at  timestamptz,
    expires_at    timestamptz DEFAULT now() + interval '24 hours'
);

CREATE TABLE seed.job_log (
    id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    job_id     uuid        NOT NULL,
    log_level  text        NOT NULL DEFAULT 'info',
    message    text        NOT NULL,
    metadata   jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE seed.job_queue ALTER COLUMN status SET STATISTICS 1000;
ALTER TABLE seed.job_queue ALTER COLUMN job_type SET STATISTICS 1000;
ALTER TABLE seed.job_queue SET (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 10, autovacuum_vacuum_cost_limit = 1000
);
ALTER TABLE seed.job_log SET (toast_tuple_target = 8160);

ALTER TABLE seed.job_queue ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_jobs ON seed.job_queue FOR SELECT USING (user_id = seed.uid());
GRANT USAGE ON SCHEMA seed TO PUBLIC;
GRANT SELECT ON seed.job_queue TO PUBLIC;
