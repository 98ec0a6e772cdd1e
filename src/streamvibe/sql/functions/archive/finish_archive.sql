-- Make the verified files of a source (see archive_days) part of the archive, and the source archived, in one step: a leaf may be dropped from
-- now on, deleted jobs are gone from streamvibe.leaving_job.
-- Returns: false when the source has other rows by now than its files: a user was erased meanwhile. Nothing changes; archive it
--          again.
-- Locks:   the leaf's row in streamvibe.partition, or the rows of the batch.
-- Raises:  SV001 a file of it is not verified, SV004, SV006, SV009, SV016.
CREATE OR REPLACE FUNCTION streamvibe.finish_archive(p_fence bigint, p_source text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_batch bigint := substring(p_source FROM '^leaving-([0-9]{1,18})$')::bigint;
    v_leaf streamvibe.partition;
    v_archived bigint;
    v_unverified text;
BEGIN
    PERFORM streamvibe.require_service('finish_archive');
    PERFORM streamvibe.require_read_committed('finish_archive', 'Use READ COMMITTED.');
    PERFORM streamvibe.require_archiver(p_fence);
    SELECT coalesce(sum(f.row_count), 0), min(f.key) FILTER (WHERE f.verified_at IS NULL) INTO v_archived, v_unverified
    FROM streamvibe.archive_file f
    WHERE f.source = p_source AND f.state = 'writing' AND f.replaces IS NULL AND f.deleted_at IS NULL;
    IF v_unverified IS NOT NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_source', p_source, v_unverified || ' is not verified',
            'Run `streamvibe archive run`, which writes it again.');
    END IF;
    IF v_batch IS NOT NULL THEN
        IF v_archived <> (SELECT count(*) FROM (SELECT FROM streamvibe.leaving_job l WHERE l.batch = v_batch FOR UPDATE) l) THEN
            RETURN false;
        END IF;
        DELETE FROM streamvibe.leaving_job l WHERE l.batch = v_batch;
    ELSE
        v_leaf := streamvibe.leaf_of_name(p_source);
        -- Erasing a user takes the count back.
        IF v_archived IS DISTINCT FROM v_leaf.row_count THEN
            RETURN false;
        END IF;
        UPDATE streamvibe.partition p SET archived_at = streamvibe.now() WHERE p.partition_name = p_source;
    END IF;
    UPDATE streamvibe.archive_file f SET state = 'complete'
    WHERE f.source = p_source AND f.state = 'writing' AND f.replaces IS NULL AND f.deleted_at IS NULL;
    RETURN true;
END
$$;
