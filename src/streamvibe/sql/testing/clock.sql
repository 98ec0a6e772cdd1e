-- Marks this database as a test database: its clock can be moved. Never part of a migration.
-- UPDATE streamvibe.test_clock SET shift = shift + '1 hour' moves every function's "now" and every new id.
CREATE TABLE streamvibe.test_clock (
    only_row boolean  PRIMARY KEY DEFAULT true CHECK (only_row),
    shift    interval NOT NULL DEFAULT '0'
);
INSERT INTO streamvibe.test_clock DEFAULT VALUES;
-- Who may call now() has to be able to read it.
GRANT SELECT ON streamvibe.test_clock TO service_role;

CREATE OR REPLACE FUNCTION streamvibe.now() RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL SAFE
AS 'SELECT pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => pg_catalog.date_part(''epoch'', c.shift))
    FROM streamvibe.test_clock c';

CREATE OR REPLACE FUNCTION streamvibe.new_id() RETURNS uuid
    LANGUAGE sql VOLATILE PARALLEL SAFE
AS 'SELECT streamvibe.make_id(streamvibe.now())';
