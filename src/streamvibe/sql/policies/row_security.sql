-- Who sees which rows when they read the tables themselves. Writing is for the functions alone.
ALTER TABLE public.job_queue ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.job_log ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS own_rows ON public.job_queue;
DROP POLICY IF EXISTS own_rows ON public.job_log;
DROP POLICY IF EXISTS service_reads_all ON public.job_queue;
DROP POLICY IF EXISTS service_reads_all ON public.job_log;
CREATE POLICY own_rows ON public.job_queue FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
CREATE POLICY own_rows ON public.job_log FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
CREATE POLICY service_reads_all ON public.job_queue FOR SELECT TO service_role USING (true);
CREATE POLICY service_reads_all ON public.job_log FOR SELECT TO service_role USING (true);
