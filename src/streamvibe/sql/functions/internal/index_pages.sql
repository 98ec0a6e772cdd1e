-- How many pages a B-tree would take that is built anew, by what pgstatindex() says of it: one is its own, and pages that are deleted, and
-- wait to be used again, are no leaves. An index with one leaf has no inner page. (An empty leaf is full to 0.05 % where one entry makes 0.25; before 17 that is so.)
CREATE OR REPLACE FUNCTION streamvibe.index_pages(p_leaf_pages bigint, p_leaf_density double precision, p_internal_pages bigint)
    RETURNS double precision
    LANGUAGE sql IMMUTABLE
AS $$
    SELECT 1 + CASE WHEN p_leaf_pages = 0 OR p_leaf_density < 0.1 THEN 0
                    WHEN p_leaf_pages * p_leaf_density <= 90 THEN 1
                    ELSE ceil(p_leaf_pages * p_leaf_density / 90) + p_internal_pages END
$$;
