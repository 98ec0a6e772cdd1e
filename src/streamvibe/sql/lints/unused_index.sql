-- An index of somebody else's is never used
-- Every write pays for it. (StreamVibe's own each have a query, which may be rare.)
SELECT 'notice' AS severity, r.index::regclass::text AS subject,
       'no scan since ' || coalesce(date_trunc('second', d.stats_reset)::text, 'the server has statistics') || ', '
       || pg_size_pretty(r.size) AS measured,
       format('DROP INDEX %s', r.index::regclass) AS fix
FROM (
    -- Those of the leaves count together.
    SELECT coalesce(pg_partition_root(s.indexrelid), s.indexrelid) AS index, sum(s.idx_scan) AS scans,
           sum(t.n_tup_ins) AS written, sum(pg_relation_size(s.indexrelid))::bigint AS size
    FROM pg_stat_user_indexes s
    JOIN pg_index i ON i.indexrelid = s.indexrelid AND NOT i.indisunique
    JOIN pg_stat_user_tables t ON t.relid = s.relid
    WHERE s.schemaname IN ('streamvibe', 'public') AND s.relname ~ '^job_(queue|log)(_\d+)?$'
    GROUP BY 1) r
JOIN pg_stat_database d ON d.datname = current_database()
WHERE r.scans = 0 AND r.written > 1000 AND r.index::regclass::text !~ '^(public\.)?idx_job_'
