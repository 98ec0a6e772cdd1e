"""erase_user(): nothing of a user stays in the queue, nothing of others goes, and the statistics stay exact."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.sql.functions.test_archive import finish, lead, ready_leaf, switch_on, waits_for_lock, write_files
from tests.support.waiting import wait_until

PLACES = (
    *("public.job_queue", "public.job_log", "streamvibe.idempotency", "streamvibe.account"),
    *("streamvibe.leaving_job", "streamvibe.erasure"),
)


def left(conn: Connection[Any], user_id: UUID) -> dict[str, int]:
    """How many rows there are of a user, wherever they can be; and in a pause."""
    found = {
        place: kit.value(conn, f"SELECT count(*) FROM {place} WHERE user_id = %s", user_id)
        for place in PLACES
    }
    paused = "SELECT count(*) FROM streamvibe.pause WHERE name = %s"
    return {name: n for name, n in {**found, "pause": kit.value(conn, paused, str(user_id))}.items() if n}


def erase(
    conn: Connection[Any], user_id: UUID, limit: int = 1000, until: str = "done"
) -> tuple[int, int, int]:
    """Erase in batches; how many jobs, lines and calls. The last call says ``until``."""
    jobs = lines = 0
    for calls in range(1, 1000):
        row = kit.call_one(conn, "erase_user", p_user_id=user_id, p_limit=limit)
        assert row["jobs"] <= limit and row["lines"] <= limit
        jobs, lines = jobs + row["jobs"], lines + row["lines"]
        if row["state"] == "waiting" and not row["running"]:
            time.sleep(0.01)  # another transaction is writing
        elif row["state"] != "working":
            assert row["state"] == until, row
            return jobs, lines, calls
    raise AssertionError("it does not end")


def fill(queue: Queue, user_id: UUID) -> list[UUID]:
    """A job of a user in every state but running, with lines and keys; their own limit, and a pause."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    ids = [kit.job_id(conn, user_id, p_idempotency_key=f"key {n}") for n in range(5)]
    jobs = kit.claim(conn, limit=3)
    held = kit.held(jobs)
    kit.call(conn, "append_job_logs", **held, p_levels=["info"] * 3, p_messages=["secret"] * 3)
    kit.complete(conn, jobs[:1])
    kit.fail(conn, jobs[1:2], failure=kit.PERMANENT)
    kit.fail(conn, jobs[2:], failure={**kit.ERROR, "retry_after_seconds": 3600})
    kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[ids[3]])
    kit.call(conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=50)
    kit.call(conn, "pause_jobs", p_user_id=user_id, p_reason="abuse")
    return ids


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_nothing_of_the_user_stays(queue: Queue, limit: int) -> None:
    """Jobs in every state, lines, keys, limit and pause go, in batches; another user's stay; statistics are exact."""
    victim, other = uuid4(), uuid4()
    fill(queue, victim)
    others = fill(queue, other)
    before = left(queue.conn, other)
    assert set(left(queue.conn, victim)) == {*PLACES[:4], "pause"}
    jobs, lines, calls = erase(queue.service, victim, limit)
    assert (jobs, lines) == (5, 3)
    assert calls >= 5 // limit
    assert left(queue.conn, victim) == {}
    assert left(queue.conn, other) == before
    assert {kit.status(queue.conn, job) for job in others} == {"completed", "failed", "cancelled", "pending"}
    assert kit.call(queue.service, "recount_stats") == []
    assert erase(queue.service, victim)[:2] == (0, 0)


