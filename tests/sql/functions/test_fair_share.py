"""Fair share: of users' jobs at one priority, who asked for many does not delay who asked for one."""

from datetime import timedelta
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from benchmarks.pickup import nodes
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.sql.plans import nested_plans

MANY = 3_000
OTHERS = 99


def ready(queue: Queue) -> None:
    """A job type and a worker."""
    kit.register(queue.conn)
    kit.worker(queue.conn)


def bulk(queue: Queue, user_id: UUID, count: int, **job: object) -> None:
    """So many jobs of one user at once, beyond any limit."""
    jobs = [{"user_id": str(user_id), "job_type": "email", "params": {"n": n}, **job} for n in range(count)]
    for start in range(0, count, 1000):
        kit.call(queue.conn, "create_jobs", p_jobs=Jsonb(jobs[start : start + 1000]))


def owners(queue: Queue, batch: int, claims: int) -> list[UUID]:
    """Whose jobs come, in order, from so many claims that finish what they take."""
    found: list[UUID] = []
    for _ in range(claims):
        jobs = kit.claim(queue.conn, limit=batch)
        kit.complete(queue.conn, jobs)
        found += [job["user_id"] for job in jobs]
    return found


@pytest.mark.parametrize("batch", [1, 10, 100])
def test_one_job_beside_many(queue: Queue, batch: int) -> None:
    """99 users with one job each, asked for after 3,000 of one user, have all started within 2 x 99 jobs."""
    ready(queue)
    bulk(queue, uuid4(), MANY)
    others = [uuid4() for _ in range(OTHERS)]
    for user_id in others:
        kit.job_id(queue.conn, user_id)
    assert set(others) <= set(owners(queue, batch, 2 * OTHERS // batch))


def test_two_with_many_take_turns(queue: Queue) -> None:
    """Who asks for many after another did need not wait for all of those; and neither is left behind."""
    ready(queue)
    first, second = uuid4(), uuid4()
    bulk(queue, first, 500)
    bulk(queue, second, 500)
    started = owners(queue, 20, 10)
    assert 90 <= started.count(first) <= 110


def test_newer_jobs_of_another_kind_hide_none(queue: Queue) -> None:
    """A user's next job stands behind all that wait of its type, whatever else the user asked for in between."""
    ready(queue)
    kit.register(queue.conn, "sms")
    user_id = uuid4()
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=1000)
    bulk(queue, user_id, 30)
    bulk(queue, user_id, 40, job_type="sms")
    bulk(queue, user_id, 40, scheduled_for="2999-01-01T00:00:00Z")
    assert kit.stored(queue.conn, kit.job_id(queue.conn, user_id))["turn"] == 30
    bulk(queue, user_id, 40, job_type="sms")
    bulk(queue, user_id, 1, params={"n": "next"})
    due = "SELECT max(turn) FROM job_queue WHERE job_type = 'email' AND scheduled_for <= created_at"
    assert kit.value(queue.conn, due) == 31


def test_the_turn_is_found_without_reading_all_that_waits(queue: Queue) -> None:
    """Among thousands of a user's jobs, where the statistics say that users have one each."""
    ready(queue)
    heavy = uuid4()
    bulk(queue, heavy, MANY)
    others = [{"user_id": str(uuid4()), "job_type": "email"} for _ in range(MANY)]
    kit.call(queue.conn, "create_jobs", p_jobs=Jsonb(others))
    queue.conn.execute("VACUUM ANALYZE public.job_queue")
    last = "'ffffffff-ffff-ffff-ffff-ffffffffffff'"
    read = (
        "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "
        f"SELECT * FROM streamvibe.next_turns(ARRAY[%s::uuid], ARRAY[%s], streamvibe.now(), {last})"
    )
    for job_type in ("email", "sms"):
        for _ in range(2):
            [row] = kit.query(queue.conn, read, heavy, job_type)
        plan = row["QUERY PLAN"][0]["Plan"]
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 90


def test_turns_go_on_in_the_next_leaf(clocked: Queue) -> None:
    """After the user's newest waiting job, also one in an older leaf, which is not read where there is a newer one."""
    conn = clocked.conn
    ready(clocked)
    users = [both, only_old, _] = [uuid4() for _ in range(3)]
    for user_id in (both, only_old):
        bulk(clocked, user_id, 3)
    # Turns that are not over when the next leaf begins.
    conn.execute("UPDATE public.job_queue SET turn = turn + 20000")
    [old] = kit.query(
        conn,
        "SELECT partition_name, upper_at, upper_id FROM streamvibe.partition WHERE parent_name = 'job_queue'"
        " AND lower_at <= streamvibe.now() AND upper_at > streamvibe.now()",
    )
    clocked.advance(old["upper_at"] - kit.value(conn, "SELECT streamvibe.now()") + kit.MINUTE)
    bulk(clocked, both, 1)
    bulk(clocked, both, 2)
    due = "SELECT created_at + turn * interval '1 minute' AS at FROM job_queue WHERE user_id = %s ORDER BY id"
    times = [row["at"] for row in kit.query(conn, due, both)]
    minutes = [(later - earlier) / kit.MINUTE for earlier, later in pairwise(times)]
    assert minutes == pytest.approx([1] * 5, abs=1)
    assert sum(minutes) == pytest.approx(5, abs=1)
    turns = (
        "SELECT n.turn FROM streamvibe.next_turns(ARRAY[%s::uuid], ARRAY['email'], streamvibe.now(),"
        " 'ffffffff-ffff-ffff-ffff-ffffffffffff') n"
    )
    # Also when the leaf after is about to begin.
    for _ in range(2):
        found = []
        for user_id in users:
            with nested_plans(conn) as plans:
                [row] = kit.query(conn, turns, user_id)
            read = {
                node["Relation Name"]
                for plan in plans
                for node in nodes(plan)
                if "Relation Name" in node and node["Actual Loops"]
            }
            found.append((row["turn"] > 1000, old["partition_name"] in read))
        assert found == [(True, False), (True, True), (False, True)]
        clocked.advance(
            old["upper_at"] + 7 * kit.DAY - kit.value(conn, "SELECT streamvibe.now()") - kit.MINUTE
        )


def test_one_job_past_the_others_hides_none(queue: Queue) -> None:
    """A serializable request does not look at the user's other jobs, and gets turn 0; the next goes on after those."""
    ready(queue)
    user_id = uuid4()
    bulk(queue, user_id, 30)
    queue.conn.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
    passing = kit.call_one(
        queue.conn,
        "request_job",
        p_user_id=user_id,
        p_job_type="email",
        p_force=True,
        p_dedupe_window=timedelta(),
        p_enforce_limit=False,
    )
    queue.conn.execute("COMMIT")
    assert kit.stored(queue.conn, passing["job_id"])["turn"] == 0
    bulk(queue, user_id, 2, params={"n": "next"})
    turns = kit.query(
        queue.conn, "SELECT turn FROM job_queue WHERE user_id = %s ORDER BY id DESC LIMIT 2", user_id
    )
    assert [row["turn"] for row in turns] == [31, 30]


def test_many_small_batches_are_one_user(queue: Queue) -> None:
    """Asking for many in small portions, or one by one, gains nothing over asking at once."""
    ready(queue)
    at_once, in_portions, one_by_one = uuid4(), uuid4(), uuid4()
    bulk(queue, at_once, 100)
    for _ in range(10):
        bulk(queue, in_portions, 10)
    kit.call(queue.conn, "set_user_limit", p_user_id=one_by_one, p_max_live_jobs=100)
    for _ in range(100):
        kit.job_id(queue.conn, one_by_one)
    started = owners(queue, 10, 9)
    assert all(29 <= started.count(user_id) <= 31 for user_id in (at_once, in_portions, one_by_one))


def test_turns_go_on_beyond_one_look(queue: Queue) -> None:
    """A user's few live jobs are looked at together, more of them by the newest: turns go on from one to the other."""
    ready(queue)
    user_id = uuid4()
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=30)
    for _ in range(30):
        kit.job_id(queue.conn, user_id)
    turns = kit.query(queue.conn, "SELECT turn FROM job_queue WHERE user_id = %s ORDER BY id", user_id)
    assert [row["turn"] for row in turns] == list(range(30))
    with kit.refused("SV005", "p_user_id"):
        kit.job_id(queue.conn, user_id)


