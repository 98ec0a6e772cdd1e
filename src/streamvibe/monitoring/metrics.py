"""The queue's numbers for Prometheus: what ``get_job_queue_metrics()`` says, as metrics of ``prometheus_client``.

Every process that serves them says the same of the queue, because the database counts: several targets are several
views of one number, so ask for their maximum, never for their sum (deploy/README.md).
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, Literal

import psycopg
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from streamvibe.db.session import connection_defaults
from streamvibe.errors import StreamVibeError, translated
from streamvibe.eventlog import Outage, event_logger
from streamvibe.masking import mask_url

log = event_logger("streamvibe.metrics")

#: How long a scrape waits for the database before it says that it is down. Prometheus itself waits for ten seconds.
PATIENCE_SECONDS = 5.0
#: How long one statement may take.
STATEMENT_SECONDS = 3.0
CONNECT_SECONDS = 3
#: How long nobody looks for the oldest jobs after that took too long.
WITHOUT_AGES_SECONDS = 60.0

#: A lock: of a leaf that is just being dropped.
_LIMITS = (
    "SELECT set_config('transaction_read_only', 'on', true), set_config('lock_timeout', '2s', true),"
    " set_config('statement_timeout', %s, true)"
)
_READ = "SELECT metric, labels, value FROM public.get_job_queue_metrics(p_ages => %s)"

Row = tuple[str, list[str], float]
#: When something with this schedule is due that last began then. None: the schedule cannot be read.
NextTurn = Callable[[str, datetime], datetime | None]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric of Prometheus that is made of one of ``get_job_queue_metrics()``."""

    metric: str
    kind: Literal["gauge", "counter", "histogram"]
    name: str
    labels: tuple[str, ...]
    help: str


FAMILIES = (
    Family("jobs", "gauge", "streamvibe_jobs", ("job_type", "status"), "Jobs in the queue."),
    Family("created", "counter", "streamvibe_jobs_created", ("job_type",), "Jobs that were created."),
    Family(
        "ended",
        "counter",
        "streamvibe_jobs_ended",
        ("job_type", "status"),
        "Times that jobs came to an end: completed, failed or cancelled. One that failed and is retried ends again.",
    ),
    Family(
        "waiting",
        "histogram",
        "streamvibe_job_waiting_seconds",
        ("job_type",),
        "Of completed jobs, from due to started.",
    ),
    Family(
        "processing",
        "histogram",
        "streamvibe_job_processing_seconds",
        ("job_type",),
        "Of completed jobs, from started to completed.",
    ),
    Family(
        "failed",
        "counter",
        "streamvibe_job_failures",
        ("job_type", "kind"),
        "Attempts that failed, and jobs that expired, by kind of failure.",
    ),
    Family(
        "asked",
        "counter",
        "streamvibe_requests_deduplicated",
        ("job_type", "outcome"),
        "Requests that made no job: joined to a live one, or answered from the cache.",
    ),
    Family(
        "recovered",
        "counter",
        "streamvibe_jobs_recovered",
        ("job_type", "outcome"),
        "Jobs taken back from workers that were gone.",
    ),
    Family(
        "oldest_due_seconds",
        "gauge",
        "streamvibe_oldest_pending_age_seconds",
        ("job_type",),
        "For how long the oldest pending job has been due; 0 when none is.",
    ),
    Family("workers", "gauge", "streamvibe_workers", ("state",), "Worker processes, alive or dead."),
    Family("leader", "gauge", "streamvibe_maintenance_leader", (), "1 while a process leads maintenance."),
    Family("duty_failed", "gauge", "streamvibe_duty_failed", ("duty",), "1 when the duty's last run failed."),
    Family(
        "horizon_transactions",
        "gauge",
        "streamvibe_horizon_age_transactions",
        ("holder",),
        "Age of the oldest snapshot behind which dead rows cannot be removed, by who holds it; 0: nobody.",
    ),
    Family(
        "horizon_seconds",
        "gauge",
        "streamvibe_horizon_age_seconds",
        ("holder",),
        "For how long the oldest transaction is open behind which dead rows cannot be removed; 0: there is none.",
    ),
    Family(
        "table_rows", "gauge", "streamvibe_table_rows", ("table",), "Live rows, estimated; leaves added up."
    ),
    Family(
        "table_dead_rows",
        "gauge",
        "streamvibe_table_dead_rows",
        ("table",),
        "Rows that wait for vacuum, estimated; leaves added up.",
    ),
    Family("table_bytes", "gauge", "streamvibe_table_size_bytes", ("table",), "Size without indexes."),
    Family(
        "table_index_bytes", "gauge", "streamvibe_table_index_size_bytes", ("table",), "Size of the indexes."
    ),
    Family(
        "partitions_ahead_seconds",
        "gauge",
        "streamvibe_partitions_ahead_seconds",
        ("table",),
        "For how long from now there are partitions.",
    ),
    Family("pauses", "gauge", "streamvibe_pauses", ("kind",), "What is paused: all, job types or users."),
)


