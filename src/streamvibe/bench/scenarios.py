"""What is measured of every system, ours and peers alike. Each scenario gets an empty database of its own."""

import contextlib
import itertools
from collections.abc import Iterator

from streamvibe.bench.processes import Agent, BenchError
from streamvibe.bench.stage import Figure, Stage, percentile

#: How long a backlog may take to start: the slowest peer drains 700 jobs/s.
PATIENCE_SECONDS = 600.0
#: End-to-end, 95 of 100 jobs.
SUSTAINED_SECONDS = 1.0
#: Rates offered are guess * STEP ** k; k from LOWEST to HIGHEST, found by bisection.
STEP, LOWEST, HIGHEST = 1.05, -34, 9

_warm_numbers = itertools.count(1_000_000_000, 1000)


def drain(stage: Stage) -> list[Figure]:
    """A backlog is enqueued in bulk, then one worker process starts.

    The first jobs warm it up. The clock starts when the job after them starts in the worker, and stops when the
    database holds no unfinished job. WAL: from before the first enqueue to the end, right after a CHECKPOINT,
    per job; once all of it and once without full-page images.
    """
    warm, jobs = stage.sizes.warm_up, stage.sizes.jobs
    with stage.producer() as producer:
        producer.ask("bulk", count=warm, user=1_000_000)
        with stage.worker(warm) as first:
            first.ask("started", count=warm, seconds=PATIENCE_SECONDS)
            producer.ask("finish", seconds=PATIENCE_SECONDS)
        with _wal(stage, jobs + warm) as wal:
            producer.ask("bulk", count=jobs + warm)
            with stage.worker(warm) as worker:
                seen = worker.ask("started", count=jobs + warm, seconds=PATIENCE_SECONDS)
                ended = producer.ask("finish", seconds=PATIENCE_SECONDS)["ended"]
                memory = worker.ask("seen")["memory"]
    seconds = (ended - seen["marks"][str(warm)]) / 1e9
    return [
        Figure("drain", jobs / seconds, "jobs/s"),
        Figure("worker_memory", memory["VmRSS"] / 1024, "MiB"),
        Figure("worker_memory_peak", memory["VmHWM"] / 1024, "MiB"),
        *wal,
    ]


