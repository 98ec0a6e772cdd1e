-- Refuse to touch an archive in a copy of the database that it belongs to.
-- Raises: SV017.
CREATE OR REPLACE FUNCTION streamvibe.refuse_copy() RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_url text;
BEGIN
    SELECT coalesce(s.archive_url, 'off') INTO v_url FROM streamvibe.setting s WHERE s.archive_owner <> streamvibe.this_database();
    IF FOUND THEN
        PERFORM streamvibe.raise_error('SV017', 'archive', v_url,
            'this database is a copy of the one whose archive that is, or was moved',
            'Beside the other database: streamvibe archive set --copy, with a place of its own, or off. '
            'Instead of it, when nothing runs there any more: streamvibe archive set --moved, with the same place.');
    END IF;
END
$$;
