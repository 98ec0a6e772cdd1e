"""claim_jobs: which jobs a worker gets, in what order, and what it is refused for."""

import contextlib
import threading
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import IsolationLevel
from tests.sql import kit
from tests.sql.conftest import Queue


def ready(queue: Queue) -> None:
    """Type `email` and worker `w1`."""
    kit.register(queue.conn)
    kit.worker(queue.conn)


def ids(jobs: list[kit.Row]) -> list[UUID]:
    """Their ids."""
    return [job["job_id"] for job in jobs]


def test_what_a_claim_says(queue: Queue) -> None:
    """Everything a handler needs, under one token; the row is not written, readers see processing."""
    kit.register(queue.conn, p_timeout="90 seconds", p_max_attempts=7)
    kit.worker(queue.conn)
    user_id = uuid4()
    made = [kit.job_id(queue.conn, user_id, p_params={"n": n}) for n in range(3)]
    before = [kit.stored(queue.conn, job_id) for job_id in made]
    jobs = kit.claim(queue.service, limit=3)
    assert ids(jobs) == made
    assert len({job["token"] for job in jobs}) == 1
    first = jobs[0]
    assert (first["user_id"], first["job_type"], first["params"]) == (user_id, "email", {"n": 0})
    assert (first["attempt"], first["max_attempts"], first["isolated"]) == (1, 7, False)
    assert first["timeout"].total_seconds() == 90
    assert first["created_at"] == before[0]["created_at"]
    assert first["scheduled_for"] == before[0]["scheduled_for"]
    assert [kit.stored(queue.conn, job_id) for job_id in made] == before
    assert {kit.status(queue.conn, job_id) for job_id in made} == {"processing"}
    assert kit.claim(queue.conn, limit=3) == []


def test_order(queue: Queue) -> None:
    """Highest priority first; then longest due."""
    ready(queue)
    due = {}
    for priority in (2, 9, 0, 5):
        for at in ("2020-01-03", "2020-01-01", "2020-01-02"):
            job_id = kit.job_id(queue.conn, p_priority=priority)
            queue.conn.execute(
                "UPDATE job_queue SET created_at = %s, scheduled_for = %s WHERE id = %s", [at, at, job_id]
            )
            due[job_id] = (-priority, at, str(job_id))
    wanted = sorted(due, key=lambda job_id: due[job_id])
    assert ids(kit.claim(queue.conn, limit=5)) == wanted[:5]
    assert [ids(kit.claim(queue.conn))[0] for _ in range(7)] == wanted[5:]


def test_jobs_of_the_future(clocked: Queue) -> None:
    """A job is not claimed before it is due, however high its priority, and is then."""
    ready(clocked)
    later = kit.job_id(clocked.conn, p_priority=9, p_scheduled_for="2999-01-01")
    clocked.conn.execute("UPDATE job_queue SET scheduled_for = streamvibe.now() + interval '1 hour'")
    now = kit.job_id(clocked.conn, p_priority=0)
    assert ids(kit.claim(clocked.conn, limit=10)) == [now]
    clocked.advance(kit.HOUR)
    kit.worker(clocked.conn)
    assert ids(kit.claim(clocked.conn, limit=10)) == [later]


def test_types(queue: Queue) -> None:
    """Only the types named, across them by priority and due time, not by the order of the list."""
    for name in ("a", "b", "c"):
        kit.register(queue.conn, name)
    kit.worker(queue.conn)
    low_b = kit.job_id(queue.conn, job_type="b", p_priority=1)
    first_a = kit.job_id(queue.conn, job_type="a")
    first_b = kit.job_id(queue.conn, job_type="b")
    second_a = kit.job_id(queue.conn, job_type="a")
    high_c = kit.job_id(queue.conn, job_type="c", p_priority=9)
    assert kit.claim(queue.conn, limit=9, p_job_types=[]) == []
    assert kit.claim(queue.conn, limit=9, p_job_types=["nope"]) == []
    assert ids(kit.claim(queue.conn, limit=3, p_job_types=["b", "a", "a"])) == [first_a, first_b, second_a]
    assert ids(kit.claim(queue.conn, limit=9, p_job_types=["b", "a"])) == [low_b]
    assert ids(kit.claim(queue.conn, limit=9)) == [high_c]


@pytest.mark.parametrize("types", [None, ["a", "b"], ["a", "b", "unregistered"]])
def test_all_types(queue: Queue, types: list[str] | None) -> None:
    """NULL and a list of every registered type mean the same."""
    for name in ("a", "b"):
        kit.register(queue.conn, name)
    kit.worker(queue.conn)
    made = [kit.job_id(queue.conn, job_type=name) for name in ("a", "b", "a")]
    assert ids(kit.claim(queue.conn, limit=9, p_job_types=types)) == made


