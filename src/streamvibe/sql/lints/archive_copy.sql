-- The archive is another database's
-- This database is a copy of that one. Nothing is written or erased there from here, and as long as an archive is set, nothing
-- leaves the queue, and the disk fills.
SELECT 'warning' AS severity, 'archive' AS subject,
       coalesce(s.archive_url, 'off by now') || ', set in the database that this one was made from' AS measured,
       'streamvibe archive set --copy off' || coalesce('   # or, where this one is instead of that: streamvibe archive set --moved ' || s.archive_url, '')
       AS fix
FROM streamvibe.setting s
WHERE s.archive_owner <> streamvibe.this_database()
