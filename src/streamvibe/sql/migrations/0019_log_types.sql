-- A line knows its job's type, so that lines of a type whose log_retention is shorter than others' can leave before them
-- (cleanup_old_logs). Lines that were written before this stay as long as any.
ALTER TABLE public.job_log ADD COLUMN job_type text COLLATE "C";

-- How far cleanup_old_logs() has come with the lines of such a type.
ALTER TABLE streamvibe.job_type ADD COLUMN lines_cleaned_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
