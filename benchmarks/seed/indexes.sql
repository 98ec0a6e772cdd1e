-- The fifteen indexes as printed, made once the rows are there, and the two triggers.

CREATE INDEX idx_job_queue_user_status_created ON seed.job_queue (user_id, status, created_at DESC);
CREATE INDEX idx_job_queue_pending_pickup ON seed.job_queue (status, scheduled_for, job_priority DESC, id)
    WHERE status = 'pending';
CREATE INDEX idx_job_queue_worker_active ON seed.job_queue (worker_id, status, started_at DESC) WHERE status = 'processing';
CREATE INDEX idx_job_queue_cleanup ON seed.job_queue (status, completed_at)
    WHERE status IN ('completed', 'cancelled', 'failed');
CREATE INDEX idx_job_queue_retry_eligible ON seed.job_queue (status, retry_count, updated_at) WHERE status = 'failed';
CREATE INDEX idx_job_queue_type_status ON seed.job_queue (job_type, status)
    WHERE status IN ('pending', 'processing', 'failed');
CREATE INDEX idx_job_queue_user_active ON seed.job_queue (user_id, status) WHERE status IN ('pending', 'processing');
CREATE INDEX idx_job_queue_expiration ON seed.job_queue (status, expires_at) WHERE status = 'pending';
CREATE INDEX idx_job_queue_stuck_detection ON seed.job_queue (status, started_at) WHERE status = 'processing';
CREATE INDEX idx_job_queue_params_gin ON seed.job_queue USING gin (params jsonb_path_ops);
CREATE INDEX idx_job_queue_result_gin ON seed.job_queue USING gin (result jsonb_path_ops) WHERE result IS NOT NULL;
CREATE INDEX idx_job_log_job_time ON seed.job_log (job_id, created_at DESC);
CREATE INDEX idx_job_log_errors ON seed.job_log (log_level, created_at DESC) WHERE log_level IN ('error', 'warning');
CREATE INDEX idx_job_log_message_fts ON seed.job_log USING gin (to_tsvector('english', message));
CREATE INDEX idx_job_log_metadata_gin ON seed.job_log USING gin (metadata jsonb_path_ops) WHERE metadata IS NOT NULL;

CREATE FUNCTION seed.touch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;
CREATE TRIGGER updated_at BEFORE UPDATE ON seed.job_queue FOR EACH ROW EXECUTE FUNCTION seed.touch();

CREATE FUNCTION seed.tell() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_notify('job_queue', NEW.job_type); RETURN NULL; END $$;
CREATE TRIGGER notify AFTER INSERT ON seed.job_queue FOR EACH ROW EXECUTE FUNCTION seed.tell();