def isolated(queue: Queue, *, waited: str = "0") -> UUID:
    """A due job that was held, with another, by a worker that died."""
    job_id = kit.job_id(queue.conn)
    queue.conn.execute(
        "UPDATE job_queue SET isolated = true, updated_at = updated_at - %s::interval WHERE id = %s",
        [waited, job_id],
    )
    return job_id


def test_an_isolated_job_comes_alone(queue: Queue) -> None:
    """First in line it is the only row; behind others it is left for another claim."""
    ready(queue)
    suspect = isolated(queue)
    others = [kit.job_id(queue.conn) for _ in range(3)]
    [only] = kit.claim(queue.conn, limit=10)
    assert (only["job_id"], only["isolated"]) == (suspect, True)
    assert ids(kit.claim(queue.conn, limit=10)) == others
    before, last = kit.job_id(queue.conn), isolated(queue)
    assert ids(kit.claim(queue.conn, limit=10)) == [before]
    assert ids(kit.claim(queue.conn, limit=10)) == [last]


@pytest.mark.parametrize("types", [None, ["email"]])
def test_an_isolated_job_and_a_busy_worker(queue: Queue, types: list[str] | None) -> None:
    """A worker that runs other jobs passes it over until it has been isolated for a minute; NULL does even then."""
    ready(queue)
    kit.register(queue.conn, "other")
    suspect = isolated(queue, waited="50 seconds")
    normal = kit.job_id(queue.conn)
    assert ids(kit.claim(queue.conn, limit=10, p_alone=False, p_job_types=types)) == [normal]
    assert kit.claim(queue.conn, limit=10, p_alone=False, p_job_types=types) == []
    queue.conn.execute("UPDATE job_queue SET updated_at = updated_at - interval '20 s'")
    assert kit.claim(queue.conn, limit=10, p_alone=None, p_job_types=types) == []
    assert ids(kit.claim(queue.conn, limit=10, p_alone=False, p_job_types=types)) == [suspect]


def test_every_type_of_release_can_be_claimed_again(queue: Queue) -> None:
    """A job handed back, failed with its backoff over, or retried by its user is claimed with a new token."""
    ready(queue)
    job_id = kit.job_id(queue.conn)
    tokens = []
    for give_back in (
        kit.release,
        lambda conn, jobs: kit.fail(conn, jobs, failure={**kit.ERROR, "retry_after_seconds": 0}),
        lambda conn, jobs: None,
    ):
        jobs = kit.claim(queue.conn)
        assert ids(jobs) == [job_id]
        tokens.append(jobs[0]["token"])
        give_back(queue.conn, jobs)
    assert tokens == sorted(set(tokens))


def test_unknown_worker_and_dead_worker(queue: Queue) -> None:
    """A worker that never registered, or whose lease is over, gets SV010; after a heartbeat it gets jobs."""
    kit.register(queue.conn)
    job_id = kit.job_id(queue.conn)
    with kit.refused("SV010", "p_worker_id", "w1") as caught:
        kit.claim(queue.conn)
    assert "heartbeat_worker" in str(caught.value.diag.message_hint)
    kit.worker(queue.conn)
    kit.kill_worker(queue.conn)
    with kit.refused("SV010", "p_worker_id", "w1"):
        kit.claim(queue.conn)
    kit.worker(queue.conn)
    assert ids(kit.claim(queue.conn)) == [job_id]


@pytest.mark.parametrize(
    ("code", "field", "arguments"),
    [
        ("SV001", "p_limit", {"p_limit": 0}),
        ("SV001", "p_limit", {"p_limit": 10001}),
        ("SV001", "p_limit", {"p_limit": None}),
        ("SV010", "p_worker_id", {"p_worker_id": None}),
        ("SV010", "p_worker_id", {"p_worker_id": ""}),
    ],
)
def test_refused(queue: Queue, code: str, field: str, arguments: dict[str, Any]) -> None:
    """A bad argument is named."""
    ready(queue)
    with kit.refused(code, field):
        kit.call(queue.conn, "claim_jobs", **{"p_worker_id": "w1", **arguments})


def test_isolation(queue: Queue) -> None:
    """In a snapshot transaction a job could be claimed twice: refused."""
    ready(queue)
    conn = queue.database.as_service(autocommit=False)
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    with kit.refused("SV006", "transaction_isolation"):
        kit.claim(conn)
    conn.close()


