-- The ledger: what was applied to this database. Written by the migration runner only.
DO $$
BEGIN
    -- IF NOT EXISTS would still demand CREATE on the database.
    IF to_regnamespace('streamvibe') IS NULL THEN
        CREATE SCHEMA streamvibe;
    END IF;
END
$$;
CREATE TABLE IF NOT EXISTS streamvibe.schema_migration (
    kind       text        NOT NULL CHECK (kind IN ('migration', 'function', 'policy')),
    name       text        NOT NULL,
    version    integer     UNIQUE CHECK ((version IS NOT NULL) = (kind = 'migration')),
    checksum   text        NOT NULL,
    release    text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (kind, name)
);
COMMENT ON TABLE streamvibe.schema_migration IS 'StreamVibe: what was applied to this database, by streamvibe migrate.';
