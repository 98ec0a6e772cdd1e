"""Asking for work of which very many live jobs of the user are: found exactly, and without reading them all."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue
from tests.support.databases import TEMPLATE, new_database
from tests.support.servers import Server

MANY = 2_000
# The rows that a request may read: a hundred twins, twenty live jobs, and its settings.
ROWS = 300


def bulk(conn: Connection[Any], user_id: UUID, count: int, **job: object) -> None:
    """So many identical live jobs of a user."""
    jobs = [{"user_id": str(user_id), "job_type": "email", **job} for _ in range(count)]
    kit.call(conn, "create_jobs", p_jobs=Jsonb(jobs))


def make_older(queue: Queue) -> None:
    """All jobs so far were asked for an hour ago."""
    queue.conn.execute(
        "UPDATE job_queue SET created_at = created_at - interval '1 hour', "
        "scheduled_for = scheduled_for - interval '1 hour'"
    )


def ask(conn: Connection[Any], user_id: UUID, params: kit.Row) -> tuple[str, int]:
    """The outcome of a request, and how many rows of jobs it read."""
    read = (
        "SELECT coalesce(sum(idx_tup_fetch + seq_tup_read), 0) FROM pg_stat_xact_all_tables "
        "WHERE relname LIKE 'job_queue_2%'"
    )
    with conn.transaction(force_rollback=True):
        before = kit.value(conn, read)
        outcome = kit.request(conn, user_id, p_params=params, p_enforce_limit=False)["outcome"]
        return outcome, int(kit.value(conn, read) - before)


@pytest.mark.parametrize("analyzed", [False, True])
def test_what_is_read(queue: Queue, analyzed: bool) -> None:
    """Whether one of them is a twin, none is because all are too old, or other work is asked for."""
    kit.register(queue.conn)
    user_id = uuid4()
    bulk(queue.conn, user_id, MANY)
    if analyzed:
        queue.conn.execute("VACUUM ANALYZE public.job_queue")
    for params, wanted in (({}, "joined"), ({"other": 1}, "created")):
        outcome, rows = ask(queue.conn, user_id, params)
        assert (outcome, rows <= ROWS) == (wanted, True), rows
    make_older(queue)
    if analyzed:
        queue.conn.execute("VACUUM ANALYZE public.job_queue")
    for params in ({}, {"other": 1}):
        outcome, rows = ask(queue.conn, user_id, params)
        assert (outcome, rows <= ROWS) == ("created", True), rows


def test_by_a_plan_of_an_emptied_queue(server: Server) -> None:
    """A session that planned when statistics said that hardly anything was there reads no more than others."""
    with new_database(server, TEMPLATE) as database:  # statistics remember what other tests did
        conn, session, user_id = database.connect(), database.connect(), uuid4()
        kit.register(conn)
        others = [
            {"user_id": str(uuid4()), "job_type": "email", "params": {"n": n}} for n in range(MANY // 10)
        ]
        kit.call(conn, "create_jobs", p_jobs=Jsonb(others))
        conn.execute("VACUUM ANALYZE public.job_queue")
        conn.execute("DELETE FROM public.job_queue")
        conn.execute("VACUUM ANALYZE public.job_queue")
        ask(session, user_id, {})
        bulk(conn, user_id, MANY)
        outcome, rows = ask(session, user_id, {})
    assert (outcome, rows <= ROWS) == ("joined", True), rows


def test_a_twin_among_many_that_are_too_old(queue: Queue) -> None:
    """The one that was made in time is found, wherever it stands."""
    kit.register(queue.conn)
    user_id = uuid4()
    bulk(queue.conn, user_id, 150)
    make_older(queue)
    bulk(queue.conn, user_id, 1)
    assert kit.request(queue.conn, user_id, p_params={})["outcome"] == "joined"


def test_a_twin_among_many_that_are_due_later(queue: Queue) -> None:
    """The one that is due in time is found, and one that is running."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    user_id = uuid4()
    bulk(queue.conn, user_id, 150, scheduled_for="2999-01-01T00:00:00Z")
    assert ask(queue.conn, user_id, {})[0] == "created"
    bulk(queue.conn, user_id, 1)
    assert ask(queue.conn, user_id, {})[0] == "joined"
    kit.lease(queue.conn, kit.claim(queue.conn))
    assert ask(queue.conn, user_id, {})[0] == "joined"
