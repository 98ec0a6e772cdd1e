-- Every table and index of the queue that has rows, with the name of what it is a part of: a leaf's is its parent's.
CREATE OR REPLACE FUNCTION streamvibe.own_relations()
    RETURNS TABLE (relation oid, kind "char", name text, of_table oid, table_name text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid, c.relkind, coalesce(p.relname, c.relname)::text, coalesce(i.indrelid, c.oid),
           coalesce(tp.relname, t.relname, p.relname, c.relname)::text
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_inherits h ON h.inhrelid = c.oid
    LEFT JOIN pg_class p ON p.oid = h.inhparent
    LEFT JOIN pg_index i ON i.indexrelid = c.oid
    LEFT JOIN pg_class t ON t.oid = i.indrelid
    LEFT JOIN pg_inherits th ON th.inhrelid = t.oid
    LEFT JOIN pg_class tp ON tp.oid = th.inhparent
    WHERE c.relkind IN ('r', 'i') AND n.nspname = 'streamvibe'
$$;
