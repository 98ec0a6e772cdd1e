-- Take a worker off the list at its shutdown, handing back whatever it still holds: nothing is left to recover,
-- and nobody tries to wake it. A job that another transaction has is handed back by recover_stuck_jobs() instead.
-- Claims whose jobs ran inside transactions are left to recover_broken_claims(): nothing that may be held is waited for.
-- Locks:  the worker's row, its claims, the jobs' rows in id order.
-- Raises: SV004, SV006.
CREATE OR REPLACE FUNCTION public.unregister_worker(p_worker_id text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM streamvibe.require_service('unregister_worker');
    PERFORM public.release_forgotten_claims(p_worker_id, '{}');
    DELETE FROM streamvibe.worker w
    WHERE w.id = p_worker_id
      AND NOT EXISTS (SELECT FROM streamvibe.live_claims() c WHERE c.worker_id = p_worker_id AND NOT c.in_transaction);
    UPDATE streamvibe.worker w SET left_over = 'hand back', asleep = false, transactions_asleep = false
    WHERE w.id = p_worker_id;
END
$$;
