-- The archive does not keep up
-- What is to be archived stays in the database, and takes its disk, until it is: nothing leaves unarchived.
SELECT 'warning' AS severity, f.subject, f.measured, 'streamvibe archive run' AS fix
FROM (
    SELECT p.partition_name AS subject, 'sealed at ' || date_trunc('second', p.sealed_at) || ', and not archived since' AS measured
    FROM streamvibe.partition p, streamvibe.setting s
    WHERE s.archive_url IS NOT NULL AND p.archived_at IS NULL AND p.sealed_at < streamvibe.now() - interval '1 day'
    UNION ALL
    SELECT 'deleted jobs', w.jobs || ' jobs wait to be archived, the first since ' || date_trunc('second', w.since)
    FROM (SELECT count(*) AS jobs, min(l.left_at) AS since FROM streamvibe.leaving_job l) w
    WHERE w.since < streamvibe.now() - interval '1 day'
    UNION ALL
    SELECT 'user ' || e.user_id, 'to be erased since ' || date_trunc('second', e.begun_at)
    FROM streamvibe.erasure e WHERE e.left_queue_at IS NOT NULL AND e.begun_at < streamvibe.now() - interval '1 day'
) f
UNION ALL
SELECT 'warning', 'user ' || e.user_id, 'to be erased since ' || date_trunc('second', e.begun_at) || ', and still in the queue',
       'streamvibe jobs erase --yes --user ' || e.user_id
FROM streamvibe.erasure e WHERE e.left_queue_at IS NULL AND e.begun_at < streamvibe.now() - interval '1 day'
