-- Whether a document holds a number beyond 1e308 or nearer to 0 than 1e-307. Ask before anything writes it out:
-- 1e131071 is sixteen bytes in binary and 128 KiB of text, so a small document of such numbers would become gigabytes.
-- Nor could Python, JavaScript or Go read them.
CREATE OR REPLACE FUNCTION streamvibe.has_wild_number(p_document jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT pg_catalog.jsonb_path_exists(p_document,
        '$.** ? (@.type() == "number" && (@ > 1e308 || @ < -1e308 || (@ > -1e-307 && @ < 1e-307 && @ != 0)))')
$$;
