-- Who looks after the queue, and what was done: see docs/decisions/0012-maintenance.md.

-- The process whose turn it is. fence grows by one whenever another one takes over: what the one before begins under an old
-- number is refused, however late it comes.
CREATE TABLE streamvibe.leader (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    leader_id  text,
    fence      bigint      NOT NULL DEFAULT 0,
    led_since  timestamptz,
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
INSERT INTO streamvibe.leader DEFAULT VALUES;

-- What is to be done, and when. An operator may change schedule and enabled.
CREATE TABLE streamvibe.duty (
    name             text        COLLATE "C" PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 100),
    usual_schedule   text        NOT NULL,
    -- Cron, in UTC, or 'every 30 seconds' (set_maintenance_duty). NULL: the usual one.
    schedule         text,
    enabled          boolean     NOT NULL DEFAULT true,
    -- Set while it runs, and by a process that died in it.
    running_since    timestamptz,
    last_started_at  timestamptz,
    last_ended_at    timestamptz,
    last_done        bigint,
    last_error       text
) WITH (fillfactor = 50);

-- Every run. Runs one after the other that had nothing to do are one row, so that looking every two seconds does not fill
-- a table.
CREATE TABLE streamvibe.duty_run (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    duty       text        COLLATE "C" NOT NULL,
    fence      bigint      NOT NULL,
    leader_id  text        NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL,
    runs       integer     NOT NULL DEFAULT 1,
    done       bigint,
    error      text
) WITH (fillfactor = 90);
CREATE INDEX duty_run_of_duty ON streamvibe.duty_run (duty, id);

-- What must not be claimed for now: a job type's jobs, a user's, or all.
CREATE TABLE streamvibe.pause (
    kind      text        COLLATE "C" NOT NULL CHECK (kind IN ('all', 'job_type', 'user')),
    name      text        COLLATE "C" NOT NULL,
    paused_at timestamptz NOT NULL,
    reason    text,
    PRIMARY KEY (kind, name),
    CHECK ((kind = 'all') = (name = ''))
);