def test_an_isolation_level_below_read_committed_is_the_same(queue: Queue) -> None:
    """PostgreSQL's READ UNCOMMITTED is READ COMMITTED; it passes nobody by."""
    ready(queue)
    user_id = uuid4()
    queue.conn.execute("SET default_transaction_isolation = 'read uncommitted'")
    made = [kit.job_id(queue.conn, user_id) for _ in range(3)]
    turns = kit.query(queue.conn, "SELECT turn FROM job_queue WHERE id = ANY (%s) ORDER BY id", made)
    assert [row["turn"] for row in turns] == [0, 1, 2]


def test_who_comes_often_is_not_put_back(clocked: Queue) -> None:
    """One job after the other, each asked for when the last one is done, is always the next."""
    ready(clocked)
    bulk(clocked, uuid4(), 200)
    regular = uuid4()
    for _ in range(20):
        kit.job_id(clocked.conn, regular)
        assert regular in owners(clocked, 1, 2)
        clocked.advance(kit.SECOND)
        kit.worker(clocked.conn)


def test_those_with_many_get_on(clocked: Queue) -> None:
    """A steady stream of new users does not stop the one with many: a minute of waiting counts for one job."""
    ready(clocked)
    heavy = uuid4()
    bulk(clocked, heavy, 50)
    started: list[UUID] = []
    for _ in range(30):
        for _ in range(4):
            kit.job_id(clocked.conn)
        kit.worker(clocked.conn)
        started += owners(clocked, 4, 1)
        clocked.advance(kit.MINUTE)
    assert started.count(heavy) >= 5


