"""Every state change raced by every other: the outcome is always that of one after the other."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.pairs import ACTS, Arena, scene
from tests.support.databases import TEMPLATE, new_database
from tests.support.servers import Server


class Race(NamedTuple):
    """`first` has not committed when `second` comes."""

    state: str
    first: str
    second: str
    waits: bool
    """Whether the second waits for the first's end; one that does not passes the job over."""
    answer: str
    """What the second says once the first has committed."""
    final: str
    """The job's status then, as readers see it."""


WAITS, PASSES = True, False

# What each act says, and the job's status afterwards, when nobody else is there.
ALONE = {
    ("pending", "claim"): ("claimed", "processing"),
    ("pending", "cancel"): ("cancelled", "cancelled"),
    ("pending", "expire"): ("1", "failed"),
    ("pending", "retry"): ("not_failed", "pending"),
    ("pending", "request"): ("joined", "pending"),
    ("failed", "retry"): ("retried", "pending"),
    ("failed", "retry all"): ("1", "pending"),
    ("failed", "request"): ("created", "failed"),
    ("failed", "cancel"): ("cancelled", "cancelled"),
    **{
        (state, act): outcome
        for state in ("claimed", "processing")
        for act, outcome in {
            "claim": ("none", "processing"),
            "cancel": ("cancelled", "cancelled"),
            "complete": ("done", "completed"),
            "fail": ("now failed", "failed"),
            "fail once": ("now pending", "pending"),
            "lease": ("leased" if state == "claimed" else "refused: processing", "processing"),
            "release": ("released", "pending"),
            "recover": ("retried", "pending"),
            "heartbeat": ("held", "processing"),
            "log": ("logged", "processing"),
        }.items()
    },
}

PENDING = [
    Race("pending", "claim", "claim", PASSES, "none", "processing"),
    Race("pending", "claim", "cancel", WAITS, "cancelled", "cancelled"),
    Race("pending", "cancel", "claim", PASSES, "none", "cancelled"),
    Race("pending", "claim", "expire", PASSES, "0", "processing"),
    Race("pending", "expire", "claim", PASSES, "none", "failed"),
    Race("pending", "expire", "cancel", WAITS, "unchanged", "failed"),
    Race("pending", "cancel", "expire", PASSES, "0", "cancelled"),
    Race("pending", "expire", "expire", PASSES, "0", "failed"),
    Race("pending", "cancel", "cancel", WAITS, "unchanged", "cancelled"),
    Race("pending", "expire", "retry", WAITS, "not_retryable", "failed"),
    Race("pending", "cancel", "retry", WAITS, "not_failed", "cancelled"),
    # A request does not wait for a cancel: it came before it.
    Race("pending", "cancel", "request", PASSES, "joined", "cancelled"),
    Race("pending", "claim", "request", PASSES, "joined", "processing"),
]

HELD = [
    Race(state, first, second, waits, answer, final)
    for state in ("claimed", "processing")
    for first, second, waits, answer, final in [
        ("complete", "cancel", WAITS, "unchanged", "completed"),
        ("complete", "complete", WAITS, "refused: completed", "completed"),
        ("complete", "fail", WAITS, "refused: completed", "completed"),
        ("complete", "lease", WAITS, "refused: completed", "completed"),
        ("complete", "release", WAITS, "refused: completed", "completed"),
        ("complete", "recover", PASSES, "none", "completed"),
        ("complete", "claim", PASSES, "none", "completed"),
        ("complete", "log", WAITS, "refused", "completed"),
        ("cancel", "complete", PASSES, "refused: busy", "cancelled"),
        ("cancel", "fail", PASSES, "refused: busy", "cancelled"),
        ("cancel", "fail once", PASSES, "refused: busy", "cancelled"),
        ("cancel", "recover", PASSES, "none", "cancelled"),
        ("cancel", "claim", PASSES, "none", "cancelled"),
        ("cancel", "log", PASSES, "logged", "cancelled"),
        ("fail", "cancel", WAITS, "unchanged", "failed"),
        ("fail", "fail", WAITS, "refused: failed", "failed"),
        ("fail", "complete", WAITS, "refused: failed", "failed"),
        ("fail", "release", WAITS, "refused: failed", "failed"),
        ("fail", "recover", PASSES, "none", "failed"),
        ("fail once", "cancel", WAITS, "cancelled", "cancelled"),
        ("fail once", "complete", WAITS, "refused: pending", "pending"),
        ("fail once", "claim", PASSES, "none", "pending"),
        ("release", "cancel", WAITS, "cancelled", "cancelled"),
        ("cancel", "release", PASSES, "refused: busy", "cancelled"),
        ("release", "complete", WAITS, "refused: pending", "pending"),
        ("release", "fail", WAITS, "refused: pending", "pending"),
        ("release", "recover", PASSES, "none", "pending"),
        ("release", "claim", PASSES, "none", "pending"),
        ("release", "lease", WAITS, "refused: pending", "pending"),
        ("recover", "complete", WAITS, "refused: pending", "pending"),
        ("recover", "fail", WAITS, "refused: pending", "pending"),
        ("recover", "lease", WAITS, "refused: pending", "pending"),
        ("recover", "release", WAITS, "refused: pending", "pending"),
        ("recover", "log", WAITS, "refused", "pending"),
        ("recover", "cancel", WAITS, "cancelled", "cancelled"),
        ("recover", "recover", PASSES, "none", "pending"),
        ("recover", "claim", PASSES, "none", "pending"),
        ("recover", "heartbeat", WAITS, "lost", "pending"),
        ("heartbeat", "recover", PASSES, "none", "processing"),
        ("log", "recover", PASSES, "none", "processing"),
    ]
]

