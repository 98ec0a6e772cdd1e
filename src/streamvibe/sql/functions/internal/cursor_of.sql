-- An opaque cursor: version, the last row's id, and a check over that id and everything the list was filtered by.
-- created_at is the id's time, so the id alone says where the page ended, to the microsecond.
CREATE OR REPLACE FUNCTION streamvibe.cursor_of(p_id uuid, p_filter text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'v1' || translate(encode(uuid_send(p_id)
               || substring(int8send(hashtextextended(p_filter, uuid_hash_extended(p_id, 1))) FROM 1 FOR 5),
           'base64'), '+/', '-_')
$$;
