-- Forget that a user was to be erased: no file of the archive has rows of theirs any more that are older than p_before_id. What is
-- to be erased since is not forgotten.
-- Raises: SV004, SV016.
CREATE OR REPLACE FUNCTION streamvibe.finish_erasure(p_fence bigint, p_user_id uuid, p_before_id uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('finish_erasure');
    PERFORM streamvibe.require_archiver(p_fence);
    DELETE FROM streamvibe.erasure e WHERE e.user_id = p_user_id AND e.before_id = p_before_id
      AND e.left_queue_at IS NOT NULL;
END
$$;
