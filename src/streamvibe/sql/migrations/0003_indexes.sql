-- The fifteen named indexes, in the form that serves their queries, and two of our own.
-- Where one differs from the design it came from, docs/decisions/0002-indexes.md has the reason.

-- I1: a user's jobs by status, newest first; covers id and status, so both come from the index alone.
CREATE INDEX idx_job_queue_user_status_created ON public.job_queue (user_id, status, created_at DESC, id DESC);
-- I2: what runs next, whatever its type.
CREATE INDEX idx_job_queue_pending_pickup ON public.job_queue (job_priority DESC, scheduled_for, id)
    WHERE status = 'pending';
-- I3: what a worker holds.
CREATE INDEX idx_job_queue_worker_active ON public.job_queue (worker_id, started_at DESC)
    WHERE status = 'processing';
-- I4: finished jobs by age.
CREATE INDEX idx_job_queue_cleanup ON public.job_queue (status, completed_at)
    WHERE status IN ('completed', 'cancelled', 'failed');
-- I5: failed jobs by attempts, then by when they are due again.
CREATE INDEX idx_job_queue_retry_eligible ON public.job_queue (retry_count, retry_at)
    WHERE status = 'failed';
-- I6: breakdown by type; with its tail also what runs next of one type: streamvibe.pickup_rank(job_priority,
-- scheduled_for, created_at, turn), spelt out, because a function would be unfolded by every statement that inserts.
CREATE INDEX idx_job_queue_type_status ON public.job_queue (job_type, status, (
    CASE WHEN scheduled_for > created_at THEN 4611686018427387904 ELSE turn::bigint * 60000000 END
    + ((9 - job_priority)::bigint << 58)
    + (date_part('epoch', greatest(scheduled_for, created_at) - '1970-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint))
    WHERE status IN ('pending', 'processing', 'failed');
-- I7: a user's live jobs.
CREATE INDEX idx_job_queue_user_active ON public.job_queue (user_id, status)
    WHERE status IN ('pending', 'processing');
-- I8: pending jobs past their time.
CREATE INDEX idx_job_queue_expiration ON public.job_queue (expires_at)
    WHERE status = 'pending';
-- I9: what has been processing for long.
CREATE INDEX idx_job_queue_stuck_detection ON public.job_queue (started_at)
    WHERE status = 'processing';
-- I10, I11: search in params and results.
CREATE INDEX idx_job_queue_params_gin ON public.job_queue USING gin (params jsonb_path_ops);
CREATE INDEX idx_job_queue_result_gin ON public.job_queue USING gin (result jsonb_path_ops)
    WHERE result IS NOT NULL;

-- L1: a job's log, newest first.
CREATE INDEX idx_job_log_job_time ON public.job_log (job_id, created_at DESC, id DESC);
-- Ours: a user's lines of all jobs, newest first; also what a user reads of the table itself, under row security.
CREATE INDEX idx_job_log_user_time ON public.job_log (user_id, created_at DESC, id DESC);
-- L2: recent problems of all jobs.
CREATE INDEX idx_job_log_errors ON public.job_log (log_level, created_at DESC)
    WHERE log_level IN ('error', 'warning');
-- L3, L4: search in messages and metadata.
CREATE INDEX idx_job_log_message_fts ON public.job_log USING gin (to_tsvector('english', message));
CREATE INDEX idx_job_log_metadata_gin ON public.job_log USING gin (metadata jsonb_path_ops)
    WHERE metadata IS NOT NULL;

-- Ours: the same work asked again, live (completed_at IS NULL sorts first) or cached (newest first).
-- The expression is streamvibe.identity_hash(user_id, job_type, params), spelt out as above.
CREATE INDEX idx_job_queue_identity ON public.job_queue (
    ((uuid_hash(user_id)::bigint << 32) + (jsonb_hash_extended(params, hashtextextended(job_type, 0)) & 4294967295)),
    completed_at DESC);
