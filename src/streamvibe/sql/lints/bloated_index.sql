-- An index is bloated
-- More than half of it is empty: it takes memory and reads that its entries do not need.
SELECT CASE WHEN b.bloat_bytes > 1073741824 THEN 'warning' ELSE 'notice' END AS severity, b.index_name AS subject,
       pg_size_pretty(b.size_bytes) || ', of which ' || pg_size_pretty(b.bloat_bytes) || ' empty (' || b.method || ')' AS measured,
       format('REINDEX INDEX CONCURRENTLY %s', b.worst_index) AS fix
FROM get_index_bloat() b
WHERE b.bloat_bytes > 10 * 1024 * 1024 AND b.bloat_bytes > b.size_bytes / 2
