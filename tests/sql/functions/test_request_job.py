"""request_job: what a request becomes, and what it is refused for."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue

PARAMS = {"channel": "UC1", "pages": 2}


def test_created(queue: Queue) -> None:
    """A new job is pending, due now, with its type's priority, and expires 24 hours after it was due."""
    user_id = uuid4()
    kit.register(queue.conn, p_priority=3)
    row = kit.request(queue.as_user(user_id), user_id, p_params=PARAMS)
    assert (row["outcome"], row["status"], row["result"], row["result_age"]) == (
        "created",
        "pending",
        None,
        None,
    )
    job = kit.get_job(queue.conn, row["job_id"])
    assert (job["user_id"], job["job_type"], job["params"]) == (user_id, "email", PARAMS)
    assert (job["status"], job["job_priority"], job["retry_count"]) == ("pending", 3, 0)
    assert abs(job["scheduled_for"] - job["created_at"]) < kit.SECOND
    assert job["expires_at"] == job["scheduled_for"] + kit.DAY
    never = ("result", "started_at", "completed_at", "retry_at", "worker_id", "failure_kind", "error_message")
    assert {key: job[key] for key in never} == dict.fromkeys(never)


def test_created_at_is_the_time_in_the_id(queue: Queue) -> None:
    """The id is a UUIDv7 and created_at is its time, to the microsecond."""
    kit.register(queue.conn)
    job = kit.stored(queue.conn, kit.job_id(queue.conn))
    assert job["id"].version == 7
    assert job["created_at"] == kit.value(queue.conn, "SELECT streamvibe.id_time(%s)", job["id"])
    assert kit.value(
        queue.conn, "SELECT abs(extract(epoch FROM clock_timestamp() - %s)) < 60", job["created_at"]
    )


def test_own_user_may_be_left_out(queue: Queue) -> None:
    """A signed-in user may pass NULL for their own id."""
    user_id = uuid4()
    kit.register(queue.conn)
    row = kit.call_one(queue.as_user(user_id), "request_job", p_user_id=None, p_job_type="email")
    assert kit.stored(queue.conn, row["job_id"])["user_id"] == user_id


def test_joined_while_live(queue: Queue) -> None:
    """The same work asked again is joined while it is pending and while it is processing."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    user_id = uuid4()
    job_id = kit.job_id(conn, user_id, p_params=PARAMS)
    for status in ("pending", "processing"):
        again = kit.request(conn, user_id, p_params=PARAMS)
        assert (again["outcome"], again["job_id"], again["status"]) == ("joined", job_id, status)
        kit.claim(conn)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_not_joined_when_finished(queue: Queue, end: str) -> None:
    """Work that failed or was cancelled is not joined, nor does it answer from the cache."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    user_id = uuid4()
    job_id = kit.job_id(conn, user_id, p_params=PARAMS)
    if end == "failed":
        kit.fail(conn, kit.claim(conn), failure=kit.PERMANENT)
    else:
        kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[job_id])
    assert kit.status(conn, job_id) == end
    again = kit.request(conn, user_id, p_params=PARAMS)
    assert again["outcome"] == "created"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({}, {"a": None}, False),
    ],
)
def test_same_work_is_equal_params(
    queue: Queue, first: dict[str, Any], second: dict[str, Any], same: bool
) -> None:
    """Params are the same when they are equal as JSON: order of keys aside, nothing more and nothing less."""
    user_id = uuid4()
    kit.register(queue.conn)
    kit.job_id(queue.conn, user_id, p_params=first)
    again = kit.request(queue.conn, user_id, p_params=second)
    assert again["outcome"] == ("joined" if same else "created")


def test_other_user_or_type_is_other_work(queue: Queue) -> None:
    """Equal params of another user, or of another type, are never joined."""
    user_id = uuid4()
    for name in ("email", "sms"):
        kit.register(queue.conn, name)
    made = {kit.job_id(queue.conn, user_id, p_params=PARAMS)}
    made.add(kit.job_id(queue.conn, uuid4(), p_params=PARAMS))
    made.add(kit.job_id(queue.conn, user_id, "sms", p_params=PARAMS))
    assert len(made) == 3


def test_a_time_in_the_past_is_now(queue: Queue) -> None:
    """scheduled_for in the past does not jump the queue; in the future it is kept."""
    kit.register(queue.conn)
    early = kit.stored(queue.conn, kit.job_id(queue.conn, p_scheduled_for="1999-01-01"))
    assert early["scheduled_for"] == early["created_at"]
    later = datetime.fromisoformat("2998-01-01T00:00:00+00:00")
    job = kit.stored(queue.conn, kit.job_id(queue.conn, p_scheduled_for=later))
    assert (job["scheduled_for"], job["expires_at"]) == (later, later + kit.DAY)


