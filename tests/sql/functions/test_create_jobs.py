"""create_jobs: many jobs in one statement, all or nothing."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import RFC_4122, UUID, uuid4

import pytest
from psycopg import IsolationLevel
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.waiting import wait_until


def job(user_id: UUID, n: object = None, job_type: str = "email", **more: Any) -> kit.Row:
    """One element; different params unless n is given."""
    return {
        "user_id": str(user_id),
        "job_type": job_type,
        "params": {"n": str(uuid4()) if n is None else n},
        **more,
    }


def create(queue: Queue, jobs: Any, **arguments: Any) -> list[kit.Row]:
    """One call, as the service."""
    return kit.call(queue.service, "create_jobs", p_jobs=Jsonb(jobs), **arguments)


def outcomes(rows: list[kit.Row]) -> list[str]:
    """Their outcomes."""
    return [row["outcome"] for row in rows]


def test_created(queue: Queue) -> None:
    """A row per element in the order given; each job as request_job would have made it."""
    kit.register(queue.conn, p_priority=4)
    users = [uuid4() for _ in range(50)]
    rows = create(queue, [job(user_id, n) for n, user_id in enumerate(users)])
    assert [row["ordinal"] for row in rows] == list(range(1, 51))
    assert set(outcomes(rows)) == {"created"}
    for n, row in enumerate(rows):
        made = kit.stored(queue.conn, row["job_id"])
        assert (made["user_id"], made["params"], made["job_priority"]) == (users[n], {"n": n}, 4)
        assert made["status"] == "pending"
        assert made["expires_at"] == made["scheduled_for"] + kit.DAY
        assert abs(made["scheduled_for"] - made["created_at"]) < kit.SECOND
    assert kit.value(queue.conn, "SELECT count(*) FROM streamvibe.staging") == 0


def test_each_elements_own_settings(queue: Queue) -> None:
    """priority and scheduled_for of an element hold; params may be left out; a past time is now."""
    kit.register(queue.conn)
    user_id = uuid4()
    rows = create(
        queue,
        [
            {"user_id": str(user_id), "job_type": "email"},
            job(user_id, priority=9, scheduled_for="2990-01-01T00:00:00+02:00"),
            job(user_id, scheduled_for="1990-01-01"),
        ],
    )
    first, second, third = (kit.stored(queue.conn, row["job_id"]) for row in rows)
    assert (first["params"], first["job_priority"]) == ({}, 5)
    assert second["job_priority"] == 9
    assert second["scheduled_for"].isoformat() == "2989-12-31T22:00:00+00:00"
    assert abs(third["scheduled_for"] - third["created_at"]) < kit.SECOND


def test_nothing_to_create(queue: Queue) -> None:
    """An empty list is no error."""
    assert create(queue, []) == []


def test_promises_are_off_by_default(queue: Queue) -> None:
    """Without p_dedupe and p_enforce_limit everything is created; it counts against the limit afterwards."""
    kit.register(queue.conn)
    user_id = uuid4()
    assert outcomes(create(queue, [job(user_id, 1)] * 12)) == ["created"] * 12
    with kit.refused("SV005"):
        kit.request(queue.conn, user_id)


def test_dedupe(clocked: Queue) -> None:
    """Live twins inside the window are joined, twins within the batch too; ids tell which."""
    kit.register(clocked.conn)
    user_id, other = uuid4(), uuid4()
    old = kit.job_id(clocked.conn, user_id, p_params={"n": 0})
    clocked.advance(6 * kit.MINUTE)
    live = kit.job_id(clocked.conn, user_id, p_params={"n": 1})
    rows = create(
        clocked,
        [job(user_id, 0), job(user_id, 1), job(user_id, 2), job(user_id, 2), job(other, 2)],
        p_dedupe=True,
    )
    assert outcomes(rows) == ["created", "joined", "created", "joined", "created"]
    assert rows[0]["job_id"] != old
    assert rows[1]["job_id"] == live
    assert rows[3]["job_id"] == rows[2]["job_id"]
    assert kit.value(clocked.conn, "SELECT count(*) FROM public.job_queue") == 5


def test_dedupe_of_jobs_that_are_due_later(queue: Queue) -> None:
    """An element joins no twin that is due later than itself: not one that is there, nor one of the batch."""
    kit.register(queue.conn)
    user_id = uuid4()
    planned = kit.job_id(queue.conn, user_id, p_params={"n": 1}, p_scheduled_for="2990-01-01")
    elements = [
        {**job(user_id, n), **({"scheduled_for": due} if due else {})}
        for n, due in [
            (1, None),
            (1, "2991-01-01"),
            (2, "2990-01-01"),
            (2, None),
            (2, "2991-01-01"),
            (2, None),
        ]
    ]
    rows = create(queue, elements, p_dedupe=True)
    assert outcomes(rows) == ["created", "joined", "created", "created", "joined", "joined"]
    assert rows[1]["job_id"] == planned
    assert (rows[4]["job_id"], rows[5]["job_id"]) == (rows[2]["job_id"], rows[3]["job_id"])


def test_dedupe_off_for_a_type(queue: Queue) -> None:
    """A type whose window is 0 never joins."""
    kit.register(queue.conn, p_dedupe_window="0")
    assert outcomes(create(queue, [job(uuid4(), 1)] * 3, p_dedupe=True)) == ["created"] * 3


def test_limit(queue: Queue) -> None:
    """Each user gets what fits, in the order given; the rest is refused with no id."""
    kit.register(queue.conn)
    full, fresh = uuid4(), uuid4()
    for _ in range(7):
        kit.job_id(queue.conn, full)
    kit.call(queue.conn, "set_user_limit", p_user_id=fresh, p_max_live_jobs=2)
    rows = create(queue, [job(user_id) for _ in range(5) for user_id in (full, fresh)], p_enforce_limit=True)
    assert outcomes(rows[::2]) == ["created"] * 3 + ["refused"] * 2
    assert outcomes(rows[1::2]) == ["created"] * 2 + ["refused"] * 3
    assert {row["job_id"] for row in rows if row["outcome"] == "refused"} == {None}


def test_limit_of_a_type(queue: Queue) -> None:
    """A type's limit holds beside the user's; what it refuses takes no place of the user's limit."""
    kit.register(queue.conn)
    kit.register(queue.conn, "sync", p_max_live_jobs=2)
    user_id = uuid4()
    kit.job_id(queue.conn, user_id, "sync")
    jobs = [job(user_id, job_type="sync") for _ in range(4)] + [job(user_id) for _ in range(9)]
    rows = create(queue, jobs, p_enforce_limit=True)
    assert outcomes(rows[:4]) == ["created"] + ["refused"] * 3
    assert outcomes(rows[4:]) == ["created"] * 8 + ["refused"]


