"""Who leads maintenance, and what is recorded of it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue


def lead(conn: Connection[Any], name: str, lease: str = "10 seconds") -> int | None:
    """The fence, or None."""
    found: int | None = kit.call_one(conn, "streamvibe.lead_maintenance", p_leader_id=name, p_lease=lease)[
        "lead_maintenance"
    ]
    return found


def begin(conn: Connection[Any], fence: int | None, duty: str = "sweep") -> Any:
    return kit.call_one(conn, "streamvibe.begin_duty", p_fence=fence, p_duty=duty)["begin_duty"]


def end(
    conn: Connection[Any], fence: int | None, started_at: Any, done: int | None, error: str | None = None
) -> None:
    kit.call(
        conn,
        "streamvibe.end_duty",
        p_fence=fence,
        p_leader_id="a",
        p_duty="sweep",
        p_started_at=started_at,
        p_done=done,
        p_error=error,
    )


def register(conn: Connection[Any], fence: int | None) -> list[kit.Row]:
    return kit.call(
        conn, "streamvibe.register_duties", p_fence=fence, p_names=["sweep"], p_schedules=["every 5 seconds"]
    )


def test_one_leads_until_its_lease_is_over(clocked: Queue) -> None:
    """Others are told no; the same keeps its fence; after the lease another takes over under a new one."""
    conn = clocked.service
    first = lead(conn, "a")
    assert first is not None and lead(conn, "b") is None
    clocked.advance(9 * kit.SECOND)
    assert lead(conn, "a") == first
    clocked.advance(9 * kit.SECOND)
    assert lead(conn, "b") is None
    clocked.advance(2 * kit.SECOND)
    second = lead(conn, "b")
    assert second is not None and second > first
    assert lead(conn, "a") is None


def test_who_comes_back_too_late_gets_a_new_fence(clocked: Queue) -> None:
    """Also when nobody took over meanwhile: what it began under the old one is refused."""
    first = lead(clocked.service, "a")
    register(clocked.service, first)
    clocked.advance(11 * kit.SECOND)
    with kit.refused("SV016", "p_fence"):
        begin(clocked.service, first)
    second = lead(clocked.service, "a")
    assert second is not None and first is not None and second > first
    with kit.refused("SV016", "p_fence"):
        begin(clocked.service, first)
    with kit.refused("SV016", "p_fence"):
        register(clocked.service, None)
    begin(clocked.service, second)


def test_many_at_once(queue: Queue) -> None:
    """Of twelve sessions that ask at the same moment one leads."""
    conns = [queue.database.connect() for _ in range(12)]
    with ThreadPoolExecutor(12) as threads:
        fences = list(threads.map(lambda pair: lead(pair[1], f"p{pair[0]}"), enumerate(conns)))
    assert len([fence for fence in fences if fence is not None]) == 1


def test_resigning(queue: Queue) -> None:
    """Another leads at once; who does not lead resigns for nobody."""
    first = lead(queue.service, "a")
    kit.call(queue.service, "streamvibe.resign_maintenance", p_leader_id="b")
    assert lead(queue.service, "b") is None
    kit.call(queue.service, "streamvibe.resign_maintenance", p_leader_id="a")
    second = lead(queue.service, "b")
    assert second is not None and first is not None and second > first


def test_runs_are_recorded(queue: Queue) -> None:
    """What it did, what it failed with; runs in a row with nothing to do are one row."""
    fence = lead(queue.service, "a")
    register(queue.service, fence)
    for done, error in ((0, None), (0, None), (0, None), (7, None), (0, None), (None, "it broke"), (0, None)):
        end(queue.service, fence, begin(queue.service, fence), done, error)
    runs = kit.call(queue.service, "get_maintenance_runs")
    assert [(run["runs"], run["done"], run["error"]) for run in runs] == [
        (1, 0, None),
        (1, None, "it broke"),
        (1, 0, None),
        (1, 7, None),
        (3, 0, None),
    ]
    assert all(run["started_at"] <= run["ended_at"] for run in runs)
    assert {(run["leader_id"], run["fence"]) for run in runs} == {("a", fence)}
    assert len(kit.call(queue.service, "get_maintenance_runs", p_limit=2)) == 2
    assert kit.call(queue.service, "get_maintenance_runs", p_duty="other") == []


def test_old_runs_are_forgotten(queue: Queue) -> None:
    """A thousand rows of a duty stay."""
    fence = lead(queue.service, "a")
    register(queue.service, fence)
    queue.conn.execute(
        "INSERT INTO streamvibe.duty_run (duty, fence, leader_id, started_at, ended_at, done)"
        " SELECT 'sweep', 1, 'a', now(), now(), n FROM generate_series(1, 1500) n"
    )
    end(queue.service, fence, begin(queue.service, fence), 5)
    assert kit.value(queue.conn, "SELECT count(*) FROM streamvibe.duty_run") == 1000
    assert kit.value(queue.conn, "SELECT min(done) FROM streamvibe.duty_run") == 5


def test_the_state_of_duties(clocked: Queue) -> None:
    """New, running, done, failed, disabled; and of one whose leader died in it not running."""

    def state() -> kit.Row:
        return kit.call_one(clocked.service, "get_maintenance")

    fence = lead(clocked.service, "a")
    [known] = register(clocked.service, fence)
    assert (known["schedule"], known["enabled"], known["last_started_at"]) == ("every 5 seconds", True, None)
    assert (state()["state"], state()["leader_id"], state()["leader_is_alive"]) == ("new", "a", True)
    started_at = begin(clocked.service, fence)
    assert (state()["state"], state()["running_since"]) == ("running", started_at)
    end(clocked.service, fence, started_at, 3)
    assert (state()["state"], state()["last_done"]) == ("done", 3)
    end(clocked.service, fence, begin(clocked.service, fence), None, "it broke")
    assert (state()["state"], state()["last_error"]) == ("failed", "it broke")
    begin(clocked.service, fence)
    clocked.advance(kit.MINUTE)
    assert (state()["state"], state()["leader_is_alive"]) == ("failed", False)
    kit.call(clocked.service, "set_maintenance_duty", p_duty="sweep", p_enabled=False)
    assert state()["state"] == "disabled"


def test_schedules(queue: Queue) -> None:
    """What an operator sets stays when the duty is registered again; '' goes back to the usual one."""
    fence = lead(queue.service, "a")
    register(queue.service, fence)
    for schedule in ("*/10 * * * *", "30 3 * * 1", "*/7 * * * * *", "every 1.5 minutes"):
        kit.call(queue.service, "set_maintenance_duty", p_duty="sweep", p_schedule=schedule)
        assert register(queue.service, fence)[0]["schedule"] == schedule
    kit.call(queue.service, "set_maintenance_duty", p_duty="sweep", p_enabled=True)
    assert register(queue.service, fence)[0]["schedule"] == "every 1.5 minutes"
    kit.call(queue.service, "set_maintenance_duty", p_duty="sweep", p_schedule="")
    assert register(queue.service, fence)[0]["schedule"] == "every 5 seconds"


@pytest.mark.parametrize("schedule", ["often", "* * *", "* * * * * * *", "every day", "every -1 seconds"])
def test_bad_schedules(queue: Queue, schedule: str) -> None:
    """Refused by name."""
    register(queue.service, lead(queue.service, "a"))
    with kit.refused("SV001", "p_schedule"):
        kit.call(queue.service, "set_maintenance_duty", p_duty="sweep", p_schedule=schedule)


def test_bad_arguments(queue: Queue) -> None:
    """No name, an endless lease, a duty that is not there, a bad page size."""
    for name in (None, "", "x" * 201):
        with kit.refused("SV001", "p_leader_id"):
            kit.call(queue.service, "streamvibe.lead_maintenance", p_leader_id=name)
    for lease in (None, "0", "2 hours"):
        with kit.refused("SV001", "p_lease"):
            kit.call(queue.service, "streamvibe.lead_maintenance", p_leader_id="a", p_lease=lease)
    fence = lead(queue.service, "a")
    with kit.refused("SV001", "p_duty"):
        begin(queue.service, fence)
    with kit.refused("SV001", "p_duty"):
        end(queue.service, fence, None, 0)
    with kit.refused("SV001", "p_duty"):
        kit.call(queue.service, "set_maintenance_duty", p_duty="sweep", p_enabled=True)
    with kit.refused("SV001", "p_limit"):
        kit.call(queue.service, "get_maintenance_runs", p_limit=0)
