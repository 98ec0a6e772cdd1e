"""The fixtures every other test stands on."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from tests.support.databases import Database, new_database
from tests.support.servers import Server, pg18_bin
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
START_SERVER = """
import threading
from tests.support.servers import Server, pg18_bin
server = Server("killed", pg18_bin()).start()
with server.connect() as conn:
    data = conn.execute("SHOW data_directory").fetchone()[0]
print(server.home, data, open(data + "/postmaster.pid").readline().strip(), flush=True)
threading.Event().wait()
"""


def test_both_versions_are_tested(server: Server) -> None:
    """pg18 is PostgreSQL 18, pg15 is PostgreSQL 15, each with room for 400 connections and durability off."""
    with server.connect() as conn:
        version = conn.info.server_version // 10000
        assert {"pg18": 18, "pg15": 15}[server.name] == version
        row = conn.execute("SELECT current_setting('max_connections')::int").fetchone()
    assert row is not None and row[0] >= 400


def test_only_the_owner_of_the_home_can_reach_a_server(server: Server) -> None:
    """No TCP port is open, and the socket's folder is closed to everybody else."""
    with server.connect() as conn:
        assert conn.execute("SHOW listen_addresses").fetchone() == ("",)
    assert server.home.stat().st_mode & 0o077 == 0


def test_databases_are_apart(database: Database) -> None:
    """What one test writes, no other sees; what it leaves open does not keep its database alive."""
    with new_database(database.server, "template_streamvibe") as other:
        other.connect().execute("CREATE TABLE public.mine ()")
        other.connect()
        name = other.name
        assert database.fetch_value("SELECT to_regclass('public.mine') IS NULL")
    assert database.fetch_value("SELECT count(*) FROM pg_database WHERE datname = %s", name) == 0


async def test_connections_act_as_the_role_they_name(database: Database) -> None:
    """A user's connection has their id, the service's has none, and all end with the test."""
    user_id = uuid4()
    caller = "SELECT current_user::text, auth.uid()"
    assert database.connect().execute(caller).fetchone() == ("postgres", None)
    assert database.as_user(user_id).execute(caller).fetchone() == ("authenticated", user_id)
    assert database.as_service().execute(caller).fetchone() == ("service_role", None)
    assert await (
        await (await database.aconnect("anon")).execute("SELECT current_user::text")
    ).fetchone() == ("anon",)
    database.close()
    wait_until(
        lambda: database.fetch_value(
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend'"
        ),
        "the connections are gone",
    )


def test_the_clock_moves_for_functions_and_ids(database: Database) -> None:
    """advance_clock() adds up, and moves what the functions call now as well as the time in new ids."""
    database.advance_clock(timedelta(hours=1))
    database.advance_clock(timedelta(days=2))
    for moment in ("streamvibe.now()", "streamvibe.id_time(streamvibe.new_id())"):
        shift = database.fetch_value(f"SELECT {moment} - clock_timestamp()")
        assert abs(shift - timedelta(days=2, hours=1)) < timedelta(minutes=1)


def test_nothing_is_left_of_a_killed_test_run() -> None:
    """kill -9 of the process that started a server takes the server and its folders along."""
    starter = subprocess.Popen(
        [sys.executable, "-c", START_SERVER],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    with starter:
        assert starter.stdout
        home, data, pid = starter.stdout.readline().split()
        assert Path(home).exists() and Path(data).exists() and Path("/proc", pid).exists()
        starter.kill()
    paths = (Path(home), Path(data), Path("/proc", pid))
    wait_until(lambda: not any(path.exists() for path in paths), f"all of {paths} are gone")


def test_a_server_that_cannot_start_says_why() -> None:
    """The end of its log is the failure, at once and not after the deadline; its folders are removed."""
    server = Server("broken", pg18_bin())
    try:
        with pytest.raises(pytest.fail.Exception, match="no_such_setting"):
            server.start(no_such_setting="1")
    finally:
        server.stop()
    assert not server.home.exists()
