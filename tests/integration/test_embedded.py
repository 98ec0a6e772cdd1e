"""The embedded database lives: it starts once for everybody, keeps its data, and comes back after any kill."""

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.embedded import ME, PEOPLE, Home, Person, new_home, wait_until

FOREVER = "SELECT count(*) FROM generate_series(1, 1000000000000)"


@pytest.fixture(params=PEOPLE, ids=str)
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    """A new home, of root's and of an ordinary user's in turn."""
    person: Person = request.param
    with new_home(person) as made:
        yield made


def alive(pid: int) -> bool:
    """Whether the process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def server_owner(home: Home) -> Person:
    """Whom the home's server runs as."""
    return Person.named(pwd.getpwuid((home.base / "data").stat().st_uid).pw_name)


def test_starts_a_postgresql_18_fit_for_the_queue(home: Home) -> None:
    """One call gives a URL of a durable, checksummed UTF-8 server with room for 400 connections."""
    server = home.do("start")

    assert server["started"]
    wanted = {
        "max_connections": "450",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "shared_preload_libraries": "pg_stat_statements",
        "listen_addresses": "",
        "log_rotation_size": "10MB",
        "max_wal_size": "2GB",
    }
    names = ", ".join(f"'{name}'" for name in wanted)
    rows = home.query(
        server["url"], f"SELECT name, current_setting(name) FROM pg_settings WHERE name IN ({names})"
    )
    assert dict(rows) == wanted
    row = home.query(
        server["url"],
        "SELECT current_setting('server_version_num')::int / 10000, current_database(),"
        " upper('é'), 'Z' < 'a', current_user",
    )
    assert row == [[18, "streamvibe", "É", True, "postgres"]]
    assert "password" not in server["url"]


def test_processes_that_start_it_at_once_share_one_server(home: Home) -> None:
    """Of several processes that ask for a new home at the same moment one starts it; all get the same URL."""
    processes = [home.process() for _ in range(5)]
    try:
        for process in processes:
            home.begin(process, "start")
        servers = [process.answer()["value"] for process in processes]
    finally:
        for process in processes:
            process.end()

    assert sorted(server["started"] for server in servers) == [False] * 4 + [True]
    assert len({(server["url"], server["pid"]) for server in servers}) == 1


def test_data_and_url_are_kept_between_runs(home: Home) -> None:
    """After a stop and a start the data are there, under the same URL; a second stop finds nothing to stop."""
    before = home.do("start")
    home.query(before["url"], "CREATE TABLE kept AS SELECT 42 AS answer")
    assert home.do("status") == {**before, "started": False}

    assert home.do("stop") is True
    assert home.do("status") is None
    assert not alive(before["pid"])
    assert home.do("stop") is False

    after = home.do("start")
    assert after["started"] and after["url"] == before["url"]
    assert home.query(after["url"], "SELECT answer FROM kept") == [[42]]


def test_what_maintenance_uses_is_there(home: Home) -> None:
    """pgstattuple and pg_stat_statements are installed, also in a database that was made without them."""
    wanted = "SELECT array_agg(extname::text ORDER BY extname) FROM pg_extension WHERE extname LIKE 'pg%'"
    server = home.do("start")
    assert home.query(server["url"], wanted) == [[["pg_stat_statements", "pgstattuple"]]]
    home.query(server["url"], "DROP EXTENSION pgstattuple")
    home.do("stop")
    assert home.query(home.do("start")["url"], wanted) == [[["pg_stat_statements", "pgstattuple"]]]


def test_it_starts_without_what_cannot_be_installed(home: Home) -> None:
    """A function of the owner's that has the name of an extension's: the server is as good without that one."""
    server = home.do("start")
    home.query(server["url"], "DROP EXTENSION pgstattuple")
    home.query(
        server["url"], "CREATE FUNCTION public.pgstattuple(text) RETURNS integer LANGUAGE sql AS 'SELECT 1'"
    )
    home.do("stop")
    again = home.do("start")
    assert again["started"]
    assert home.query(again["url"], "SELECT count(*) FROM pg_extension WHERE extname = 'pgstattuple'") == [
        [0]
    ]


def test_settings_changed_by_alter_system_survive_a_restart(home: Home) -> None:
    """The owner's ALTER SYSTEM wins over what StreamVibe writes, at the next start too."""
    url = home.do("start")["url"]
    home.query(url, "ALTER SYSTEM SET max_connections = 20")
    home.do("stop")
    url = home.do("start")["url"]
    assert home.query(url, "SHOW max_connections") == [["20"]]


