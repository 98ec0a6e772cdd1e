-- The queue is not as it should be
-- More waits than is worked off, jobs take long, or many fail.
SELECT a.severity, a.alert AS subject, a.message AS measured, a.fix
FROM get_job_queue_alerts() a