def test_users_may_not_plan_years_ahead(queue: Queue) -> None:
    """A user may schedule a job within a year; the service at any time."""
    user_id = uuid4()
    kit.register(queue.conn)
    now = kit.value(queue.conn, "SELECT clock_timestamp()")
    assert kit.request(queue.as_user(user_id), user_id, p_scheduled_for=now + 364 * kit.DAY)
    with kit.refused("SV001", "p_scheduled_for"):
        kit.request(queue.as_user(user_id), user_id, p_scheduled_for=now + 367 * kit.DAY)
    assert kit.request(queue.service, user_id, p_scheduled_for=now + 367 * kit.DAY)


def test_a_type_may_never_expire(queue: Queue) -> None:
    """p_expires_after NULL: no expires_at."""
    kit.register(queue.conn, p_expires_after=None)
    assert kit.stored(queue.conn, kit.job_id(queue.conn))["expires_at"] is None


def test_limit(queue: Queue) -> None:
    """The eleventh live job is refused with the limit named; a finished job makes room."""
    user_id = uuid4()
    conn = queue.as_user(user_id)
    kit.register(queue.conn)
    ids = [kit.job_id(conn, user_id) for _ in range(10)]
    with kit.refused("SV005", "p_user_id", str(user_id)) as caught:
        kit.request(conn, user_id)
    hint = str(caught.value.diag.message_hint)
    assert "At most 10 in all may be live" in hint
    # What it says can be typed.
    queue.conn.execute(hint.partition("limit: ")[2].encode())
    assert kit.request(conn, user_id)["outcome"] == "created"
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=None)
    kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=ids[9:])
    kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=ids[:1])
    assert kit.request(conn, user_id)["outcome"] == "created"


def test_joining_needs_no_room(queue: Queue) -> None:
    """At the limit an identical request still joins, and a cached one is answered."""
    conn = queue.conn
    user_id = uuid4()
    kit.register(conn)
    kit.worker(conn)
    kit.job_id(conn, user_id, p_params={"done": True})
    kit.complete(conn, kit.claim(conn))
    for n in range(10):
        kit.job_id(conn, user_id, p_params={"n": n})
    assert kit.request(conn, user_id, p_params={"n": 3})["outcome"] == "joined"
    assert kit.request(conn, user_id, p_params={"done": True})["outcome"] == "cached"


def test_limit_of_a_type(queue: Queue) -> None:
    """A type's own limit holds beside the user's, and the refusal names both."""
    user_id = uuid4()
    conn = queue.as_user(user_id)
    kit.register(queue.conn, "sync", p_max_live_jobs=2)
    kit.register(queue.conn)
    for _ in range(2):
        kit.job_id(conn, user_id, "sync")
    with kit.refused("SV005") as caught:
        kit.request(conn, user_id, "sync")
    assert "2 of sync" in str(caught.value.diag.message_hint)
    assert kit.request(conn, user_id)["outcome"] == "created"
    assert kit.request(queue.conn, uuid4(), "sync")["outcome"] == "created"


def test_service_may_pass_limit_and_priority(queue: Queue) -> None:
    """The service may switch the limit off and raise the priority."""
    user_id = uuid4()
    kit.register(queue.conn, p_max_live_jobs=0)
    job_id = kit.job_id(queue.service, user_id, p_enforce_limit=False, p_priority=9)
    assert kit.stored(queue.conn, job_id)["job_priority"] == 9


def test_users_may_not_pass_limit_and_priority(queue: Queue) -> None:
    """A user may lower a job's priority, not raise it, and may not switch the limit off, even by NULL."""
    user_id = uuid4()
    conn = queue.as_user(user_id)
    kit.register(queue.conn)
    assert kit.stored(queue.conn, kit.job_id(conn, user_id, p_priority=0))["job_priority"] == 0
    with kit.refused("SV004", "p_priority", "6"):
        kit.request(conn, user_id, p_priority=6)
    for off in (False, None):
        with kit.refused("SV004", "p_enforce_limit"):
            kit.request(conn, user_id, p_enforce_limit=off)


def test_the_newest_settings_hold(queue: Queue) -> None:
    """set_user_limit and a changed type hold from the next request on."""
    user_id = uuid4()
    kit.register(queue.conn)
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=1)
    kit.job_id(queue.conn, user_id)
    with kit.refused("SV005"):
        kit.request(queue.conn, user_id)
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=2)
    kit.job_id(queue.conn, user_id)
    kit.register(queue.conn, p_priority=8)
    kit.call(queue.conn, "set_user_limit", p_user_id=user_id, p_max_live_jobs=None)
    assert kit.stored(queue.conn, kit.job_id(queue.conn, user_id))["job_priority"] == 8


