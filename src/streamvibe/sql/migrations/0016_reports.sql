-- Reports that maintenance makes, and the figures of single days that they are added up from: see docs/decisions/0015-reports.md.
CREATE TABLE streamvibe.report (
    kind         text        COLLATE "C" NOT NULL CHECK (kind IN ('daily', 'weekly', 'monthly')),
    period_start timestamptz NOT NULL,
    period_end   timestamptz NOT NULL CHECK (period_end > period_start),
    made_at      timestamptz NOT NULL,
    content      jsonb       NOT NULL,
    PRIMARY KEY (kind, period_start)
);
