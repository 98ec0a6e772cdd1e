-- An index is bloated
-- More than half of it is empty: it takes memory and reads that its entries do not need.
SELECT CASE WHEN b.bloat_bytes > 1073741824 THEN 'warning' ELSE 'notice' END AS severity, b.index_oid::regclass::text AS subject,
       'a part of ' || b.index_name || ': ' || pg_size_pretty(b.size_bytes) || ', of which ' || pg_size_pretty(b.bloat_bytes)
       || ' empty (' || CASE WHEN b.is_exact THEN 'pgstattuple' ELSE 'estimated' END || ')' AS measured,
       format('REINDEX INDEX CONCURRENTLY %s', b.index_oid::regclass) AS fix
FROM streamvibe.leaf_index_bloat(true) b
WHERE b.bloat_bytes > 10 * 1024 * 1024 AND b.bloat_bytes > b.size_bytes / 2
