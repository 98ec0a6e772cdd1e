"""Pages of a list while other sessions create, run, cancel, retry and delete its jobs."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.sql import kit
from tests.sql.conftest import Queue

THERE = 120


class Churn:
    """Sessions that change a user's jobs until they are told to stop; the jobs of `there` change, but stay."""

    def __init__(self, queue: Queue, user_id: UUID, there: list[UUID]) -> None:
        self._queue, self._user_id, self._there = queue, user_id, there
        self._stop = threading.Event()
        self.rounds: dict[str, int] = {}
        self.errors: list[BaseException] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """From here on, to the end of the block; raises what one of them met."""
        threads = [
            threading.Thread(target=self._repeat, args=[act]) for act in (self._add, self._work, self._change)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self.errors:
            raise self.errors[0]

    def _repeat(self, act: Callable[[psycopg.Connection[object]], None]) -> None:
        try:
            with self._queue.database.connect() as conn:
                while not self._stop.is_set():
                    act(conn)
                    self.rounds[act.__name__] = self.rounds.get(act.__name__, 0) + 1
        except BaseException as error:
            self.errors.append(error)

    def _add(self, conn: psycopg.Connection[object]) -> None:
        kit.job_id(conn, self._user_id)
        conn.execute(
            "DELETE FROM public.job_queue WHERE id = (SELECT id FROM public.job_queue WHERE user_id = %s "
            "AND NOT id = ANY (%s) AND status IN ('completed', 'cancelled') ORDER BY random() LIMIT 1)",
            [self._user_id, self._there],
        )

    def _work(self, conn: psycopg.Connection[object]) -> None:
        jobs = kit.claim(conn, limit=9)
        kit.lease(conn, jobs[:3])
        kit.complete(conn, jobs[:4])
        kit.fail(conn, jobs[4:])

    def _change(self, conn: psycopg.Connection[object]) -> None:
        some = [
            row["id"]
            for row in kit.query(
                conn,
                "SELECT id FROM public.job_queue WHERE user_id = %s ORDER BY random() LIMIT 6",
                self._user_id,
            )
        ]
        kit.call(conn, "cancel_jobs", p_user_id=self._user_id, p_job_ids=some[:2])
        kit.call(conn, "retry_jobs", p_user_id=self._user_id, p_job_ids=some[2:])


def walk(queue: Queue, user_id: UUID, function: str, size: int) -> list[UUID]:
    """All ids, from the first page to the last."""
    seen: list[UUID] = []
    cursor = None
    while True:
        more = {"p_bucket": "month"} if function == "get_user_jobs_by_bucket" else {}
        rows = kit.call(queue.conn, function, p_user_id=user_id, p_cursor=cursor, p_limit=size, **more)
        seen += [row["id"] for row in rows]
        cursor = rows[-1]["next_cursor"]
        if cursor is None:
            return seen


@pytest.mark.parametrize("function", ["get_user_jobs_by_cursor", "get_user_jobs_by_bucket"])
def test_every_job_that_stays_is_listed_once(queue: Queue, function: str) -> None:
    """No page repeats a job, and none of those that were there throughout is missed, whatever became of it."""
    user_id = uuid4()
    kit.register(queue.conn, p_backoff_base="1 millisecond", p_max_attempts=100)
    kit.worker(queue.conn, p_lease="1 hour")
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=100_000)
    there = [kit.job_id(queue.conn, user_id) for _ in range(THERE)]
    churn = Churn(queue, user_id, there)
    changed = set()
    with churn.running():
        for size in (1, 2, 5, 7, 13, 50, 64, 100):
            seen = walk(queue, user_id, function, size)
            assert len(seen) == len(set(seen))
            assert [job for job in seen if job in set(there)] == there[::-1]
            changed |= {
                row["status"]
                for row in kit.query(
                    queue.conn, "SELECT DISTINCT status FROM public.job_queue WHERE id = ANY (%s)", there
                )
            }
    assert min(churn.rounds.values()) > 3, churn.rounds
    assert len(changed) > 2, changed