@pytest.mark.parametrize("batch", [1, 10])
def test_jobs_whose_time_came_share_with_the_others(clocked: Queue, batch: int) -> None:
    """Many jobs scheduled for one moment take half of the places, not all of them; alone they take all."""
    ready(clocked)
    heavy = uuid4()
    later = kit.value(clocked.conn, "SELECT (streamvibe.now() + interval '1 hour')::text")
    bulk(clocked, heavy, 200, scheduled_for=later)
    assert owners(clocked, 10, 1) == []
    clocked.advance(2 * kit.HOUR)
    kit.worker(clocked.conn)
    others = [uuid4() for _ in range(20)]
    for user_id in others:
        kit.job_id(clocked.conn, user_id)
    started = owners(clocked, batch, 40 // batch)
    assert set(others) <= set(started)
    assert started[:10].count(heavy) == 5
    assert owners(clocked, 100, 1) == [heavy] * 100


def test_priority_comes_first(clocked: Queue) -> None:
    """Scheduled or not, a job of a higher priority starts before all of a lower one."""
    ready(clocked)
    later = kit.value(clocked.conn, "SELECT (streamvibe.now() + interval '1 minute')::text")
    made = [
        kit.job_id(clocked.conn, p_priority=priority, p_scheduled_for=at)
        for priority in (3, 7, 5)
        for at in (None, later)
    ]
    clocked.advance(kit.HOUR)
    kit.worker(clocked.conn)
    started = [job["job_id"] for job in kit.claim(clocked.conn, limit=10)]
    assert [set(started[at : at + 2]) for at in (0, 2, 4)] == [set(made[2:4]), set(made[4:]), set(made[:2])]


@pytest.mark.parametrize("elsewhere", ["of another type", "next month"])
def test_what_waits_elsewhere_does_not_count(queue: Queue, elsewhere: str) -> None:
    """A user's many jobs of another type, or for another time, do not put back their one job that is due."""
    ready(queue)
    kit.register(queue.conn, "other")
    user_id = uuid4()
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=1000)
    if elsewhere == "next month":
        bulk(queue, user_id, 100, scheduled_for="2999-01-01T00:00:00Z")
    else:
        bulk(queue, user_id, 100, job_type="other")
    own = kit.job_id(queue.conn, user_id)
    others = [kit.job_id(queue.conn) for _ in range(5)]
    assert [job["job_id"] for job in kit.claim(queue.conn, limit=9, p_job_types=["email"])] == [own, *others]
