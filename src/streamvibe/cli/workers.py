"""``streamvibe workers``: who runs jobs."""

from streamvibe.cli.output import AsJson, database_dsn, print_hint, print_if_empty, print_json, print_rows
from streamvibe.client import SyncClient


def workers_command(as_json: AsJson = False) -> None:
    """List the workers: which job types each takes, and whether it is alive.

    JSON: items (worker_id, job_types, is_alive, claimed_jobs, started_at, heartbeat_at; job_types null: every type).
    """
    with SyncClient(database_dsn(), max_size=1) as client:
        workers = client.workers()
    if as_json:
        print_json({"items": workers})
        return
    print_rows(
        ("worker", "state", "claimed jobs", "job types", "started_at", "heartbeat_at"),
        (
            (
                worker.worker_id,
                "alive" if worker.is_alive else "dead",
                worker.claimed_jobs,
                "every type" if worker.job_types is None else ", ".join(worker.job_types),
                worker.started_at,
                worker.heartbeat_at,
            )
            for worker in workers
        ),
    )
    dead = sum(worker.claimed_jobs > 0 and not worker.is_alive for worker in workers)
    if dead:
        who = "1 dead worker still holds" if dead == 1 else f"{dead} dead workers still hold"
        print_hint(f"{who} jobs: maintenance takes them back; run `streamvibe up`.")
    print_if_empty(workers, "workers: start one with `streamvibe up`")