def test_joined_needs_no_room(queue: Queue) -> None:
    """With both promises on, a twin of a refused element is refused too, and a live twin is joined."""
    kit.register(queue.conn)
    user_id = uuid4()
    ids = [kit.job_id(queue.conn, user_id, p_params={"n": n}) for n in range(10)]
    rows = create(
        queue, [job(user_id, 3), job(user_id, 99), job(user_id, 99)], p_dedupe=True, p_enforce_limit=True
    )
    assert outcomes(rows) == ["joined", "refused", "refused"]
    assert rows[0]["job_id"] == ids[3]


GOOD = {"user_id": "8f4ed0b8-2f3c-4a6e-9a52-0f7f0a4c5f11", "job_type": "email", "params": {}}
BAD: list[tuple[str, str, Any]] = [
    ("SV001", "p_jobs[2]", 5),
    ("SV001", "p_jobs[2]", None),
    ("SV001", "p_jobs[2].user_id", {"job_type": "email"}),
    ("SV001", "p_jobs[2].user_id", {**GOOD, "user_id": "not-a-uuid"}),
    ("SV001", "p_jobs[2].user_id", {**GOOD, "user_id": None}),
    ("SV001", "p_jobs[2].params", {**GOOD, "params": [1]}),
    ("SV001", "p_jobs[2].params", {**GOOD, "params": None}),
    ("SV001", "p_jobs[2].priority", {**GOOD, "priority": 10}),
    ("SV001", "p_jobs[2].priority", {**GOOD, "priority": "high"}),
    ("SV001", "p_jobs[2].priority", {**GOOD, "priority": 1.5}),
    ("SV001", "p_jobs[2].scheduled_for", {**GOOD, "scheduled_for": "tomorrowish"}),
    ("SV001", "p_jobs[2].scheduled_for", {**GOOD, "scheduled_for": "infinity"}),
    ("SV001", "p_jobs[2].prio", {**GOOD, "prio": 3}),
    ("SV002", "p_jobs[2].job_type", {**GOOD, "job_type": "nope"}),
    ("SV002", "p_jobs[2].job_type", {"user_id": GOOD["user_id"]}),
    ("SV003", "p_jobs[2].params", {**GOOD, "params": {"a": "x" * (1 << 20)}}),
]


@pytest.mark.parametrize(("code", "field", "element"), BAD)
def test_one_bad_element(queue: Queue, code: str, field: str, element: Any) -> None:
    """One bad element is named with its number and field, and none of the batch is created."""
    kit.register(queue.conn)
    with kit.refused(code, field):
        create(queue, [GOOD, element, GOOD])
    assert kit.value(queue.conn, "SELECT count(*) FROM public.job_queue") == 0
    assert kit.value(queue.conn, "SELECT count(*) FROM streamvibe.staging") == 0