def test_a_server_whose_connections_are_all_in_use_is_running(home: Home) -> None:
    """Whoever asks while every connection is taken is told the URL; nothing is restarted."""
    url = home.do("start")["url"]
    home.query(url, "ALTER SYSTEM SET max_connections = 20")
    home.do("stop")
    server = home.do("start")
    holder = home.process()
    try:
        assert home.do("fill", holder, url=url) == 20
        again = home.do("start")
    finally:
        holder.end(kill=True)
    assert (again["pid"], again["started"]) == (server["pid"], False)


def test_survives_a_kill_of_the_application(home: Home) -> None:
    """kill -9 of the process that started the server leaves it running for the others."""
    process = home.process()
    server = home.do("start", process)
    process.end(kill=True)

    again = home.do("start")
    assert (again["pid"], again["started"]) == (server["pid"], False)
    assert home.query(again["url"], "SELECT 1") == [[1]]


def test_survives_a_kill_while_the_cluster_is_made(home: Home) -> None:
    """kill -9 in the middle of the very first start leaves nothing that the next start stumbles over."""
    process = home.process()
    home.begin(process, "start")
    wait_until((home.base / "data.new").exists, "initdb begins")
    process.end(kill=True)

    server = home.do("start")
    assert home.query(server["url"], "SELECT current_database()") == [["streamvibe"]]
    assert not (home.base / "data.new").exists()


def test_survives_a_kill_while_the_server_starts(home: Home) -> None:
    """kill -9 between the cluster and the first connection: the next process joins or starts the server."""
    process = home.process()
    home.begin(process, "start")
    wait_until((home.base / "data").exists, "the server is about to start")
    process.end(kill=True)

    server = home.do("start")
    assert home.query(server["url"], "SELECT 1") == [[1]]


def test_survives_a_kill_of_the_server(home: Home) -> None:
    """After kill -9 of the server itself, even with a busy process of it left, what was committed is there."""
    server = home.do("start")
    home.query(server["url"], "CREATE TABLE kept AS SELECT 42 AS answer")
    busy = home.process()
    try:
        home.begin(busy, "query", url=server["url"], sql=FOREVER)
        running = f"SELECT pid FROM pg_stat_activity WHERE query = '{FOREVER}'"
        found: list[list[int]] = []

        def is_busy() -> bool:
            found[:] = home.query(server["url"], running)
            return bool(found)

        wait_until(is_busy, "the busy query runs")
        [[orphan]] = found
        os.kill(server["pid"], signal.SIGKILL)
        wait_until(lambda: not alive(server["pid"]), "the server is dead")
        assert alive(orphan), "a busy process does not notice at once that its server died"

        after = home.do("start")
    finally:
        busy.end(kill=True)

    assert after["started"] and after["url"] == server["url"]
    assert home.query(after["url"], "SELECT answer FROM kept") == [[42]]
    assert not alive(orphan)


def test_survives_a_reused_process_id(home: Home) -> None:
    """After a crash the server's old number may belong to another process of the same user; it is left alone."""
    server = home.do("start")
    owner = server_owner(home)
    os.kill(server["pid"], signal.SIGKILL)
    wait_until(lambda: not alive(server["pid"]), "the server is dead")
    pid_file = home.base / "data" / "postmaster.pid"
    lock_file = home.base / "run" / ".s.PGSQL.5432.lock"
    other = subprocess.Popen(
        ["sleep", "1000"], user=owner.uid if ME.uid == 0 else None, group=owner.gid if ME.uid == 0 else None
    )
    try:
        for path in (pid_file, lock_file):
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join([f"{other.pid}\n", *lines[1:]]))

        assert home.do("start")["started"]
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_recovers_a_server_whose_socket_was_removed(home: Home) -> None:
    """A running server that nobody can reach any more is stopped and started again, with its data."""
    server = home.do("start")
    home.query(server["url"], "CREATE TABLE kept AS SELECT 42 AS answer")
    (home.base / "run" / ".s.PGSQL.5432").unlink()

    after = home.do("start")
    assert after["started"] and after["pid"] != server["pid"]
    assert home.query(after["url"], "SELECT answer FROM kept") == [[42]]


def test_only_the_newest_logs_are_kept(home: Home) -> None:
    """A start leaves the ten newest log files, so that years of restarts do not fill the disk."""
    server = home.do("start")
    home.do("stop")
    logs = Path(server["log_directory"])
    for year in range(1990, 2010):
        (logs / f"postgresql-{year}0101-000000.log").touch()
    home.do("start")
    names = sorted(path.name for path in logs.glob("postgresql-*.log"))
    assert len(names) <= 11
    assert names[0] >= "postgresql-2001"