LEASES = [
    Race("claimed", "lease", "cancel", WAITS, "cancelled", "cancelled"),
    Race("claimed", "cancel", "lease", PASSES, "refused: busy", "cancelled"),
    Race("claimed", "lease", "complete", WAITS, "done", "completed"),
    Race("claimed", "lease", "recover", PASSES, "none", "processing"),
]

FAILED = [
    Race("failed", "retry", "retry", WAITS, "not_failed", "pending"),
    Race("failed", "retry", "retry all", PASSES, "0", "pending"),
    Race("failed", "retry all", "retry", WAITS, "not_failed", "pending"),
    Race("failed", "retry all", "retry all", PASSES, "0", "pending"),
    Race("failed", "retry", "request", WAITS, "joined", "pending"),
    Race("failed", "retry all", "request", WAITS, "joined", "pending"),
    Race("failed", "request", "retry", WAITS, "has_twin", "failed"),
    Race("failed", "request", "retry all", PASSES, "0", "failed"),
    Race("failed", "retry", "cancel", WAITS, "cancelled", "cancelled"),
    Race("failed", "retry all", "cancel", WAITS, "cancelled", "cancelled"),
    Race("failed", "cancel", "retry", WAITS, "not_failed", "cancelled"),
    Race("failed", "cancel", "retry all", PASSES, "0", "cancelled"),
    Race("failed", "cancel", "cancel", WAITS, "unchanged", "cancelled"),
]


def check_invariants(conn: Connection[Any]) -> None:
    """No live twins, nobody over the limit, no job in two claims, and no claim whose worker is forgotten."""
    live = "FROM public.job_queue WHERE status IN ('pending', 'processing')"
    assert kit.query(conn, f"SELECT 1 {live} GROUP BY user_id, job_type, params HAVING count(*) > 1") == []
    assert kit.query(conn, f"SELECT 1 {live} GROUP BY user_id HAVING count(*) > 10") == []
    twice = "SELECT u.id FROM streamvibe.claim c, unnest(c.job_ids) u(id) GROUP BY u.id HAVING count(*) > 1"
    assert kit.query(conn, twice) == []
    orphans = "SELECT 1 FROM streamvibe.claim c LEFT JOIN streamvibe.worker w ON w.id = c.worker_id WHERE w.id IS NULL"
    assert kit.query(conn, orphans) == []


@pytest.fixture(scope="module")
def shared_arena(server: Server) -> Iterator[Arena]:
    """One database for all races on a server."""
    with new_database(server, TEMPLATE) as database, contextlib.closing(Arena(database)) as arena:
        yield arena


@pytest.fixture
def arena(shared_arena: Arena) -> Iterator[Arena]:
    """The arena, empty."""
    yield shared_arena
    shared_arena.clear()


@pytest.mark.parametrize("ending", ["commit", "rollback"])
@pytest.mark.parametrize(
    "race",
    PENDING + HELD + LEASES + FAILED,
    ids=lambda r: f"{r.state}: {r.first}, {r.second}".replace(" ", "-"),
)
def test_one_after_the_other(arena: Arena, race: Race, ending: str) -> None:
    """The second session is answered as if the first had been there before it, or (rolled back) had not been.

    One that must not wait (claims, a worker's ends, maintenance) passes the job over and leaves it to the first;
    a worker is told 'busy', and tries again.
    """
    s = scene(arena.conn, race.state)
    if "recover" in (race.first, race.second):
        kit.kill_worker(arena.conn)
    before = kit.status(arena.conn, s.job_id)
    alone_first, alone_second = ALONE[race.state, race.first], ALONE[race.state, race.second]
    assert ACTS[race.first](arena.first, s) == alone_first[0]
    answer = arena.start(ACTS[race.second], s)
    assert arena.waits(answer) == race.waits
    getattr(arena.first, ending)()
    said = answer.result(timeout=30)
    after = kit.status(arena.conn, s.job_id)
    if ending == "commit":
        assert (said, after) == (race.answer, race.final)
    elif race.waits:
        assert (said, after) == alone_second
    else:
        assert said in (race.answer, alone_second[0])
        assert after in (before, alone_second[1])
    check_invariants(arena.conn)