def enqueue(stage: Stage) -> list[Figure]:
    """Jobs are enqueued one by one while no worker runs, by one caller and by ten at once."""
    count = max(100, stage.sizes.jobs // 4)
    found = []
    with stage.producer() as producer:
        producer.ask("enqueue", count=100, user=1_000_000, in_flight=10)
        for turn, in_flight in enumerate((1, 10)):
            took = producer.ask(
                "enqueue",
                count=count,
                in_flight=in_flight,
                first=(turn + 1) * count,
                users=max(2000, count // 4),
            )
            found.append(Figure(f"enqueue_{in_flight}", count / took["seconds"], "jobs/s"))
    return found


def bulk(stage: Stage) -> list[Figure]:
    """Jobs are enqueued in bulk while no worker runs, by one client and by two: rounds for two seconds or more."""
    return bulk_by(stage, "bulk")


def bulk_by(stage: Stage, measure: str, **options: object) -> list[Figure]:
    """The same, with options for the adapter."""
    jobs = stage.sizes.jobs
    found = []
    for clients in (1, 2):
        with contextlib.ExitStack() as stack:
            producers = [stack.enter_context(stage.producer(**options)) for _ in range(clients)]
            share = jobs // clients
            for place, producer in enumerate(producers):
                producer.ask(
                    "bulk", count=min(share, 1000), user=2_000_000 * (place + 1), users=max(1, share // 10)
                )
            total, seconds, rounds = 0, 0.0, 0
            while seconds < 2 and rounds < 10:
                asked = [
                    producer.begin(
                        "bulk",
                        count=share,
                        first=rounds * jobs,
                        # A limit of ten live jobs per user must have room.
                        users=max(1, share // 10),
                        user=10_000_000 * clients + (rounds * clients + place) * jobs,
                    )
                    for place, producer in enumerate(producers)
                ]
                answers = [producer.answer(number) for producer, number in zip(producers, asked, strict=True)]
                seconds += (
                    max(answer["ended"] for answer in answers) - min(answer["begun"] for answer in answers)
                ) / 1e9
                total += share * clients
                rounds += 1
        name = measure if clients == 1 else f"{measure}_{clients}_clients"
        found.append(Figure(name, total / seconds, "jobs/s"))
    return found


def sustained(stage: Stage) -> list[Figure]:
    """The highest offered rate at which 95 of 100 jobs end their way from due to started within a second.

    A producer in a process of its own enqueues a batch every 20 ms for the length of the window; a batch that
    comes late counts from when it was due. Rates stand 5 % apart and are searched by bisection; a rate passes
    when p95 is under a second in the window's last quarter as well.
    """
    guess = stage.earlier.get("drain") or _guess(stage)
    best, low, high = 0.0, LOWEST, HIGHEST + 1
    with stage.producer() as producer:
        while low < high:
            power = (low + high) // 2
            rate = guess * STEP**power
            with stage.worker() as worker:
                _warm(stage, producer, worker)
                passed = _passes(stage, producer, worker, rate)
                producer.ask("finish", seconds=PATIENCE_SECONDS)
            if passed:
                best, low = rate, power + 1
            else:
                high = power
    return [Figure("sustained", best, "jobs/s")]


def pinned(stage: Stage) -> list[Figure]:
    """Three chunks are drained while another session holds a transaction that has written.

    What the first chunk leaves behind cannot be vacuumed away: the rate of the last is compared with that of
    the first. A chunk is ``--jobs`` jobs, for a system that drains fewer than 5,000 per second a quarter of that.
    """
    warm = stage.sizes.warm_up
    chunk = stage.sizes.jobs if stage.earlier.get("drain", 0) >= 5000 else max(100, stage.sizes.jobs // 4)
    marks = [warm + chunk * n for n in range(4)]
    with stage.producer() as producer, stage.connect() as pin:
        producer.ask("bulk", count=marks[-1] + 1)
        pin.autocommit = False
        pin.execute("SELECT pg_catalog.pg_current_xact_id()")
        with stage.worker(*marks) as worker:
            seen = worker.ask("started", count=marks[-1], seconds=PATIENCE_SECONDS * 3)["marks"]
        pin.rollback()
    times = [seen[str(mark)] for mark in marks]
    rates = [chunk / (after - before) * 1e9 for before, after in itertools.pairwise(times)]
    return [
        Figure("pinned", rates[-1] / rates[0], "last/first"),
        Figure("pinned_first", rates[0], "jobs/s"),
        Figure("pinned_last", rates[-1], "jobs/s"),
    ]


def start(stage: Stage) -> list[Figure]:
    """From just before the enqueue call to the first line of the handler, on an idle queue, at random moments."""
    with stage.producer() as producer, stage.worker() as worker:
        _warm(stage, producer, worker)
        samples = stage.sizes.samples
        producer.ask("probe", count=samples, gap_ms=20)
        worker.ask("started", count=_warm_jobs(stage) + samples, seconds=60)
        latencies = milliseconds(worker)
    return [Figure(f"start_p{p}", percentile(latencies, p), "ms") for p in (50, 99)]


def milliseconds(worker: Agent) -> list[float]:
    """The latencies that a worker saw since it was asked last."""
    found = [nanoseconds / 1e6 for nanoseconds in worker.ask("seen")["latencies_ns"]]
    if not found:
        raise BenchError("A worker saw no stamped job", fix="Look at its adapter: it must pass `sent` on")
    return found


def _warm_jobs(stage: Stage) -> int:
    return min(100, stage.sizes.warm_up)


def _warm(stage: Stage, producer: Agent, worker: Agent) -> None:
    """Let a new worker run some jobs, and be idle again."""
    # Numbers of their own: an identical job would be found in the cache, and none would start.
    first = next(_warm_numbers)
    producer.ask("enqueue", count=_warm_jobs(stage), first=first, user=1_000_000, users=100)
    worker.ask("started", count=_warm_jobs(stage), seconds=60)
    producer.ask("finish", seconds=60)
    worker.ask("seen")


def _guess(stage: Stage) -> float:
    return next(figure.value for figure in drain(stage) if figure.measure == "drain")


def _passes(stage: Stage, producer: Agent, worker: Agent, rate: float) -> bool:
    answer = producer.ask("offer", rate=rate, seconds=stage.sizes.window_seconds)
    offered = answer["offered"]
    with contextlib.suppress(BenchError):
        worker.ask("started", count=_warm_jobs(stage) + offered, seconds=SUSTAINED_SECONDS * 2)
    latencies = [nanoseconds / 1e9 for nanoseconds in worker.ask("seen")["latencies_ns"]]
    if len(latencies) < offered:
        return False
    # In the order of their starts, which is about that of their due times.
    last_quarter = latencies[-max(1, len(latencies) // 4) :]
    return max(percentile(latencies, 95), percentile(last_quarter, 95)) < SUSTAINED_SECONDS


@contextlib.contextmanager
def _wal(stage: Stage, jobs: int) -> Iterator[list[Figure]]:
    """Fills the list it gives with the WAL written meanwhile, per job; nothing for a system without PostgreSQL."""
    found: list[Figure] = []
    if stage.redis_url is not None:
        yield found
        return
    with stage.connect() as conn:
        conn.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
        conn.execute("CHECKPOINT")
        begun = conn.execute("SELECT pg_catalog.pg_current_wal_insert_lsn()").fetchone()
        assert begun is not None
        yield found
        row = conn.execute(
            "SELECT pg_catalog.pg_current_wal_insert_lsn() - %s::pg_lsn,"
            " (SELECT sum(record_size) FROM public.pg_get_wal_stats(%s::pg_lsn, 'FFFFFFFF/FFFFFFFF'))",
            [begun[0], begun[0]],
        ).fetchone()
        assert row is not None
        found += [
            Figure("wal", float(row[0]) / jobs, "bytes/job"),
            Figure("wal_without_full_pages", float(row[1]) / jobs, "bytes/job"),
        ]
