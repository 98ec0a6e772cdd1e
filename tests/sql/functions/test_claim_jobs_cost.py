"""claim_jobs reads in proportion to what it returns, whatever stands in the queue and whenever plans were made.

The same at a million jobs each: benchmarks/pickup.py, with its figures in benchmarks/results/.
"""

import dataclasses
from collections.abc import Sequence

import pytest
from benchmarks.pickup import SCENES, Cost, costs, fill, prepare
from tests.support.databases import Database

FEW = 2_000
MANY = 20_000
# The first claim of a plan also reads the catalogue to plan; a row returned is found in an index, locked in the
# table, found again by its id, and read.
BUFFERS = 300
BUFFERS_A_JOB = 8
ROWS = 40
ROWS_A_JOB = 5


def check(found: Sequence[Cost]) -> None:
    """Every claim kept within the bounds, which know nothing of the backlog."""
    for cost in found:
        assert cost.claimed == cost.limit
        assert cost.buffers <= BUFFERS + BUFFERS_A_JOB * cost.limit, dataclasses.asdict(cost)
        assert cost.rows <= ROWS + ROWS_A_JOB * cost.limit, dataclasses.asdict(cost)
        assert cost.sequential == (), dataclasses.asdict(cost)


@pytest.mark.parametrize("scene", [name for name, backlogs in SCENES.items() if backlogs])
def test_backlog(database: Database, scene: str) -> None:
    """Beside 2,000 jobs and beside 20,000 of each backlog the bounds are the same.

    With custom and with generic plans, before the first ANALYZE and after it.
    """
    conn = database.connect()
    prepare(conn)
    for backlog in SCENES[scene]:
        fill(conn, backlog, FEW)
    check(costs(conn, ["mine"], repeat=1))
    for backlog in SCENES[scene]:
        fill(conn, backlog, MANY - FEW)
    check(costs(conn, ["mine"], repeat=1))
    conn.execute("VACUUM ANALYZE public.job_queue")
    check(costs(conn, ["mine"], repeat=1))


def test_backlog_of_a_worker_for_every_type(database: Database) -> None:
    """A worker that takes any type has the same bounds, beside ready jobs and jobs of tomorrow."""
    conn = database.connect()
    prepare(conn)
    for backlog in SCENES["all three"]:
        fill(conn, backlog, MANY)
    check(costs(conn, None, repeat=1))
    conn.execute("VACUUM ANALYZE public.job_queue")
    check(costs(conn, None, repeat=1))