@pytest.mark.parametrize("state", ["sealed", "counted", "archived"])
@pytest.mark.parametrize("parent", ["job_queue", "job_log"])
def test_erasing_from_a_leaf_that_is_about_to_leave(queue: Queue, parent: str, state: str) -> None:
    """Its jobs leave the statistics once: the user's now, the others' with the leaf, which may be counted again."""
    kit.register(queue.conn)
    leaf = kit.old_leaf(queue.conn, parent, weeks=3)
    kit.call(queue.service, "recount_stats")
    victim = kit.value(queue.conn, f"SELECT user_id FROM streamvibe.{leaf} ORDER BY id LIMIT 1")
    service = queue.service
    assert kit.value(service, "SELECT streamvibe.seal_partition(%s)", leaf)
    fence = None
    if state != "sealed":
        assert kit.value(service, "SELECT streamvibe.count_partition(%s)", leaf) == 10
    if state == "archived":
        switch_on(service)
        fence = lead(service)
        write_files(service, fence, leaf, "jobs" if parent == "job_queue" else "logs")
        assert finish(service, fence, leaf)
    jobs, lines, _ = erase(service, victim, until="archive" if state == "archived" else "done")
    assert (jobs, lines) == ((1, 0) if parent == "job_queue" else (0, 1))
    jobs_left = 9 if parent == "job_queue" else 0
    assert kit.call_one(service, "get_job_queue_stats")["total_jobs"] == jobs_left
    assert kit.value(service, "SELECT streamvibe.count_partition(%s)", leaf) == 9
    service.execute("SELECT streamvibe.drop_partition(%s)", [leaf])
    assert kit.call(service, "recount_stats") == []
    assert kit.call_one(service, "get_job_queue_stats")["total_jobs"] == 0


def test_a_user_erased_while_a_leaf_is_archived(queue: Queue) -> None:
    """Files that were written before have the user's rows: they do not become part of the archive."""
    leaf = ready_leaf(queue)
    switch_on(queue.service)
    victim = kit.value(queue.conn, f"SELECT user_id FROM streamvibe.{leaf} ORDER BY id LIMIT 1")
    fence = lead(queue.service)
    write_files(queue.service, fence, leaf)
    erase(queue.service, victim, until="archive")
    assert not finish(queue.service, fence, leaf)
    assert kit.value(queue.service, "SELECT streamvibe.count_partition(%s)", leaf) == 9
    assert not finish(queue.service, fence, leaf)
    assert kit.query(queue.service, "SELECT user_id FROM streamvibe.erasures()") == [{"user_id": victim}]
    queue.conn.execute("DELETE FROM streamvibe.archive_file")
    write_files(queue.service, fence, leaf)
    assert finish(queue.service, fence, leaf)


def test_jobs_that_wait_to_be_archived(queue: Queue) -> None:
    """They are erased, also from a batch that is being archived, which is then not finished."""
    kit.register(queue.conn, "short", p_retention="1 second")
    kit.register(queue.conn)
    kit.worker(queue.conn)
    victim = uuid4()
    kit.job_id(queue.conn, victim, job_type="short")
    kit.job_id(queue.conn, job_type="short")
    kit.complete(queue.conn, kit.claim(queue.conn, limit=2))
    queue.conn.execute("UPDATE public.job_queue SET completed_at = completed_at - interval '1 hour'")
    switch_on(queue.service)
    assert kit.value(queue.service, "SELECT cleanup_old_jobs()") == 2
    fence = lead(queue.service)
    source = f"leaving-{kit.value(queue.service, 'SELECT streamvibe.plan_leaving(%s)', fence)}"
    write_files(queue.service, fence, source)
    assert erase(queue.service, victim, until="archive")[0] == 1
    assert left(queue.conn, victim) == {"streamvibe.erasure": 1}
    assert not finish(queue.service, fence, source)
    assert kit.value(queue.conn, "SELECT count(*) FROM streamvibe.leaving_job") == 1
    before_id = kit.value(queue.service, "SELECT before_id FROM streamvibe.erasures()")
    queue.service.execute("SELECT streamvibe.finish_erasure(%s, %s, %s)", [fence, victim, before_id])
    assert left(queue.conn, victim) == {}


def test_a_job_that_runs_is_waited_for(queue: Queue) -> None:
    """It is cancelled, and named as long as its worker holds it; its handler's last lines go as well."""
    victim = uuid4()
    kit.register(queue.conn)
    kit.worker(queue.conn)
    running = kit.job_id(queue.conn, victim)
    kit.job_id(queue.conn, victim)
    jobs = kit.claim(queue.conn)
    for _ in range(5):
        row = kit.call_one(queue.service, "erase_user", p_user_id=victim)
    assert (row["state"], row["running"]) == ("waiting", [running])
    assert kit.status(queue.conn, running) == "cancelled"
    assert kit.value(queue.conn, "SELECT array_agg(id) FROM public.job_queue") == [running]
    kit.call(queue.conn, "append_job_logs", **kit.held(jobs), p_levels=["info"], p_messages=["still here"])
    assert kit.call_one(queue.service, "erase_user", p_user_id=victim)["state"] == "waiting"
    kit.complete(queue.conn, jobs)
    assert erase(queue.service, victim)[0] == 1
    assert left(queue.conn, victim) == {}
    assert kit.call(queue.service, "recount_stats") == []


