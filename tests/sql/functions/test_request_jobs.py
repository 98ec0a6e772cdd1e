"""request_jobs: many requests in one transaction, each for itself."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from psycopg.errors import InsufficientPrivilege
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue


def ask(conn: Connection[Any], *requests: Any) -> list[kit.Row]:
    """What became of each."""
    return kit.call(conn, "request_jobs", p_requests=Jsonb(list(requests)))


def element(user_id: UUID | None = None, job_type: str = "email", **fields: Any) -> kit.Row:
    """One request, for a new user and with new params unless given."""
    return {
        "user_id": str(user_id or uuid4()),
        "job_type": job_type,
        "params": {"n": str(uuid4())},
        **fields,
    }


def test_each_request_is_one_of_request_job(queue: Queue) -> None:
    """Creation, joining (also an element before), the cache, limits: each answer is what request_job would say."""
    conn = queue.conn
    kit.register(conn)
    kit.worker(conn)
    user_id, full = uuid4(), uuid4()
    done = kit.job_id(conn, user_id, p_params={"n": 1})
    kit.complete(conn, kit.claim(conn), result={"sum": 1})
    kit.call(conn, "set_user_limit", p_user_id=full, p_max_live_jobs=1)
    rows = ask(
        conn,
        element(user_id, params={"n": 1}),
        element(user_id, params={"n": 2}),
        element(user_id, params={"n": 2}),
        element(full),
        element(full),
        element(full, enforce_limit=False, priority=8, scheduled_for="2100-01-01T00:00:00Z"),
    )
    assert [row["ordinal"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["outcome"] for row in rows] == [
        "cached", "created", "joined", "created", "refused", "created",
    ]  # fmt: skip
    assert (rows[0]["job_id"], rows[0]["status"], rows[0]["result"]) == (done, "completed", {"sum": 1})
    assert rows[0]["result_age"] is not None
    assert rows[2]["job_id"] == rows[1]["job_id"]
    assert rows[4]["error"]["code"] == "SV005" and rows[4]["job_id"] is None
    assert rows[4]["error"]["received"] == f"Received: {full}"
    last = kit.stored(conn, rows[5]["job_id"])
    assert (last["job_priority"], last["scheduled_for"].year) == (8, 2100)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"user_id": "nobody"}, "SV001", "p_user_id"),
        ({"job_type": "emial"}, "SV002", "p_job_type"),
        ({"priority": "high"}, "SV001", "p_priority"),
        ({"priority": 10}, "SV001", "p_priority"),
        ({"scheduled_for": "soon"}, "SV001", "p_scheduled_for"),
        ({"force": "perhaps"}, "SV001", "p_force"),
        ({"dedupe_window": "wide"}, "SV001", "p_dedupe_window"),
        ({"cache_ttl": "long"}, "SV001", "p_cache_ttl"),
        ({"enforce_limit": "no idea"}, "SV001", "p_enforce_limit"),
        ({"params": [1]}, "SV001", "p_params"),
        ({"idempotency_key": ""}, "SV001", "p_idempotency_key"),
        ({"colour": "red"}, "SV001", "p_requests[2]"),
    ],
)
def test_what_one_is_refused_for_undoes_none_of_the_others(
    queue: Queue, fields: kit.Row, code: str, field: str
) -> None:
    """The refused one names its field, value and fix; the ones before and after it are made."""
    kit.register(queue.conn)
    rows = ask(queue.conn, element(), element(**fields), element())
    assert [row["outcome"] for row in rows] == ["created", "refused", "created"]
    error = rows[1]["error"]
    assert (error["code"], error["field"]) == (code, field)
    assert error["message"] and error["fix"] and error["received"].startswith("Received: ")
    assert kit.value(queue.conn, "SELECT count(*) FROM public.job_queue") == 2


def test_a_request_for_nobody(queue: Queue) -> None:
    """The service must name a user; params may be left out."""
    kit.register(queue.conn)
    rows = ask(queue.conn, {"job_type": "email"}, {"job_type": "email", "user_id": str(uuid4())})
    assert [row["outcome"] for row in rows] == ["refused", "created"]
    assert (rows[0]["error"]["code"], rows[0]["error"]["field"]) == ("SV001", "p_user_id")
    assert kit.stored(queue.conn, rows[1]["job_id"])["params"] == {}


def test_an_element_that_is_no_object(queue: Queue) -> None:
    """It is refused by its place."""
    kit.register(queue.conn)
    rows = ask(queue.conn, element(), 7)
    assert rows[1]["error"]["field"] == "p_requests[2]"
    assert rows[1]["error"]["received"] == "Received: 7"


@pytest.mark.parametrize("requests", [None, {}, [], [{}] * 1001])
def test_no_such_array(queue: Queue, requests: Any) -> None:
    """Neither nothing, nor another document, nor an empty or too long array is taken."""
    with kit.refused("SV001", "p_requests"):
        kit.call(queue.conn, "request_jobs", p_requests=None if requests is None else Jsonb(requests))


def test_for_the_service(queue: Queue) -> None:
    """A signed-in user has request_job, which can lock nobody else's row."""
    kit.register(queue.conn)
    user_id = uuid4()
    with pytest.raises(InsufficientPrivilege):
        ask(queue.as_user(user_id), element(user_id))
    assert [row["outcome"] for row in ask(queue.service, element(user_id))] == ["created"]


def test_a_locked_user_is_not_waited_for(queue: Queue) -> None:
    """While another transaction has a user's lock, their request is 'busy', and the others are made at once."""
    kit.register(queue.conn)
    locked = uuid4()
    with queue.database.connect() as other, other.transaction():
        kit.request(other, locked)
        rows = ask(queue.conn, element(), element(locked), element())
    assert [row["outcome"] for row in rows] == ["created", "busy", "created"]
    assert [row["outcome"] for row in ask(queue.conn, element(locked))] == ["created"]


def test_the_servers_fault_undoes_all(queue: Queue) -> None:
    """What a trigger of the operator's raises is nobody's request's fault."""
    kit.register(queue.conn)
    queue.conn.execute(
        "CREATE FUNCTION public.stop() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.params ? 'stop' THEN RAISE 'stopped'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER stop BEFORE INSERT ON public.job_queue FOR EACH ROW EXECUTE FUNCTION public.stop()"
    )
    try:
        with pytest.raises(Exception, match="stopped"):
            ask(queue.conn, element(), element(params={"stop": 1}))
    finally:
        queue.conn.execute("DROP TRIGGER stop ON public.job_queue; DROP FUNCTION public.stop()")
    assert kit.value(queue.conn, "SELECT count(*) FROM public.job_queue") == 0
