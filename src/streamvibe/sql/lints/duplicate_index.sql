-- Two indexes are the same
-- Every write pays for both; one answers all that the other does.
SELECT 'warning' AS severity, d.extra::regclass::text AS subject,
       'the same as ' || d.kept::regclass || ', ' || pg_size_pretty(pg_relation_size(d.extra)) AS measured,
       format('DROP INDEX %s', d.extra::regclass) AS fix
FROM (
    SELECT (array_agg(i.indexrelid ORDER BY i.indisprimary DESC, i.indisunique DESC, h.inhrelid IS NULL, i.indexrelid))[1] AS kept,
           unnest((array_agg(i.indexrelid ORDER BY i.indisprimary DESC, i.indisunique DESC, h.inhrelid IS NULL, i.indexrelid))[2:]) AS extra
    FROM pg_index i
    JOIN pg_class t ON t.oid = i.indrelid AND t.relkind IN ('r', 'p')
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    LEFT JOIN pg_inherits h ON h.inhrelid = i.indexrelid
    WHERE i.indisvalid AND (n.nspname = 'streamvibe' OR n.nspname = 'public' AND t.relname IN ('job_queue', 'job_log'))
    GROUP BY i.indrelid, c.relam, i.indkey::text, i.indclass::text, i.indoption::text, i.indcollation::text,
             pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)
    HAVING count(*) > 1) d
WHERE NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = d.extra)