DEEP = Jsonb(None, dumps=lambda _: '{"deep": ' + "[" * 251 + "]" * 251 + "}")
REFUSED: list[tuple[str, str, str | None, dict[str, Any]]] = [
    ("SV002", "p_job_type", "nope", {"p_job_type": "nope"}),
    ("SV002", "p_job_type", "NULL", {"p_job_type": None}),
    ("SV001", "p_params", "NULL", {"p_params": None}),
    ("SV001", "p_params", None, {"p_params": Jsonb([1, 2])}),
    ("SV001", "p_params", None, {"p_params": Jsonb("text")}),
    ("SV001", "p_params", "null", {"p_params": Jsonb(None)}),
    ("SV001", "p_priority", "-1", {"p_priority": -1}),
    ("SV001", "p_priority", "10", {"p_priority": 10}),
    ("SV001", "p_scheduled_for", "infinity", {"p_scheduled_for": "infinity"}),
    ("SV001", "p_scheduled_for", None, {"p_scheduled_for": "99999-01-01"}),
    ("SV001", "p_params", None, {"p_params": DEEP}),
    ("SV001", "p_params", None, {"p_params": Jsonb(None, dumps=lambda _: '{"n": 1e309}')}),
    ("SV001", "p_params", None, {"p_params": Jsonb(None, dumps=lambda _: '{"a": [{"n": -1e131071}]}')}),
    ("SV001", "p_params", None, {"p_params": Jsonb(None, dumps=lambda _: '{"n": 1e-400}')}),
    ("SV001", "p_idempotency_key", "", {"p_idempotency_key": ""}),
    ("SV001", "p_idempotency_key", None, {"p_idempotency_key": "k" * 256}),
]


@pytest.mark.parametrize(("code", "field", "received", "arguments"), REFUSED)
def test_refused(
    queue: Queue, code: str, field: str, received: str | None, arguments: dict[str, Any]
) -> None:
    """A bad argument is named with the value received, and nothing is written."""
    kit.register(queue.conn)
    with kit.refused(code, field, received):
        kit.request(queue.service, **{"user_id": uuid4(), **_positional(arguments)})
    assert kit.value(queue.conn, "SELECT count(*) FROM public.job_queue") == 0


def _positional(arguments: dict[str, Any]) -> dict[str, Any]:
    return {("job_type" if key == "p_job_type" else key): value for key, value in arguments.items()}


def test_nobody_and_somebody_else(queue: Queue) -> None:
    """Without a user the service is asked to name one; a user may name only themselves; nobody may nothing."""
    kit.register(queue.conn)
    with kit.refused("SV001", "p_user_id", "NULL"):
        kit.call(queue.service, "request_job", p_user_id=None, p_job_type="email")
    stranger = uuid4()
    with kit.refused("SV004", "p_user_id", str(stranger)):
        kit.request(queue.as_user(uuid4()), stranger)
    with kit.refused("SV004", "request.jwt.claims"):
        kit.request(queue.as_user(None), stranger)


def test_params_size(queue: Queue) -> None:
    """Params of exactly the limit are taken, one byte more is refused with the size and the limit."""
    kit.register(queue.conn, p_max_params_bytes=100)
    exact = {"a": "x" * 91}
    assert kit.request(queue.conn, uuid4(), p_params=exact)["outcome"] == "created"
    with kit.refused("SV003", "p_params", "101 bytes") as caught:
        kit.request(queue.conn, uuid4(), p_params={"a": "x" * 92})
    assert "100 bytes" in str(caught.value.diag.message_hint)


@pytest.mark.parametrize("filler", ["x", "é", "{"])
def test_params_size_default(queue: Queue, filler: str) -> None:
    """1 MiB unless the type says otherwise, counted in bytes of the JSON text, however well it compresses."""
    kit.register(queue.conn)
    with kit.refused("SV003", "p_params"):
        kit.request(queue.conn, uuid4(), p_params={"a": filler * (1 << 20)})


def test_missing_partition(clocked: Queue) -> None:
    """A time without a partition is refused by its own code and mended by ensure_partitions()."""
    kit.register(clocked.conn)
    clocked.advance(timedelta(days=900))
    with kit.refused("SV009", "job_queue") as caught:
        kit.request(clocked.conn, uuid4())
    assert "ensure_partitions" in str(caught.value.diag.message_hint)
    kit.call(clocked.conn, "ensure_partitions")
    try:
        assert kit.request(clocked.conn, uuid4())["outcome"] == "created"
    finally:
        drop = (
            "SELECT format('DROP TABLE streamvibe.%%I', partition_name) AS drop, partition_name AS name "
            "FROM streamvibe.partition WHERE lower_at > clock_timestamp() + interval '800 days'"
        )
        for leaf in kit.query(clocked.conn, drop.replace("%%", "%")):
            clocked.conn.execute(leaf["drop"].encode())
            clocked.conn.execute("DELETE FROM streamvibe.partition WHERE partition_name = %s", [leaf["name"]])
