"""What is measured of StreamVibe alone: floors, limits, sleeping workers, several workers, priorities, fairness."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import psycopg

from streamvibe.bench.agent import MARKED, user_id
from streamvibe.bench.ours import Params, declare
from streamvibe.bench.processes import Agent, BenchError
from streamvibe.bench.scenarios import PATIENCE_SECONDS, bulk_by
from streamvibe.bench.stage import Figure, Stage, percentile
from streamvibe.client import SyncClient
from streamvibe.model import NewJob

BLOCKS = 4
URGENT_SAMPLES = 200
SINGLES = 999


def bulk_guarded(stage: Stage) -> list[Figure]:
    """Bulk with the limit enforced and identical live jobs joined, which create_many leaves off by default."""
    return bulk_by(stage, "bulk_guarded", guarded=True)


def asleep(stage: Stage) -> list[Figure]:
    """Enqueue one by one while a worker sleeps that must be told of each job, and while none does, in turns.

    The sleeping worker listens, and never wakes up: what is measured is the message, not its work.
    """
    count = max(50, stage.sizes.jobs // 4 // BLOCKS)
    found = []
    with stage.producer() as producer:
        producer.ask("enqueue", count=100, user=1_000_000, in_flight=10)
        turn = 0
        for in_flight in (1, 10):
            seconds = {False: 0.0, True: 0.0}
            for _ in range(BLOCKS):
                for sleeping in (False, True):
                    with _sleeper(stage) if sleeping else contextlib.nullcontext():
                        took = producer.ask(
                            "enqueue", count=count, in_flight=in_flight, first=turn * count, user=turn * count
                        )
                    seconds[sleeping] += took["seconds"]
                    turn += 1
            found += [
                Figure(f"enqueue_{in_flight}_asleep", BLOCKS * count / seconds[True], "jobs/s"),
                Figure(f"notify_cost_{in_flight}", (seconds[True] / seconds[False] - 1) * 100, "%"),
            ]
    return found


@contextlib.contextmanager
def _sleeper(stage: Stage) -> Iterator[None]:
    stop = threading.Event()
    with stage.connect() as conn, stage.connect() as listening:
        conn.execute("SELECT register_job_type('bench.other')")
        conn.execute("SELECT * FROM heartbeat_worker('sleeper', NULL, '1 day')")
        conn.execute("SELECT * FROM claim_jobs('sleeper', 1, ARRAY['bench.other'])")
        listening.execute("LISTEN streamvibe_jobs")

        def read() -> None:
            while not stop.is_set():
                for _ in listening.notifies(timeout=0.05):
                    pass

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            stop.set()
            reader.join()
            conn.execute("SELECT * FROM unregister_worker('sleeper')")


def scale(stage: Stage) -> list[Figure]:
    """A backlog drained by several worker processes, and how evenly they share it (least by most jobs).

    The workers are warm and idle when the transaction that created the backlog commits; the clock starts there,
    and stops when no job is unfinished.
    """
    found = []
    for workers in stage.sizes.workers:
        found += _scale(stage, workers)
    return found


def _scale(stage: Stage, workers: int) -> list[Figure]:
    jobs, warm = stage.sizes.jobs * 2, 100 * workers
    with contextlib.ExitStack() as stack:
        producer = stack.enter_context(stage.producer())
        agents = [stack.enter_context(stage.worker()) for _ in range(workers)]
        client = stack.enter_context(SyncClient(stage.url))
        _wait_registered(stage, workers)
        producer.ask("bulk", count=warm, user=workers * 100_000)
        _wait_handled(agents, warm)
        producer.ask("finish", seconds=PATIENCE_SECONDS)
        before = [agent.ask("seen")["count"] for agent in agents]
        job_type = declare(lambda _number, _sent: None)
        new = [NewJob(user_id(n % 2000), job_type, Params(n, 0)) for n in range(jobs)]
        with psycopg.connect(stage.url) as conn:
            client.create_many(new, connection=conn)
            conn.commit()
        begun = time.monotonic_ns()
        _wait_handled(agents, warm + jobs)
        ended = producer.ask("finish", seconds=PATIENCE_SECONDS)["ended"]
        done = [agent.ask("seen")["count"] - first for agent, first in zip(agents, before, strict=True)]
    return [
        Figure(f"drain_{workers}_workers", jobs / (ended - begun) * 1e9, "jobs/s"),
        Figure(f"fairness_{workers}_workers", min(done) / max(done), "least/most"),
    ]


def _wait_registered(stage: Stage, workers: int) -> None:
    with stage.connect() as conn:
        _wait(
            lambda: (
                conn.execute("SELECT count(*) FROM streamvibe.worker WHERE asleep").fetchone() == (workers,)
            )
        )


def _wait_handled(agents: list[Agent], count: int) -> None:
    _wait(lambda: sum(agent.ask("seen")["count"] for agent in agents) >= count)


def _wait(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise BenchError(f"The workers were not ready, or not done, within {PATIENCE_SECONDS:g} seconds")
        time.sleep(0.05)


def urgent(stage: Stage) -> list[Figure]:
    """Jobs of the highest priority are requested at random moments while a worker drains a long backlog."""
    backlog = stage.sizes.backlog
    with stage.producer() as producer:
        producer.ask("bulk", count=backlog)
        with stage.connect() as conn:
            # As autovacuum would a minute later.
            conn.execute("ANALYZE public.job_queue")
        with stage.worker() as worker:
            worker.ask("started", count=min(stage.sizes.warm_up, backlog // 10), seconds=PATIENCE_SECONDS)
            samples = min(URGENT_SAMPLES, max(10, backlog // 100))
            producer.ask("probe", count=samples, gap_ms=30, urgent=True, user=5_000_000)
            deadline = time.monotonic() + 30
            latencies: list[float] = []
            while len(latencies) < samples:
                seen = worker.ask("seen")
                latencies += [nanoseconds / 1e6 for nanoseconds in seen["latencies_ns"]]
                if time.monotonic() > deadline:
                    raise BenchError("The urgent jobs did not start within 30 seconds")
                time.sleep(0.01)
            if seen["count"] >= backlog + samples:
                raise BenchError(
                    "The backlog was drained before the urgent jobs were done",
                    field="--backlog",
                    received=str(backlog),
                    fix="Use a larger one",
                )
    return [Figure(f"urgent_p{p}", percentile(latencies, p), "ms") for p in (50, 99)]


def fair(stage: Stage) -> list[Figure]:
    """One user has a tenth of the backlog, enqueued first; then 999 users ask for one job each.

    The place, in the order in which the worker starts jobs, of the last of the 999: theirs alone take 999.
    """
    with stage.producer() as producer:
        producer.ask("bulk", count=max(1000, stage.sizes.backlog // 10), users=1)
        producer.ask("bulk", count=SINGLES, users=SINGLES, user=10, number=MARKED)
        with stage.worker() as worker:
            positions: list[int] = []

            def all_started() -> bool:
                positions.extend(worker.ask("seen")["positions"])
                return len(positions) >= SINGLES

            _wait(all_started)
    return [Figure("fair_last_of_999", float(max(positions)), "place")]
