-- Something is paused
-- Its jobs wait, and expire after a day, until it is resumed.
SELECT CASE WHEN p.paused_at < streamvibe.now() - interval '1 hour' THEN 'warning' ELSE 'notice' END AS severity,
       coalesce('job type ' || p.job_type, 'user ' || p.user_id, 'everything') AS subject,
       'since ' || date_trunc('second', p.paused_at) || coalesce(': ' || p.reason, '') AS measured,
       format('SELECT resume_jobs(%s) -- or in a shell: streamvibe resume %s',
              concat_ws(', ', 'p_job_type => ' || quote_literal(p.job_type), 'p_user_id => ' || quote_literal(p.user_id)),
              coalesce('--type ' || p.job_type, '--user ' || p.user_id, '--all')) AS fix
FROM get_pauses() p
