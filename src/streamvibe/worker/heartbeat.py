"""The worker's lease, renewed from a thread of its own: a handler that blocks the event loop cannot lose it."""

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import psycopg
import structlog

from streamvibe.errors import DatabaseUnreachable, StreamVibeError, translated
from streamvibe.worker import statements

log = structlog.get_logger("streamvibe.worker")

Held = Sequence[tuple[UUID, int]]


class Heartbeat:
    """Registers the worker and renews its lease three times per lease, until stopped."""

    def __init__(
        self,
        dsn: str,
        worker_id: str,
        job_types: list[str],
        lease: timedelta,
        metadata: dict[str, object],
        held: Callable[[], Held],
        on_gone: Callable[[list[tuple[UUID, str]]], None],
    ) -> None:
        self._dsn = dsn
        self._worker_id = worker_id
        self._job_types = job_types
        self._lease = lease
        self._metadata = orjson.dumps(metadata).decode()
        self._held = held
        self._on_gone = on_gone
        self._connection: psycopg.Connection[Any] | None = None
        self._stop = threading.Event()
        self._now = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamvibe-heartbeat", daemon=True)

    def start(self) -> None:
        """Register, in the caller's thread, then renew in the background. Raises the error tree."""
        self.beat()
        self._thread.start()

    def beat(self) -> None:
        """Renew now, and report the jobs that are no longer held. Raises the error tree."""
        held = self._held()
        with translated():
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self._dsn,
                    autocommit=True,
                    prepare_threshold=None,
                    application_name=f"streamvibe heartbeat {self._worker_id}"[:63],
                    connect_timeout=5,
                )
            gone = self._connection.execute(
                statements.HEARTBEAT,
                (
                    self._worker_id,
                    self._job_types,
                    self._lease,
                    [job_id for job_id, _ in held],
                    [token for _, token in held],
                    self._metadata,
                ),
            ).fetchall()
        if gone:
            self._on_gone([(row[0], row[1]) for row in gone])

    def beat_soon(self) -> None:
        """Renew at once, in the background."""
        self._now.set()

    def stop(self) -> None:
        """Stop renewing and close the connection."""
        self._stop.set()
        self._now.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        if self._connection is not None:
            self._connection.close()

    def _run(self) -> None:
        pause = self._lease.total_seconds() / 10 * 3
        while True:
            self._now.wait(pause)
            self._now.clear()
            if self._stop.is_set():
                return
            try:
                self.beat()
            except DatabaseUnreachable as error:
                log.warning("heartbeat_waits_for_database", worker_id=self._worker_id, error=str(error))
            except (StreamVibeError, psycopg.Error) as error:
                log.error("heartbeat_failed", worker_id=self._worker_id, error=str(error))