def test_a_dead_workers_job_is_waited_for_until_it_is_recovered(queue: Queue) -> None:
    """A worker that died holds it until its lease is over."""
    victim = uuid4()
    kit.register(queue.conn)
    kit.worker(queue.conn)
    kit.job_id(queue.conn, victim)
    kit.claim(queue.conn)
    kit.call(queue.service, "erase_user", p_user_id=victim)
    assert kit.call_one(queue.service, "erase_user", p_user_id=victim)["state"] == "waiting"
    kit.kill_worker(queue.conn)
    kit.call(queue.service, "recover_stuck_jobs")
    assert erase(queue.service, victim)[0] == 1
    assert left(queue.conn, victim) == {}


def test_what_is_asked_for_meanwhile_stays(clocked: Queue) -> None:
    """A job that is newer than the erasure stays with its lines, key and limit; a later erasure takes it."""
    victim = uuid4()
    fill(clocked, victim)
    kit.call(clocked.service, "erase_user", p_user_id=victim, p_limit=1)
    clocked.advance(kit.SECOND)
    kit.call(clocked.conn, "resume_jobs", p_user_id=victim)
    newer = kit.job_id(clocked.conn, victim, p_idempotency_key="newer")
    jobs = kit.claim(clocked.conn)
    assert [job["job_id"] for job in jobs] == [newer]
    kit.call(clocked.conn, "append_job_logs", **kit.held(jobs), p_levels=["info"], p_messages=["new"])
    kit.complete(clocked.conn, jobs)
    assert erase(clocked.service, victim)[0] >= 4
    assert left(clocked.conn, victim) == dict.fromkeys(PLACES[:4], 1)
    assert kit.status(clocked.conn, newer) == "completed"
    clocked.advance(kit.SECOND)
    erase(clocked.service, victim)
    assert left(clocked.conn, victim) == {}


@pytest.mark.parametrize("is_known", [True, False])
def test_a_request_under_way_is_waited_for(queue: Queue, is_known: bool) -> None:
    """A job that somebody asked for before, in a transaction that ends later, does not come after the erasure."""
    victim = uuid4()
    kit.register(queue.conn)
    if is_known:
        kit.job_id(queue.conn, victim)
    with queue.database.connect() as other, ThreadPoolExecutor(1) as thread:
        with queue.conn.transaction():
            kit.job_id(queue.conn, victim)
            erased = thread.submit(erase, other, victim)
            wait_until(lambda: waits_for_lock(queue.service, other), "it waits")
            assert not erased.done()
        assert erased.result(30)[0] == 1 + is_known
    assert left(queue.conn, victim) == {}
    assert kit.call(queue.service, "recount_stats") == []


def test_a_deletion_under_way(queue: Queue) -> None:
    """A job that cleanup_old_jobs() takes at the same time leaves the statistics once, and what it moved is erased."""
    victim = uuid4()
    kit.register(queue.conn, "short", p_retention="1 second")
    kit.register(queue.conn)
    kit.worker(queue.conn)
    for _ in range(3):
        kit.job_id(queue.conn, victim, job_type="short")
    kit.complete(queue.conn, kit.claim(queue.conn, limit=3))
    queue.conn.execute("UPDATE public.job_queue SET completed_at = completed_at - interval '1 hour'")
    kit.call(queue.service, "recount_stats")
    switch_on(queue.service)
    with queue.database.connect() as other, ThreadPoolExecutor(1) as thread:
        with queue.conn.transaction():
            assert kit.value(queue.conn, "SELECT cleanup_old_jobs()") == 3
            erased = thread.submit(erase, other, victim)
            wait_until(lambda: waits_for_lock(queue.service, other), "it waits")
        assert erased.result(30)[0] == 3
    assert left(queue.conn, victim) == {}
    assert kit.call(queue.service, "recount_stats") == []


def test_two_erase_the_same_user(queue: Queue) -> None:
    """One after the other; each row goes once."""
    victim = uuid4()
    fill(queue, victim)
    with queue.database.connect() as one, queue.database.connect() as other, ThreadPoolExecutor(2) as threads:
        both = [threads.submit(erase, conn, victim, 1) for conn in (one, other)]
        assert sum(future.result(60)[0] for future in both) == 5
    assert left(queue.conn, victim) == {}
    assert kit.call(queue.service, "recount_stats") == []


