"""The worker's lease, renewed from a thread of its own.

A handler that blocks the event loop cannot lose it, unless it does so beyond its time limit: then nothing on that
loop can end, fail or be cancelled any more, and the lease is let go, so that the jobs are taken back.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import orjson
import psycopg

from streamvibe.db.session import connection_defaults
from streamvibe.errors import DatabaseUnreachable, StreamVibeError, translated
from streamvibe.eventlog import Outage, event_logger
from streamvibe.worker import statements

log = event_logger("streamvibe.worker")

Held = Sequence[tuple[str, int]]
#: (job id, token, reason) of jobs that are no longer held: reason cancelled or lost.
Gone = Sequence[tuple[str, int, str]]

RETRY_SECONDS = 0.5


class Heartbeat:
    """Registers the worker and renews its lease three times per lease, until stopped."""

    def __init__(
        self,
        dsn: str,
        worker_id: str,
        job_types: list[str],
        lease: timedelta,
        metadata: dict[str, object],
        *,
        held: Callable[[], Held],
        is_alive: Callable[[], bool],
        on_gone: Callable[[Gone], None],
        on_return: Callable[[], None],
    ) -> None:
        """``is_alive``: whether to renew at all, asked in its thread, from which ``on_gone`` and ``on_return`` (the
        lease had run out before it was renewed) are called too.
        """
        self._dsn = dsn
        self._worker_id = worker_id
        self._job_types = job_types
        self._lease = lease
        self._metadata = orjson.dumps(metadata).decode()
        self._held = held
        self._is_alive = is_alive
        self._on_gone = on_gone
        self._on_return = on_return
        self._connection: psycopg.Connection[Any] | None = None
        self._renewed_at = float("inf")
        self._beating = threading.Lock()
        self._stop = threading.Event()
        self._now = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Register, in the caller's thread, then renew in the background. Raises the error tree."""
        self._renewed_at = float("inf")
        self._stop.clear()
        self._now.clear()
        self.beat()
        self._thread = threading.Thread(target=self._run, name="streamvibe-heartbeat", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Renew now, and report the jobs that are no longer held. Raises the error tree."""
        with self._beating, translated():
            held = dict(self._held())
            started_at = time.monotonic()
            rows = self._renew(held)
            returned = started_at > self._renewed_at + self._lease.total_seconds()
            self._renewed_at = started_at
        if rows:
            self._on_gone([(job_id, held[job_id], reason) for job_id, reason in rows])
        if returned:
            self._on_return()

    def beat_soon(self) -> None:
        """Renew at once, in the background."""
        self._now.set()

    def stop(self) -> None:
        """Stop renewing and close the connection."""
        self._stop.set()
        self._now.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
            self._thread = None
        if self._connection is not None:
            self._connection.close()

    def _renew(self, held: dict[str, int]) -> list[tuple[str, str]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._dsn,
                autocommit=True,
                prepare_threshold=None,
                application_name=f"streamvibe heartbeat {self._worker_id}"[:63],
                **connection_defaults(self._dsn),
            )
        return self._connection.execute(
            statements.HEARTBEAT,
            (
                self._worker_id,
                self._job_types,
                self._lease,
                list(held),
                list(held.values()),
                self._metadata,
            ),
        ).fetchall()

    def _run(self) -> None:
        every = self._lease.total_seconds() / 10 * 3
        pause = every
        was_alive = True
        outage = Outage(log, "heartbeat")
        while True:
            self._now.wait(pause)
            self._now.clear()
            if self._stop.is_set():
                return
            if not self._is_alive():
                # No handler of a blocked loop can end any more: let others have its jobs.
                if was_alive:
                    log.error("event_loop_blocked", worker_id=self._worker_id)
                was_alive, pause = False, min(every, RETRY_SECONDS)
                continue
            was_alive = True
            pause = min(every, RETRY_SECONDS)
            try:
                self.beat()
            except DatabaseUnreachable as error:
                outage.goes_on("heartbeat_waits_for_database", error)
            except (StreamVibeError, psycopg.Error) as error:
                log.error("heartbeat_failed", worker_id=self._worker_id, error=str(error))
            except Exception:  # without this thread every job of the worker would run twice
                log.exception("heartbeat_failed", worker_id=self._worker_id)
            else:
                outage.ends()
                pause = every
