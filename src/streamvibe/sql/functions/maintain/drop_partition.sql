-- Drop a sealed leaf, with an archive an archived one, of job_queue or job_log with all that is in it; its jobs leave the statistics with it.
-- Locks:  its row in streamvibe.partition; the leaf against VACUUM (an automatic one ends itself for it within a second or so);
--         then the parent and the leaf (ACCESS EXCLUSIVE) until the transaction ends: commit at once. Nobody waits long behind
--         it before it has them, nor after: nothing is read.
-- Raises: SV001 also when it is not archived yet, or where place_sums() has not run since an upgrade, SV004, SV006, SV009 there is no
--         such leaf, SV017 in a copy of the database whose archive it is, 55P03 a transaction that uses the queue did not end within
--         p_patience.
CREATE OR REPLACE FUNCTION streamvibe.drop_partition(p_partition_name text, p_patience interval DEFAULT '10 seconds')
    RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_leaf streamvibe.partition;
    v_archive_url text;
BEGIN
    PERFORM streamvibe.require_service('drop_partition');
    PERFORM streamvibe.require_read_committed('drop_partition', 'Use READ COMMITTED.');
    PERFORM streamvibe.check_patience(p_patience);
    -- Before any other table, as ensure_partitions() does.
    LOCK TABLE streamvibe.partition IN ROW EXCLUSIVE MODE;
    v_leaf := streamvibe.leaf_of_name(p_partition_name);
    IF v_leaf.sealed_at IS NULL THEN
        PERFORM streamvibe.raise_error('SV001', 'p_partition_name', p_partition_name, 'it is not sealed',
            format('SELECT streamvibe.seal_partition(%L), and commit.', p_partition_name));
    END IF;
    -- FOR SHARE: once set_archive() has said where it goes, nothing is dropped unarchived.
    SELECT s.archive_url INTO v_archive_url FROM streamvibe.setting s FOR SHARE;
    IF v_archive_url IS NOT NULL THEN
        PERFORM streamvibe.refuse_copy();
        IF v_leaf.archived_at IS NULL THEN
            PERFORM streamvibe.raise_error('SV001', 'p_partition_name', p_partition_name, 'it is not archived yet',
                'Run `streamvibe archive run`; or switch the archive off, and lose what is not archived: `streamvibe archive set off`.');
        END IF;
    END IF;
    IF v_leaf.parent_name = 'job_queue' AND streamvibe.has_unplaced_sums() THEN
        PERFORM streamvibe.raise_error('SV001', 'p_partition_name', p_partition_name,
            'the statistics do not say yet which jobs are in it',
            format('SELECT streamvibe.place_sums(%L), and commit.', p_partition_name));
    END IF;
    -- Neither readers nor writers wait behind this one, so it may take the second after which autovacuum steps aside.
    PERFORM streamvibe.lock_soon(format('ONLY streamvibe.%I', p_partition_name), 'SHARE UPDATE EXCLUSIVE', p_patience,
                                 '3 seconds');
    PERFORM streamvibe.lock_soon(
        format('ONLY public.%I, ONLY streamvibe.%I', v_leaf.parent_name, p_partition_name), 'ACCESS EXCLUSIVE', p_patience);
    EXECUTE format('ALTER TABLE public.%I DETACH PARTITION streamvibe.%I', v_leaf.parent_name, p_partition_name);
    EXECUTE format('DROP TABLE streamvibe.%I', p_partition_name);
    DELETE FROM streamvibe.partition p WHERE p.partition_name = p_partition_name;
    IF v_leaf.parent_name = 'job_queue' THEN
        INSERT INTO streamvibe.dropped_leaf (leaf_number) VALUES (v_leaf.leaf_number);
    END IF;
END
$$;
