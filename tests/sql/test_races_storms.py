"""Many sessions at full speed: what only shows between two statements has many chances to show."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.kit import Row
from tests.support.databases import Database

T = TypeVar("T")

LEGAL = {
    ("pending", "processing"),
    ("pending", "completed"),
    ("pending", "failed"),
    ("pending", "cancelled"),
    ("pending", "pending"),
    ("processing", "processing"),
    ("processing", "completed"),
    ("processing", "failed"),
    ("processing", "cancelled"),
    ("processing", "pending"),
    ("failed", "pending"),
    ("failed", "failed"),
    ("failed", "cancelled"),
}

# Every change of a row is noted by the database itself, in the transaction that makes it.
AUDIT = """
CREATE TABLE public.audit (old_status text NOT NULL, new_status text NOT NULL);
CREATE FUNCTION public.note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.audit VALUES (old.status, new.status);
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER UPDATE ON public.job_queue FOR EACH ROW EXECUTE FUNCTION public.note_change();
GRANT ALL ON public.audit TO PUBLIC;
"""


def together(database: Database, works: Sequence[Callable[[Connection[Any]], T]]) -> list[T]:
    """What each piece of work returns, all started at the same moment on connections of their own."""
    gate = threading.Barrier(len(works))

    def run(work: Callable[[Connection[Any]], T], conn: Connection[Any]) -> T:
        gate.wait()
        return work(conn)

    connections = [database.as_service() for _ in works]
    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(run, works, connections))


def pending_jobs(conn: Connection[Any], count: int) -> list[UUID]:
    """So many due jobs of as many users."""
    jobs = [{"user_id": str(uuid4()), "job_type": kit.register(conn)} for _ in range(count)]
    return [row["job_id"] for row in kit.call(conn, "create_jobs", p_jobs=Jsonb(jobs))]


def claim_all(name: str, batch: int) -> Callable[[Connection[Any]], list[UUID]]:
    """Claim until nothing is left."""

    def work(conn: Connection[Any]) -> list[UUID]:
        taken: list[UUID] = []
        kit.worker(conn, name)
        while jobs := kit.claim(conn, name, batch):
            taken += [job["job_id"] for job in jobs]
        return taken

    return work


def test_claims(database: Database) -> None:
    """8 workers that claim until nothing is left: every job exactly once."""
    ids = pending_jobs(database.connect(), 1500)
    taken = together(database, [claim_all(f"w{n}", batch=1 + n) for n in range(8)])
    counts = Counter(job_id for part in taken for job_id in part)
    print(f"\n{database.server.name}: 8 workers took {[len(part) for part in taken]}")
    assert [job_id for job_id, count in counts.items() if count > 1] == []
    assert set(counts) == set(ids)


def test_claims_and_expiry(database: Database) -> None:
    """Workers and expiry go for the same jobs: each is claimed or expired, none both, none neither."""
    conn = database.connect()
    ids = pending_jobs(conn, 1500)
    conn.execute("UPDATE public.job_queue SET expires_at = scheduled_for")

    def expire(conn: Connection[Any]) -> list[UUID]:
        while kit.value(conn, "SELECT public.expire_stale_jobs(7)"):
            pass
        return []

    taken = together(database, [*(claim_all(f"w{n}", 3) for n in range(4)), expire, expire])
    claimed = [job_id for part in taken for job_id in part]
    expired = [row["id"] for row in kit.query(conn, "SELECT id FROM job_queue WHERE status = 'failed'")]
    print(f"\n{database.server.name}: {len(claimed)} claimed, {len(expired)} expired")
    assert sorted(claimed + expired) == sorted(ids)


def test_retries_and_requests(database: Database) -> None:
    """A user with 8 live and 6 failed jobs: retries and requests together fill exactly the 2 free places.

    One of the requests is identical to a failed job: never are both live.
    """
    conn = database.connect()
    kit.register(conn)
    kit.worker(conn)
    for _ in range(5):
        conn.execute("DELETE FROM public.job_queue")
        user_id = uuid4()
        failed = [kit.job_id(conn, user_id, p_params={"failed": n}) for n in range(6)]
        kit.fail(conn, kit.claim(conn, limit=6), failure={**kit.ERROR, "retry_after_seconds": 3600})
        conn.execute("UPDATE public.job_queue SET retry_at = completed_at WHERE status = 'failed'")
        for n in range(8):
            kit.job_id(conn, user_id, p_params={"live": n}, p_scheduled_for="2999-01-01")

        def ask(n: int, user_id: UUID = user_id) -> Callable[[Connection[Any]], object]:
            def work(conn: Connection[Any]) -> object:
                try:
                    return kit.request(conn, user_id, p_params={"failed": n})
                except psycopg.Error as error:
                    assert error.diag.sqlstate == "SV005"
                    return None

            return work

        def retry(conn: Connection[Any], user_id: UUID = user_id, failed: list[UUID] = failed) -> object:
            return kit.call(conn, "retry_jobs", p_user_id=user_id, p_job_ids=failed)

        together(database, [ask(0), ask(1), ask(7), retry, retry, lambda c: kit.call(c, "retry_failed_jobs")])
        live = kit.query(
            conn,
            "SELECT params FROM public.job_queue WHERE user_id = %s AND status IN ('pending', 'processing')",
            user_id,
        )
        assert len(live) == 10
        assert len({str(row["params"]) for row in live}) == 10, "an identical job is live twice"


def test_bulk_and_single_requests(database: Database) -> None:
    """create_jobs (dedupe and limit on) beside request_job for the same user: 10 live jobs, no twins."""
    conn = database.connect()
    kit.register(conn)
    user_id = uuid4()
    params = [{"n": n} for n in range(8)]

    def single(conn: Connection[Any]) -> list[str]:
        said = []
        for wanted in [*params, {"single": 1}, {"single": 2}, {"single": 3}]:
            try:
                said.append(str(kit.request(conn, user_id, p_params=wanted)["outcome"]))
            except psycopg.Error as error:
                said.append(str(error.diag.sqlstate))
        return said

    def bulk(conn: Connection[Any]) -> list[str]:
        jobs = [
            {"user_id": str(user_id), "job_type": "email", "params": wanted}
            for wanted in [*params, {"bulk": 1}, {"bulk": 2}, {"bulk": 3}]
        ]
        arguments = {"p_jobs": Jsonb(jobs), "p_dedupe": True, "p_enforce_limit": True}
        return [row["outcome"] for row in kit.call(conn, "create_jobs", **arguments)]

    said = Counter(
        outcome for part in together(database, [single, bulk, single, bulk, bulk]) for outcome in part
    )
    print(f"\n{database.server.name}: {dict(said)}")
    assert said["created"] == 10
    assert kit.value(conn, "SELECT count(*) FROM public.job_queue") == 10
    assert kit.value(conn, "SELECT count(DISTINCT params) FROM public.job_queue") == 10


def test_ensure_partitions(database: Database) -> None:
    """Several sessions make leaves at once: each leaf is made once, by one of them, and nobody fails."""

    def work(conn: Connection[Any]) -> list[Row]:
        return kit.call(conn, "ensure_partitions", p_ahead="12 weeks")

    conn = database.connect()
    before = kit.value(conn, "SELECT count(*) FROM streamvibe.partition")
    made = [row["partition_name"] for part in together(database, [work] * 4) for row in part]
    assert len(made) == len(set(made)) > 0
    assert kit.value(conn, "SELECT count(*) FROM streamvibe.partition") == before + len(made)


def test_every_transition_is_legal(database: Database) -> None:
    """Users, workers and maintenance at random on the same few jobs make legal transitions only.

    At the end nobody is over the limit, and what claims hold is live or cancelled; no session ever fails.
    """
    conn = database.connect()
    conn.execute(AUDIT.encode())
    kit.register(conn, p_max_attempts=100)
    users = [uuid4(), uuid4()]

    def user(seed: int) -> Callable[[Connection[Any]], object]:
        def work(conn: Connection[Any]) -> None:
            pick = random.Random(seed)
            for _ in range(120):
                user_id = pick.choice(users)
                ids = [
                    row["id"]
                    for row in kit.query(conn, "SELECT id FROM job_queue WHERE user_id = %s", user_id)
                ]
                some = pick.sample(ids, min(len(ids), 3))
                try:
                    kit.request(conn, user_id, p_params={"n": pick.randrange(15)}, p_force=True)
                except psycopg.Error as error:
                    assert error.diag.sqlstate == "SV005"
                if some:
                    function = pick.choice(["cancel_jobs", *["retry_jobs"] * 4])
                    kit.call(conn, function, p_user_id=user_id, p_job_ids=some)

        return work

    def run_jobs(name: str, seed: int) -> Callable[[Connection[Any]], object]:
        def work(conn: Connection[Any]) -> None:
            pick = random.Random(seed)
            for _ in range(120):
                kit.worker(conn, name)
                jobs = kit.claim(conn, name, 3)
                if pick.random() < 0.5:
                    kit.lease(conn, jobs, name)
                if pick.random() < 0.2:
                    kit.kill_worker(database_owner[name], name)
                if pick.random() < 0.3:
                    kit.complete(conn, jobs, name)
                elif pick.random() < 0.6:
                    failure = {**kit.ERROR, "retry_after_seconds": pick.choice([0, 0, 3600])}
                    kit.fail(conn, jobs, name, failure)
                else:
                    kit.release(conn, jobs, name)

        return work

    database_owner = {name: database.connect() for name in ("w1", "w2", "w3")}

    def maintain(conn: Connection[Any]) -> None:
        for _ in range(120):
            kit.call(conn, "recover_stuck_jobs")
            kit.call(conn, "retry_failed_jobs")
            kit.call(conn, "expire_stale_jobs")

    seen: Counter[tuple[str, str]] = Counter()
    for first in range(0, 60, 10):
        users_and_workers = [user(first + 1), user(first + 2)]
        users_and_workers += [run_jobs(f"w{number}", first + 2 + number) for number in (1, 2, 3)]
        together(database, [*users_and_workers, maintain, maintain])
        seen = Counter(
            (row["old_status"], row["new_status"])
            for row in kit.query(conn, "SELECT old_status, new_status FROM public.audit")
        )
        if len(seen) >= 8:
            break
    print(f"\n{database.server.name}: {dict(seen)}")
    assert set(seen) <= LEGAL
    assert len(seen) >= 8, "the storms were too calm to show anything"
    held = "SELECT 1 FROM streamvibe.claim c, unnest(c.job_ids) u(id) JOIN public.job_queue q ON q.id = u.id"
    assert kit.query(conn, f"{held} WHERE q.status IN ('completed', 'failed')") == []
    live = "SELECT 1 FROM public.job_queue WHERE status IN ('pending', 'processing') GROUP BY user_id"
    assert kit.query(conn, f"{live} HAVING count(*) > 10") == []
    assert kit.query(conn, f"{live}, params HAVING count(*) > 1") == []
