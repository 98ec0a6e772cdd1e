-- Whether the caller may act for every user: service_role, the owner of the queue, or a superuser.
-- The caller is the role that was set, else the one that logged in. pg_has_role() would say yes to every API
-- connection, because the role an API logs in with is a member of all the others.
CREATE OR REPLACE FUNCTION streamvibe.is_service() RETURNS boolean
    LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_role name := CASE WHEN current_setting('role') = 'none' THEN session_user
                        ELSE current_setting('role')::name END;
BEGIN
    -- Every call of the queue asks, and these two answers need no query. (is_superuser is of that same role.)
    IF v_role = 'service_role' OR current_setting('is_superuser') = 'on' THEN
        RETURN true;
    END IF;
    RETURN EXISTS (SELECT FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
                   WHERE c.oid = 'public.job_queue'::regclass AND r.rolname = v_role);
END
$$;