def test_a_sleeping_worker_is_woken_once(queue: Queue) -> None:
    """Nobody is notified while workers find jobs; a worker that found none is, once per type and transaction."""
    ready(queue)
    kit.register(queue.conn, "other")
    listener = queue.database.connect()
    listener.execute("LISTEN streamvibe_jobs")
    kit.job_id(queue.conn)
    assert len(kit.claim(queue.conn)) == 1
    kit.job_id(queue.conn)
    assert list(listener.notifies(timeout=0)) == []
    assert len(kit.claim(queue.conn)) == 1
    assert kit.claim(queue.conn) == []
    with queue.conn.transaction():
        for _ in range(3):
            kit.job_id(queue.conn)
    kit.job_id(queue.conn, p_scheduled_for="2999-01-01")
    assert [note.payload for note in listener.notifies(timeout=10, stop_after=1)] == ["email"]
    assert list(listener.notifies(timeout=0)) == []
    assert len(kit.claim(queue.conn, limit=9)) == 3
    kit.job_id(queue.conn)
    assert list(listener.notifies(timeout=0)) == []
    listener.close()


def test_a_quiet_queue_goes_on_waking(queue: Queue) -> None:
    """A worker that found one job where it could have had more is told of the next, and its row is not written."""
    ready(queue)
    assert kit.claim(queue.conn, limit=9) == []
    version = kit.value(queue.conn, "SELECT xmin::text FROM streamvibe.worker")
    listener = queue.database.connect()
    listener.execute("LISTEN streamvibe_jobs")
    for _ in range(2):
        kit.job_id(queue.conn)
        assert [note.payload for note in listener.notifies(timeout=10, stop_after=1)] == ["email"]
        assert len(kit.claim(queue.conn, limit=9)) == 1
    assert kit.claim(queue.conn, limit=9) == []
    assert kit.value(queue.conn, "SELECT xmin::text FROM streamvibe.worker") == version
    kit.job_id(queue.conn)
    kit.job_id(queue.conn)
    assert len(kit.claim(queue.conn, limit=9)) == 2
    list(listener.notifies(timeout=0))
    kit.job_id(queue.conn)
    assert list(listener.notifies(timeout=0)) == [], "busy, and told all the same"
    listener.close()


def test_a_worker_asleep_for_other_types_is_left_alone(queue: Queue) -> None:
    """A worker is woken for the types it handles."""
    for name in ("email", "sms"):
        kit.register(queue.conn, name)
    kit.worker(queue.conn, p_job_types=["sms"])
    assert kit.claim(queue.conn, p_job_types=["sms"]) == []
    listener = queue.database.connect()
    listener.execute("LISTEN streamvibe_jobs")
    kit.job_id(queue.conn)
    kit.job_id(queue.conn, job_type="sms")
    assert [note.payload for note in listener.notifies(timeout=10, stop_after=1)] == ["sms"]
    listener.close()


@pytest.mark.parametrize("types", [["email"], ["email", "other"], None])
def test_jobs_locked_elsewhere_are_walked_past(queue: Queue, types: list[str] | None) -> None:
    """An open transaction that holds the first jobs keeps no claim from the others, of whichever types it is."""
    ready(queue)
    kit.register(queue.conn, "other")
    user_id = uuid4()
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=100)
    made = [kit.job_id(queue.conn, user_id) for _ in range(30)]
    with queue.database.connect() as other, other.transaction():
        kit.call(other, "cancel_jobs", p_user_id=user_id, p_job_ids=made[:20])
        assert ids(kit.claim(queue.conn, limit=5, p_job_types=types)) == made[20:25]


@pytest.mark.parametrize("limit", [1, 3])
def test_a_claim_hides_no_job_that_it_does_not_take(queue: Queue, limit: int) -> None:
    """Of due jobs of several types a claim locks no more than it takes; beside it another worker gets the rest."""
    for name in ("a", "b", "c"):
        kit.register(queue.conn, name)
    kit.worker(queue.conn)
    kit.worker(queue.conn, "w2")
    made = [kit.job_id(queue.conn, job_type=name) for _ in range(limit) for name in ("a", "b", "c")]
    with queue.database.connect() as other, other.transaction():
        assert ids(kit.claim(other, limit=limit)) == made[:limit]
        assert ids(kit.claim(queue.conn, "w2", limit=20)) == made[limit:]


def test_a_claim_that_waited_for_its_worker_s_row_is_not_dated_back(queue: Queue) -> None:
    """When jobs were claimed is when the claim could go on, and so is what counts as due."""
    ready(queue)
    kit.job_id(queue.conn)
    claimed: list[kit.Row] = []
    with contextlib.closing(queue.database.as_service()) as waiting:
        thread = threading.Thread(target=lambda: claimed.extend(kit.claim(waiting)))
        with queue.conn.transaction():
            queue.conn.execute("SELECT FROM streamvibe.worker WHERE id = 'w1' FOR UPDATE")
            thread.start()
            blocked = "SELECT %s = ANY (SELECT pid FROM pg_locks WHERE NOT granted)"
            while not kit.value(queue.conn, blocked, waiting.info.backend_pid):
                assert thread.is_alive()
            waited_until = kit.value(queue.conn, "SELECT clock_timestamp()")
        thread.join()
    assert len(claimed) == 1
    assert kit.value(queue.conn, "SELECT claimed_at FROM streamvibe.claim") > waited_until
