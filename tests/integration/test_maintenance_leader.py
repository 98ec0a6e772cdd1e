"""Of many processes one does the maintenance: killed, stopped or cut off, another takes over."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.worker_kit import Queue
from tests.support.databases import Database
from tests.support.waiting import wait_until

# A duty that says who did it, many times a second.
PROCESS = """
import asyncio, logging, signal, sys
from streamvibe.maintenance import Duty, Maintenance

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
TURN = "WITH w AS (INSERT INTO turns (pid) VALUES (%d) RETURNING 1) SELECT count(*) FROM w"

async def main():
    import os
    maintenance = Maintenance(sys.argv[1], duties=[Duty("turn", "every 0.05 seconds", TURN % os.getpid())])
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, maintenance.stop)
    await maintenance.run()

asyncio.run(main())
"""
TURNS = "CREATE TABLE turns (n bigserial PRIMARY KEY, pid integer, at timestamptz DEFAULT clock_timestamp())"
LATEST = "SELECT pid FROM turns ORDER BY n DESC LIMIT 1"


class Processes:
    """Maintenance in processes of its own."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.queue = Queue(database)
        self.queue.conn.execute(TURNS)
        self._dsn = database.dsn
        self._folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, count: int) -> None:
        """So many more."""
        for _ in range(count):
            with (self._folder / f"log-{len(self.started)}").open("wb") as log:
                self.started.append(
                    subprocess.Popen([sys.executable, "-c", PROCESS, self._dsn], stdout=log, stderr=log)
                )

    def leader(self) -> int:
        """The process that did the last turn, once there is one."""
        return int(wait_until(lambda: self.queue.value(f"SELECT coalesce(({LATEST}), 0)"), "a turn"))

    def new_leader(self, before: int) -> int:
        """Who does turns once another process than this one does."""
        wait_until(lambda: self.leader() != before, "another process leads", 60)
        return self.leader()

    def log_of(self, pid: int) -> str:
        """What it said."""
        [place] = [place for place, process in enumerate(self.started) if process.pid == pid]
        return (self._folder / f"log-{place}").read_text()


@pytest.fixture
def processes(database18: Database, tmp_path: Path) -> Iterator[Processes]:
    found = Processes(database18, tmp_path)
    try:
        yield found
    finally:
        for process in found.started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(30)


def test_one_of_five_leads_and_another_follows(processes: Processes) -> None:
    """Five start at once: one does all turns. Killed, another does, and alone."""
    processes.start(5)
    first = processes.leader()
    wait_until(lambda: processes.queue.value("SELECT count(*) >= 20 FROM turns"), "twenty turns")
    assert processes.queue.value("SELECT count(DISTINCT pid) FROM turns") == 1
    os.kill(first, signal.SIGKILL)
    second = processes.new_leader(first)
    at = processes.queue.value("SELECT max(n) FROM turns")
    wait_until(lambda: processes.queue.value("SELECT max(n) >= %s + 20 FROM turns", at), "twenty more")
    assert processes.queue.value("SELECT count(DISTINCT pid) FROM turns WHERE n > %s", at) == 1
    assert processes.queue.value("SELECT count(DISTINCT fence) FROM streamvibe.duty_run") == 2
    assert second in {process.pid for process in processes.started}


def test_a_stopped_leader_comes_back_to_nothing(processes: Processes) -> None:
    """SIGSTOP: another takes over. SIGCONT: it begins nothing under its old fence, and follows."""
    processes.start(2)
    first = processes.leader()
    os.kill(first, signal.SIGSTOP)
    second = processes.new_leader(first)
    since = processes.queue.value("SELECT max(n) FROM turns")
    os.kill(first, signal.SIGCONT)
    wait_until(lambda: "maintenance_lost" in processes.log_of(first), "it learns that it leads no longer")
    wait_until(lambda: processes.queue.value("SELECT max(n) >= %s + 40 FROM turns", since), "turns go on")
    assert processes.queue.value(f"SELECT array_agg(DISTINCT pid) FROM turns WHERE n > {since}") == [second]


def test_a_leader_that_ends_makes_room_at_once(processes: Processes) -> None:
    """SIGTERM: it resigns, and nobody waits for its lease to be over."""
    processes.start(2)
    first = processes.leader()
    lease_ends_at = processes.queue.value("SELECT expires_at FROM streamvibe.leader")
    os.kill(first, signal.SIGTERM)
    processes.new_leader(first)
    assert processes.queue.value("SELECT led_since < %s FROM streamvibe.leader", lease_ends_at)


def test_a_leader_whose_connections_are_cut_goes_on(processes: Processes) -> None:
    """Its sessions are ended by the server: it connects again, under the same fence, and loses nothing."""
    processes.start(1)
    processes.leader()
    processes.queue.conn.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name IN ('streamvibe maintenance', 'streamvibe leadership')"
    )
    at = processes.queue.value("SELECT max(n) FROM turns")
    wait_until(lambda: processes.queue.value("SELECT max(n) >= %s + 10 FROM turns", at), "turns go on")
    assert processes.queue.value("SELECT count(DISTINCT fence) FROM streamvibe.duty_run") == 1
