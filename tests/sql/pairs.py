"""Two sessions that race one state change: the first has not committed when the second comes."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection
from tests.sql import kit
from tests.sql.kit import Row
from tests.support.databases import Database

DEADLINE_SECONDS = 30.0
SUPPORT_TABLES = ("claim", "worker", "account", "idempotency")
PARAMS = {"channel": "UC1"}
RETRY_AT_ONCE = {**kit.ERROR, "retry_after_seconds": 0}
RETRY_MUCH_LATER = {**kit.ERROR, "retry_after_seconds": 3600}


@dataclass
class Scene:
    """One user with one job; `jobs` is what worker w1 claimed."""

    job_id: UUID
    user_id: UUID
    jobs: list[Row] = field(default_factory=list)


Act = Callable[[Connection[Any], Scene], str]


def scene(conn: Connection[Any], state: str) -> Scene:
    """A job that is pending, claimed, processing (leased), or failed with its retry due; workers w1 and w2.

    A pending job is past its expires_at, so that expiry is a rival too.
    """
    kit.register(conn)
    user_id = uuid4()
    made = Scene(kit.job_id(conn, user_id, p_params=PARAMS), user_id)
    for name in ("w1", "w2"):
        kit.worker(conn, name)
    if state == "pending":
        conn.execute("UPDATE public.job_queue SET expires_at = scheduled_for")
        return made
    made.jobs = kit.claim(conn)
    if state == "processing":
        assert kit.lease(conn, made.jobs) == []
    elif state == "failed":
        kit.fail(conn, made.jobs, failure=RETRY_MUCH_LATER)
        conn.execute("UPDATE public.job_queue SET retry_at = completed_at")
    return made


def _refused(rows: list[Row], accepted: str) -> str:
    return f"refused: {rows[0]['status']}" if rows else accepted


def _count(conn: Connection[Any], function: str) -> str:
    return str(kit.call_one(conn, function)[function])


def _request(conn: Connection[Any], s: Scene, params: Row) -> str:
    try:
        return str(kit.request(conn, s.user_id, p_params=params)["outcome"])
    except psycopg.Error as error:
        return str(error.diag.sqlstate)


def _retry(conn: Connection[Any], s: Scene) -> str:
    row = kit.call_one(conn, "retry_jobs", p_user_id=s.user_id, p_job_ids=[s.job_id])
    return str(row["outcome"])


def _cancel(conn: Connection[Any], s: Scene) -> str:
    row = kit.call_one(conn, "cancel_jobs", p_user_id=s.user_id, p_job_ids=[s.job_id])
    return str(row["outcome"])


def _recover(conn: Connection[Any], _: Scene) -> str:
    rows = kit.call(conn, "recover_stuck_jobs")
    return str(rows[0]["outcome"]) if rows else "none"


def _beat(conn: Connection[Any], s: Scene) -> str:
    held = kit.held(s.jobs)
    rows = kit.call(conn, "heartbeat_worker", **held)
    return str(rows[0]["reason"]) if rows else "held"


def _log(conn: Connection[Any], s: Scene) -> str:
    rows = kit.call(conn, "append_job_logs", **kit.held(s.jobs), p_levels=["info"], p_messages=["line"])
    return "refused" if rows else "logged"


def _fail(failure: Row) -> Act:
    def act(conn: Connection[Any], s: Scene) -> str:
        [row] = kit.fail(conn, s.jobs, failure=failure)
        return f"now {row['status']}" if row["accepted"] else f"refused: {row['status']}"

    return act


ACTS: dict[str, Act] = {
    "claim": lambda conn, _: "claimed" if kit.claim(conn, "w2") else "none",
    "cancel": _cancel,
    "expire": lambda conn, _: _count(conn, "expire_stale_jobs"),
    "complete": lambda conn, s: _refused(kit.complete(conn, s.jobs), "done"),
    "fail": _fail(kit.PERMANENT),
    "fail once": _fail(RETRY_AT_ONCE),
    "lease": lambda conn, s: _refused(kit.lease(conn, s.jobs), "leased"),
    "release": lambda conn, s: _refused(kit.release(conn, s.jobs), "released"),
    "recover": _recover,
    "heartbeat": _beat,
    "log": _log,
    "retry": _retry,
    "retry all": lambda conn, _: _count(conn, "retry_failed_jobs"),
    "request": lambda conn, s: _request(conn, s, PARAMS),
    "request other": lambda conn, s: _request(conn, s, {"channel": "another"}),
}


class Arena:
    """A database with three sessions that outlive a race: each would plan every function anew."""

    def __init__(self, database: Database) -> None:
        self.conn = database.connect()
        self.first = database.as_service(autocommit=False)
        self._second = database.as_service(autocommit=False)
        self._thread = ThreadPoolExecutor(1)

    def start(self, act: Act, s: Scene) -> "Future[str]":
        """The second session begins a transaction of one act, on its own thread; it ends committed."""

        def run() -> str:
            answer = act(self._second, s)
            self._second.commit()
            return answer

        return self._thread.submit(run)

    def waits(self, answer: "Future[Any]") -> bool:
        """Whether the second session came to wait for a lock (True), or was answered (False)."""
        pid = self._second.info.backend_pid
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not answer.done():
            if kit.value(self.conn, "SELECT pg_catalog.pg_blocking_pids(%s) <> '{}'", pid):
                return True
            assert time.monotonic() < deadline, "the second session neither waits nor answers"
        return False

    def clear(self) -> None:
        """End what a failed race left open, and delete all its rows."""
        self.first.rollback()
        self._thread.submit(self._second.rollback).result(DEADLINE_SECONDS)
        for table in ("public.job_log", "public.job_queue", *(f"streamvibe.{t}" for t in SUPPORT_TABLES)):
            self.conn.execute(f"DELETE FROM {table}".encode())

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()
