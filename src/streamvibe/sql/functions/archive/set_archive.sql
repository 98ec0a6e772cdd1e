-- Say where what leaves the queue is kept from now on: file:///folder or s3://bucket/prefix; NULL: nowhere, it is gone. Whether the place
-- can be used is for the caller to check (the command line does), and to leave p_archive_id there.
-- What is archived stays where it is, and part of the archive.
-- p_discard: also forget jobs that left the queue and wait to be archived, when the archive is switched off.
-- p_this_is: only in a copy of the database whose archive it is. 'moved': it is instead of the other, and takes its archive over.
--            'copy': it is beside the other; what is archived is that one's, and no part of this one's archive any more. What of it is
--            still in this queue is archived anew.
-- Returns:   how many were forgotten.
-- Locks:     the row of streamvibe.setting: waits for deletions and drops that are under way. In a copy before that the rows of archived
--            leaves in streamvibe.partition.
-- Raises:    SV001, SV004, SV017 in a copy without p_this_is.
DROP FUNCTION IF EXISTS public.set_archive(text, uuid, boolean);
CREATE OR REPLACE FUNCTION public.set_archive(
    p_url text, p_archive_id uuid DEFAULT NULL, p_discard boolean DEFAULT false, p_this_is text DEFAULT NULL
) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_waiting bigint;
BEGIN
    PERFORM streamvibe.require_service('set_archive');
    PERFORM streamvibe.require_read_committed('set_archive', 'Use READ COMMITTED.');
    IF p_url !~ '^(file:///[^?#]*|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#@]*)?)$' OR length(p_url) > 1000 THEN
        -- Not the value: it may hold a secret.
        PERFORM streamvibe.raise_error('SV001', 'p_url', substring(p_url FROM '^[a-z0-9+.-]{1,20}:') || '...', 'p_url is not a place for an archive',
            'Use file:///folder or s3://bucket/prefix; credentials come from the environment (AWS_ACCESS_KEY_ID and others).');
    ELSIF p_url IS NOT NULL AND p_archive_id IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_archive_id', NULL, 'p_archive_id is missing',
            'Use `streamvibe archive set`, which leaves this id in the archive.');
    END IF;
    IF p_this_is IS NULL THEN
        PERFORM streamvibe.refuse_copy();
    ELSIF p_this_is NOT IN ('moved', 'copy') THEN
        PERFORM streamvibe.raise_error('SV001', 'p_this_is', p_this_is, 'p_this_is is unknown', 'Use moved or copy.');
    ELSIF NOT (SELECT coalesce(s.archive_owner <> streamvibe.this_database(), false) FROM streamvibe.setting s) THEN
        PERFORM streamvibe.raise_error('SV001', 'p_this_is', p_this_is, 'this database is no copy of one that has an archive',
            'Leave it out: --copy and --moved are for a restored dump, or a database made from another.');
    ELSIF p_this_is = 'moved' THEN
        UPDATE streamvibe.setting s SET archive_owner = streamvibe.this_database();
    ELSE
        IF p_archive_id = (SELECT s.archive_id FROM streamvibe.setting s) THEN
            PERFORM streamvibe.raise_error('SV001', 'p_archive_id', p_archive_id::text, 'that is the archive of the other database',
                'Name a place of its own for the copy.');
        END IF;
        -- In the order in which drop_partition() locks.
        PERFORM FROM streamvibe.partition p WHERE p.archived_at IS NOT NULL ORDER BY p.parent_name, p.lower_at FOR UPDATE;
        UPDATE streamvibe.setting s SET archive_url = NULL, archive_id = NULL, archive_owner = NULL
        WHERE s.archive_owner <> streamvibe.this_database();
        IF NOT FOUND THEN
            PERFORM streamvibe.raise_error('SV001', 'p_this_is', p_this_is, 'somebody else has said meanwhile what this database is',
                'See what: streamvibe archive status.');
        END IF;
        DELETE FROM streamvibe.archive_file;
        UPDATE streamvibe.partition p SET archived_at = NULL WHERE p.archived_at IS NOT NULL;
    END IF;
    IF p_url IS NOT NULL THEN
        UPDATE streamvibe.setting s
        SET archive_url = p_url, archive_id = p_archive_id, archive_owner = streamvibe.this_database();
        RETURN 0;
    END IF;
    -- Waits for whoever deletes jobs, and read it before.
    UPDATE streamvibe.setting s SET archive_url = NULL;
    SELECT count(*) INTO v_waiting FROM streamvibe.leaving_job;
    IF v_waiting > 0 AND p_discard IS NOT TRUE THEN
        PERFORM streamvibe.raise_error('SV001', 'p_discard', v_waiting || ' jobs wait to be archived',
            'jobs that have left the queue are not archived yet',
            'Archive them first: streamvibe archive run; or lose them: p_discard => true (--discard).');
    END IF;
    DELETE FROM streamvibe.leaving_job;
    RETURN v_waiting;
END
$$;
