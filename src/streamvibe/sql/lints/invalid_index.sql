-- An index is invalid
-- A build that was interrupted left it behind: every write pays for it, and no query uses it.
SELECT 'warning' AS severity, i.indexrelid::regclass::text AS subject,
       pg_size_pretty(pg_relation_size(i.indexrelid)) || ', of ' || i.indrelid::regclass AS measured,
       CASE WHEN c.relname ~ '_ccnew\d*$|_ccold\d*$' THEN format('DROP INDEX CONCURRENTLY %s', i.indexrelid::regclass)
            ELSE format('REINDEX INDEX CONCURRENTLY %s', i.indexrelid::regclass) END AS fix
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE NOT i.indisvalid
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index b WHERE b.index_relid = i.indexrelid)
  AND (n.nspname = 'streamvibe' OR n.nspname = 'public' AND t.relname IN ('job_queue', 'job_log'))