@pytest.mark.parametrize("jobs", [None, {"user_id": 1}, "text", 7])
def test_not_a_list(queue: Queue, jobs: Any) -> None:
    """p_jobs has to be an array."""
    with kit.refused("SV001", "p_jobs"):
        create(queue, jobs)
    with kit.refused("SV001", "p_jobs", "NULL"):
        kit.call(queue.service, "create_jobs", p_jobs=None)


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_isolation(queue: Queue, level: IsolationLevel) -> None:
    """A snapshot transaction can have neither promise, and may create without them."""
    kit.register(queue.conn)
    conn = queue.database.as_service(autocommit=False)
    conn.isolation_level = level
    for promise in ("p_dedupe", "p_enforce_limit"):
        with kit.refused("SV006", "transaction_isolation"):
            kit.call(conn, "create_jobs", p_jobs=Jsonb([GOOD]), **{promise: True})
        conn.rollback()
    assert outcomes(kit.call(conn, "create_jobs", p_jobs=Jsonb([GOOD]))) == ["created"]
    conn.commit()
    conn.close()


def test_staged_batches_are_apart(queue: Queue) -> None:
    """create_staged_jobs moves the rows of its own batch and leaves another's."""
    kit.register(queue.conn)
    mine, theirs, user_id = uuid4(), uuid4(), uuid4()
    for batch in (mine, theirs):
        for n in range(3):
            queue.service.execute(
                "INSERT INTO streamvibe.staging (batch, ordinal, user_id, job_type, params) "
                "VALUES (%s, %s, %s, 'email', %s)",
                [batch, n, user_id, Jsonb({"n": n})],
            )
    rows = kit.call(queue.service, "streamvibe.create_staged_jobs", p_batch=mine)
    assert Counter(outcomes(rows)) == {"created": 3}
    left = kit.query(queue.conn, "SELECT DISTINCT batch FROM streamvibe.staging")
    assert [row["batch"] for row in left] == [theirs]
    assert kit.call(queue.service, "streamvibe.create_staged_jobs", p_batch=mine) == []


@pytest.mark.parametrize("guarded", [False, True])
def test_ids_of_a_batch(queue: Queue, guarded: bool) -> None:
    """Each is a UUIDv7 of its own, in the order of the elements, and created_at is the time in it."""
    kit.register(queue.conn)
    jobs = [{"user_id": str(uuid4()), "job_type": "email", "params": {"n": n}} for n in range(2000)]
    made = kit.call(queue.conn, "create_jobs", p_jobs=Jsonb(jobs), p_dedupe=guarded, p_enforce_limit=guarded)
    ids = [row["job_id"] for row in made]
    assert len(set(ids)) == len(ids) == 2000
    assert ids == sorted(ids)
    assert {(found.version, found.variant) for found in ids} == {(7, RFC_4122)}
    assert len({found.int & (2**62 - 1) for found in ids}) == 2000
    assert kit.value(queue.conn, "SELECT bool_and(created_at = streamvibe.id_time(id)) FROM job_queue")
    assert kit.value(queue.conn, "SELECT max(created_at) < streamvibe.now() FROM job_queue")


def test_ids_of_a_moment(queue: Queue) -> None:
    """make_id and id_time agree to the microsecond, from 1970 to 2100, whatever the random bits."""
    moments = "generate_series('1970-01-01'::timestamptz, '2100-01-01', '37 days 11:22:33.123457')"
    assert kit.value(
        queue.conn,
        f"""
        SELECT bool_and(streamvibe.id_time(i.id) = i.at AND i.id >= streamvibe.id_floor(i.at)
                        AND uuid_send(i.id) < uuid_send(streamvibe.id_floor(i.at + interval '1 microsecond')))
        FROM (SELECT at, streamvibe.make_id(streamvibe.microseconds(at), r) AS id
              FROM {moments} at, (VALUES (0::bigint), (-1), (9223372036854775807), (-9223372036854775807 - 1)) v(r)) i
        """,
    )


def test_promises_wait_for_a_request_that_is_not_committed(queue: Queue) -> None:
    """Nine jobs of a user are asked for in a transaction that is open: dedupe and limit wait, and then know of them."""
    kit.register(queue.conn)
    user_id = uuid4()
    # A user who is known: it is not the row's being made that is waited for.
    kit.call(queue.service, "set_user_limit", p_user_id=user_id, p_max_live_jobs=10)
    waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
    with queue.database.connect() as asking, ThreadPoolExecutor(1) as thread:
        with asking.transaction():
            for n in range(9):
                kit.request(asking, user_id, p_params={"n": n})
            jobs = [job(user_id, n) for n in range(11)]
            created = thread.submit(create, queue, jobs, p_dedupe=True, p_enforce_limit=True)
            wait_until(
                lambda: created.done() or kit.value(queue.conn, waits, queue.service.info.backend_pid),
                "it waits",
            )
        assert outcomes(created.result(30)) == ["joined"] * 9 + ["created", "refused"]
