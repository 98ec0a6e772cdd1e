"""Sessions that take the same locks never deadlock, whatever the order of their input or of the rows on disk."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.kit import Row
from tests.support.databases import TEMPLATE, Database, new_database
from tests.support.servers import Server

DEADLINE_SECONDS = 30.0
Act = Callable[[Connection[Any]], object]
ORDERS = list(product((1, -1), (1, -1), ("low", "high"), ("one", "other")))


class Ring:
    """A database, the session that sets up, one that holds a lock for a while, and two rivals on threads."""

    def __init__(self, database: Database) -> None:
        self.conn = database.connect()
        self.holder = database.connect(autocommit=False)
        self.rivals = [database.as_service(), database.as_service()]
        self._threads = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]

    def cross(self, hold: str, values: Sequence[Any], one: Act, other: Act) -> None:
        """Both acts run into a lock that is held, `one` before `other`; then it is let go. Both must end.

        A rival that does not wait has to have ended by itself.
        """
        self.holder.execute(hold.encode(), values)
        sent = []
        for thread, rival, act in zip(self._threads, self.rivals, (one, other), strict=True):
            sent.append(thread.submit(act, rival))
            self._wait_for(rival, sent[-1])
        self.holder.rollback()
        for answer in sent:
            answer.result(DEADLINE_SECONDS)

    def start(self, act: Callable[[Connection[Any]], list[Row]]) -> "Future[list[Row]]":
        """The act of one rival, which waits by now for what the holder has locked."""
        answer = self._threads[0].submit(act, self.rivals[0])
        self._wait_for(self.rivals[0], answer)
        return answer

    def _wait_for(self, rival: Connection[Any], answer: "Future[Any]") -> None:
        pid = rival.info.backend_pid
        while not answer.done():
            if kit.value(self.conn, "SELECT pg_catalog.pg_blocking_pids(%s) <> '{}'", pid):
                return

    def clear(self) -> None:
        """Delete all rows."""
        self.holder.rollback()
        tables = ("public.job_queue", "streamvibe.claim", "streamvibe.worker", "streamvibe.account")
        for table in tables:
            self.conn.execute(f"DELETE FROM {table}".encode())

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads:
            thread.shutdown()


@pytest.fixture(scope="module")
def shared_ring(server: Server) -> Iterator[Ring]:
    """One database for all crossings on a server."""
    with new_database(server, TEMPLATE) as database, contextlib.closing(Ring(database)) as ring:
        kit.register(ring.conn)
        yield ring


@pytest.fixture
def ring(shared_ring: Ring) -> Iterator[Ring]:
    """The ring, empty."""
    yield shared_ring
    shared_ring.clear()


def two_held_jobs(conn: Connection[Any], user_id: UUID, leased: bool) -> list[Row]:
    """Two claimed jobs of one user in id order, the later one before the earlier one on disk."""
    for _ in range(2):
        kit.job_id(conn, user_id)
    kit.worker(conn)
    jobs = sorted(kit.claim(conn, limit=2), key=lambda job: str(job["job_id"]))
    if leased:
        assert kit.lease(conn, jobs) == []
    conn.execute("UPDATE public.job_queue SET progress = 0.1 WHERE id = %s", [jobs[0]["job_id"]])
    return jobs


def progress(conn: Connection[Any], jobs: Sequence[Row]) -> None:
    """Report progress of claimed jobs."""
    kit.call(
        conn,
        "report_job_progress",
        **kit.held(jobs),
        p_progress=[0.5] * len(jobs),
        p_messages=["x"] * len(jobs),
    )


WORK: dict[str, tuple[bool, Callable[[Connection[Any], Sequence[Row]], object]]] = {
    "complete claimed": (False, kit.complete),
    "complete leased": (True, kit.complete),
    "fail": (True, kit.fail),
    "lease": (False, kit.lease),
    "release": (True, kit.release),
    "progress": (True, progress),
    "recover": (True, lambda conn, _: kit.call(conn, "recover_stuck_jobs")),
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize(("work_order", "cancel_order", "hold", "first"), ORDERS, ids=str)
def test_work_and_cancel(
    ring: Ring, work: str, work_order: int, cancel_order: int, hold: str, first: str
) -> None:
    """Finishing, leasing, handing back or recovering two jobs crosses with cancelling both."""
    user_id = uuid4()
    leased, act = WORK[work]
    jobs = two_held_jobs(ring.conn, user_id, leased)
    if work == "recover":
        kit.kill_worker(ring.conn)
    ids = [job["job_id"] for job in jobs]
    rivals: list[Act] = [
        lambda conn: act(conn, jobs[::work_order]),
        lambda conn: kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=ids[::cancel_order]),
    ]
    one, other = rivals if first == "one" else rivals[::-1]
    held = ids[0] if hold == "low" else ids[1]
    ring.cross("SELECT FROM public.job_queue WHERE id = %s FOR NO KEY UPDATE", [held], one, other)
    assert {row["status"] for row in kit.query(ring.conn, "SELECT status FROM public.job_queue")} <= {
        "completed",
        "cancelled",
        "failed",
    }


def failed_jobs(conn: Connection[Any], user_id: UUID) -> list[UUID]:
    """Two failed jobs of one user, due for a retry, the later one first."""
    jobs = two_held_jobs(conn, user_id, leased=True)
    for job, after in zip(jobs, (7200, 3600), strict=True):
        kit.fail(conn, [job], failure={**kit.ERROR, "retry_after_seconds": after})
    conn.execute("UPDATE public.job_queue SET retry_at = retry_at - interval '1 day'")
    return [job["job_id"] for job in jobs]


@pytest.mark.parametrize("rival", ["cancel_jobs", "retry_jobs"])
@pytest.mark.parametrize("retry", ["retry_failed_jobs", "retry_jobs"])
@pytest.mark.parametrize(("retry_order", "rival_order", "hold", "first"), ORDERS, ids=str)
def test_retry_and_cancel(
    ring: Ring, retry: str, rival: str, retry_order: int, rival_order: int, hold: str, first: str
) -> None:
    """Bringing two failed jobs back crosses with cancelling or retrying both."""
    user_id = uuid4()
    ids = failed_jobs(ring.conn, user_id)
    named = {"p_user_id": user_id, "p_job_ids": ids[::retry_order]} if retry == "retry_jobs" else {}
    rivals: list[Act] = [
        lambda conn: kit.call(conn, retry, **named),
        lambda conn: kit.call(conn, rival, p_user_id=user_id, p_job_ids=ids[::rival_order]),
    ]
    one, other = rivals if first == "one" else rivals[::-1]
    held = ids[0] if hold == "low" else ids[1]
    ring.cross("SELECT FROM public.job_queue WHERE id = %s FOR NO KEY UPDATE", [held], one, other)


def test_a_cancel_waits_for_no_open_request(ring: Ring) -> None:
    """A transaction that has asked for one of the user's jobs, a handler's for example, keeps no cancel waiting."""
    user_id = uuid4()
    job_id = kit.job_id(ring.conn, user_id)
    kit.request(ring.holder, user_id)
    [rival, _] = ring.rivals
    with rival.transaction():
        rival.execute("SET LOCAL lock_timeout = '5s'")
        [row] = kit.call(rival, "cancel_jobs", p_user_id=user_id, p_job_ids=[job_id])
    assert row["outcome"] == "cancelled"


def test_a_transaction_that_cancels_last(ring: Ring) -> None:
    """One that requests and then cancels never deadlocks with a retry of the same job, which sees what it left."""
    user_id = uuid4()
    ids = failed_jobs(ring.conn, user_id)
    kit.request(ring.holder, user_id)
    ring.holder.execute("SET LOCAL lock_timeout = '10s'")
    retry = ring.start(lambda conn: kit.call(conn, "retry_jobs", p_user_id=user_id, p_job_ids=ids))
    kit.call(ring.holder, "cancel_jobs", p_user_id=user_id, p_job_ids=ids)
    ring.holder.commit()
    assert [row["outcome"] for row in retry.result(DEADLINE_SECONDS)] == ["not_failed"] * 2


@pytest.mark.parametrize(("one", "other"), list(product((1, -1), (1, -1))))
@pytest.mark.parametrize("hold", ["low", "high"])
def test_cancel_and_cancel(ring: Ring, one: int, other: int, hold: str) -> None:
    """Cancelling the same jobs in opposite orders: each job is cancelled by one of the two."""
    user_id = uuid4()
    ids = [job["job_id"] for job in two_held_jobs(ring.conn, user_id, leased=True)]
    said: list[Row] = []

    def cancel(order: int) -> Act:
        return lambda conn: said.extend(
            kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=ids[::order])
        )

    held = ids[0] if hold == "low" else ids[1]
    ring.cross(
        "SELECT FROM public.job_queue WHERE id = %s FOR NO KEY UPDATE", [held], cancel(one), cancel(other)
    )
    assert sorted(row["outcome"] for row in said) == ["cancelled"] * 2 + ["unchanged"] * 2


@pytest.mark.parametrize("known", [True, False], ids=["known-users", "new-users"])
@pytest.mark.parametrize(("one", "other"), list(product((1, -1), (1, -1))))
@pytest.mark.parametrize("hold", ["low", "high"])
def test_bulk_creation(ring: Ring, known: bool, one: int, other: int, hold: str) -> None:
    """Two bulk requests for the same two users in opposite orders: 10 jobs each, and no user has more."""
    users = sorted([uuid4(), uuid4()], key=str)
    if known:
        for user_id in users:
            kit.call(ring.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=None)
    outcomes: list[str] = []

    def create(order: int) -> Act:
        jobs = [
            {"user_id": str(user_id), "job_type": "email", "params": {"n": str(uuid4())}}
            for user_id in users[::order]
            for _ in range(8)
        ]
        return lambda conn: outcomes.extend(
            row["outcome"]
            for row in kit.call(conn, "create_jobs", p_jobs=Jsonb(jobs), p_dedupe=True, p_enforce_limit=True)
        )

    held = users[0] if hold == "low" else users[1]
    lock = (
        "SELECT FROM streamvibe.account WHERE user_id = %s FOR NO KEY UPDATE"
        if known
        else "INSERT INTO streamvibe.account (user_id) VALUES (%s)"
    )
    ring.cross(lock, [held], create(one), create(other))
    assert sorted(outcomes) == ["created"] * 20 + ["refused"] * 12


@pytest.mark.parametrize(("one", "other"), list(product((1, -1), (1, -1))))
@pytest.mark.parametrize("hold", ["low", "high"])
def test_two_claims(ring: Ring, one: int, other: int, hold: str) -> None:
    """Completing the jobs of two claims, named in opposite orders: each job is completed once."""
    jobs = []
    kit.worker(ring.conn)
    for _ in range(2):
        kit.job_id(ring.conn)
        jobs += kit.claim(ring.conn)
    said: list[Row] = []

    def complete(order: int) -> Act:
        return lambda conn: said.extend(kit.complete(conn, jobs[::order]))

    held = jobs[0] if hold == "low" else jobs[1]
    ring.cross(
        "SELECT FROM streamvibe.claim WHERE token = %s FOR NO KEY UPDATE",
        [held["token"]],
        complete(one),
        complete(other),
    )
    assert [row["status"] for row in said] == ["completed", "completed"]