def _up(is_up: bool) -> Metric:
    return GaugeMetricFamily("streamvibe_up", "1 when the queue's numbers could be read.", value=is_up)


def families(rows: Iterable[Row], next_turn: NextTurn) -> Iterator[Metric]:
    """What the function returned, as metrics."""
    found: dict[str, list[tuple[list[str], float]]] = {}
    for metric, labels, value in sorted(rows):
        found.setdefault(metric, []).append((labels, value))
    for family in FAMILIES:
        if family.kind == "histogram":
            yield _histogram(family, found)
            continue
        made = (
            GaugeMetricFamily(family.name, family.help, labels=family.labels)
            if family.kind == "gauge"
            else CounterMetricFamily(family.name, family.help, labels=family.labels)
        )
        for labels, value in found.get(family.metric, ()):
            made.add_metric(labels, value)
        yield made
    yield from _duties(found, next_turn)


def _histogram(family: Family, found: dict[str, list[tuple[list[str], float]]]) -> HistogramMetricFamily:
    made = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    sums = {job_type: value for [job_type], value in found.get(f"{family.metric}_seconds", ())}
    counts: dict[str, list[tuple[float, float]]] = {}
    for [job_type, bound], value in found.get(family.metric, ()):
        counts.setdefault(job_type, []).append((float(bound), value))
    for job_type, buckets in counts.items():
        buckets.sort()
        bounds = ["+Inf" if bound == float("inf") else f"{bound:g}" for bound, _ in buckets]
        below = accumulate(value for _, value in buckets)
        made.add_metric([job_type], list(zip(bounds, below, strict=True)), sums.get(job_type, 0.0))
    return made


def _duties(found: dict[str, list[tuple[list[str], float]]], next_turn: NextTurn) -> Iterator[Metric]:
    started = GaugeMetricFamily(
        "streamvibe_duty_last_start_timestamp_seconds",
        "When the duty of maintenance last began.",
        labels=["duty"],
    )
    late = GaugeMetricFamily(
        "streamvibe_duty_lateness_seconds",
        "For how long the duty of maintenance should have begun again by its schedule; 0 when it is not due.",
        labels=["duty"],
    )
    for [duty, schedule], at in found.get("duty_started", ()):
        started.add_metric([duty], at)
        due = next_turn(schedule, datetime.fromtimestamp(at, UTC))
        if due is not None:
            late.add_metric([duty], max(0.0, found["now"][0][1] - due.timestamp()))
    yield started
    yield late


