-- Whether there are statistics of jobs of which nobody said in which leaf they are: what functions of a release before leaves noted.
-- Index: stat_leaf.
CREATE OR REPLACE FUNCTION streamvibe.has_unplaced_sums() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM streamvibe.stat s WHERE s.leaf_number = -1)
        OR EXISTS (SELECT FROM streamvibe.stat_delta d WHERE d.leaf_number IS NULL)
$$;