def test_nobody_and_no_batch(queue: Queue) -> None:
    """Without a user, or with a limit out of range: refused by name, and nothing is begun."""
    with kit.refused("SV001", "p_user_id"):
        kit.call(queue.service, "erase_user", p_user_id=None)
    with kit.refused("SV001", "p_limit", "0"):
        kit.call(queue.service, "erase_user", p_user_id=uuid4(), p_limit=0)
    assert kit.query(queue.conn, "SELECT 1 FROM streamvibe.erasure") == []


def test_an_unknown_user(queue: Queue) -> None:
    """Somebody who never asked for anything is erased at once, and leaves no row."""
    assert erase(queue.service, (victim := uuid4())) == (0, 0, 1)
    assert left(queue.conn, victim) == {}


def test_bulk_creation_under_way_is_waited_for(queue: Queue) -> None:
    """It takes no user's lock: jobs that it made before the erasure began go as soon as it has committed."""
    victim = uuid4()
    kit.register(queue.conn)
    with queue.database.connect() as other:
        with other.transaction():
            job = {"user_id": str(victim), "job_type": "email"}
            kit.call(other, "create_jobs", p_jobs=Jsonb([job]))
            for _ in range(2):
                row = kit.call_one(queue.service, "erase_user", p_user_id=victim)
                assert (row["state"], row["jobs"], row["running"]) == ("waiting", 0, [])
        assert erase(queue.service, victim)[0] == 1
    assert left(queue.conn, victim) == {}


@pytest.mark.parametrize("ended", [True, False], ids=["the archive's turn", "broken off"])
def test_a_later_erasure_takes_what_came_since(queue: Queue, ended: bool) -> None:
    """Begun anew, also before the first has ended; the end of the first is not that of the second."""
    victim = uuid4()
    kit.register(queue.conn)
    switch_on(queue.service)
    queue.conn.execute(
        "INSERT INTO streamvibe.archive_file (kind, source, day, url, key)"
        " VALUES ('jobs', 'old', now(), 'file:///x', 'k')"
    )
    fence = lead(queue.service)
    kit.job_id(queue.conn, victim)
    if ended:
        erase(queue.service, victim, until="archive")
    else:
        kit.call_one(queue.service, "erase_user", p_user_id=victim)
    first = kit.value(queue.conn, "SELECT before_id FROM streamvibe.erasure")
    kit.job_id(queue.conn, victim)
    kit.call_one(queue.service, "erase_user", p_user_id=victim, p_anew=True)
    queue.service.execute("SELECT streamvibe.finish_erasure(%s, %s, %s)", [fence, victim, first])
    assert left(queue.conn, victim)["streamvibe.erasure"] == 1
    erase(queue.service, victim, until="archive")
    assert left(queue.conn, victim) == {"streamvibe.erasure": 1}


def test_bulk_creation_that_waits_for_an_erasure_has_the_lock(queue: Queue) -> None:
    """The user's row is taken away under it: it makes another, and identical jobs are made once all the same."""
    victim = uuid4()
    kit.register(queue.conn)
    kit.call(queue.conn, "set_user_limit", p_user_id=victim, p_max_live_jobs=5)
    jobs = Jsonb([{"user_id": str(victim), "job_type": "email", "params": {"n": 1}}])
    with queue.database.connect() as one, queue.database.connect() as two, ThreadPoolExecutor(2) as threads:
        one.autocommit = False
        with queue.conn.transaction():
            queue.conn.execute("SELECT streamvibe.lock_account(%s)", [victim])
            first = threads.submit(kit.call, one, "create_jobs", p_jobs=jobs, p_dedupe=True)
            wait_until(lambda: waits_for_lock(queue.service, one), "it waits")
            queue.conn.execute("DELETE FROM streamvibe.account WHERE user_id = %s", [victim])
        [made] = first.result(30)
        second = threads.submit(kit.call, two, "create_jobs", p_jobs=jobs, p_dedupe=True)
        wait_until(lambda: second.done() or waits_for_lock(queue.service, two), "it waits for the first")
        one.commit()
        [joined] = second.result(30)
    assert (made["outcome"], joined["outcome"]) == ("created", "joined")
