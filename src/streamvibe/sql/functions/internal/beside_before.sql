-- A list of objects, each with the one of the same keys of another list as its member "before" (null: there was none).
CREATE OR REPLACE FUNCTION streamvibe.beside_before(p_list jsonb, p_before jsonb, p_keys text[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_agg(n.line || jsonb_build_object('before', b.line - 'before') ORDER BY n.place), '[]')
    FROM jsonb_array_elements(p_list) WITH ORDINALITY n(line, place)
    LEFT JOIN LATERAL (
        SELECT o.line FROM jsonb_array_elements(p_before) o(line)
        WHERE NOT EXISTS (SELECT FROM unnest(p_keys) k(key) WHERE o.line -> k.key IS DISTINCT FROM n.line -> k.key)
        LIMIT 1) b ON true
$$;