class Source:
    """Reads the numbers on a connection of its own, which is opened when it is first needed. For one thread."""

    def __init__(self, dsn: str, *, statement_seconds: float = STATEMENT_SECONDS) -> None:
        self._dsn = dsn
        self._statement_seconds = statement_seconds
        self._url = mask_url(dsn)
        self._connection: psycopg.Connection[Any] | None = None
        self._ages_from = float("-inf")  # monotonic

    def read(self) -> list[Row]:
        """Every number. Without the oldest jobs' ages while looking for them takes too long.

        Raises the error tree; psycopg errors that it does not know pass through.
        """
        with_ages = time.monotonic() >= self._ages_from
        try:
            return self._read(with_ages)
        except psycopg.errors.QueryCanceled as error:
            if not with_ages:
                raise
            log.warning("ages_take_too_long", seconds=self._statement_seconds, error=str(error))
            self._ages_from = time.monotonic() + WITHOUT_AGES_SECONDS
            return self._read(with_ages=False)

    def _read(self, with_ages: bool) -> list[Row]:
        with translated(self._url):
            is_new = self._connection is None or self._connection.closed
            if self._connection is None or is_new:
                self._connection = psycopg.connect(
                    self._dsn,
                    autocommit=True,
                    prepare_threshold=None,
                    application_name="streamvibe metrics",
                    **connection_defaults(self._dsn) | {"connect_timeout": CONNECT_SECONDS},
                )
            try:
                with self._connection.transaction():
                    # In a transaction: behind a transaction pooler they would be another client's.
                    self._connection.execute(_LIMITS, [f"{self._statement_seconds:g}s"])
                    return self._connection.execute(_READ, [with_ages]).fetchall()
            except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
                raise
            except psycopg.OperationalError:
                self.close()
                if is_new:
                    raise
            except psycopg.Error:
                # It may be this connection's: the schema may have changed.
                self.close()
                raise
        # The server was started again since the last read, perhaps.
        return self._read(with_ages)

    def close(self) -> None:
        """Close the connection; the source can be used again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class QueueCollector(Collector):
    """The queue's metrics, read when somebody asks; ``streamvibe_up`` 0 and nothing else while they cannot be.

    Whatever the database does, an answer is there after ``patience_seconds``. Those that ask while a read is under way
    get the same answer: one connection, one read at a time.
    """

    def __init__(self, dsn: str, next_turn: NextTurn, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._source = Source(dsn)
        self._next_turn = next_turn
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._reading: Future[list[Row]] | None = None
        self._outage = Outage(log, "metrics")

    def describe(self) -> Iterator[Metric]:
        """What there may be; the database is not asked."""
        yield _up(True)
        yield from families((), self._next_turn)

    def collect(self) -> Iterator[Metric]:
        """Read, and say what was found."""
        rows: Sequence[Row] | None = None
        try:
            rows = self._begin().result(self._patience_seconds)
        except TimeoutError:
            self._outage.goes_on(
                "metrics_wait_for_database", TimeoutError(f"no answer within {self._patience_seconds:g} s")
            )
        except (StreamVibeError, psycopg.Error) as error:
            self._outage.goes_on("metrics_wait_for_database", error)
        else:
            self._outage.ends()
        yield _up(rows is not None)
        if rows is not None:
            yield from families(rows, self._next_turn)

    def close(self) -> None:
        """Close the connection, unless a read is under way that cannot be ended."""
        with self._lock:
            if self._reading is None or self._reading.done():
                self._source.close()

    def _begin(self) -> "Future[list[Row]]":
        """The read that is under way, or a new one. In a thread: a frozen server must not keep anybody waiting."""
        with self._lock:
            if self._reading is None or self._reading.done():
                self._reading = Future()
                threading.Thread(
                    target=self._read, args=(self._reading,), name="streamvibe-metrics", daemon=True
                ).start()
            return self._reading

    def _read(self, reading: "Future[list[Row]]") -> None:
        try:
            reading.set_result(self._source.read())
        except Exception as error:
            reading.set_exception(error)


def exposition(dsn: str, next_turn: NextTurn) -> str:
    """The queue's metrics in Prometheus' text format. Raises the error tree where the database cannot be read."""
    source = Source(dsn)
    try:
        rows = source.read()
    finally:
        source.close()

    class Once(Collector):
        def collect(self) -> Iterator[Metric]:
            return families(rows, next_turn)

    registry = CollectorRegistry()
    registry.register(Once())
    return generate_latest(registry).decode()
