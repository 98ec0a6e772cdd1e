"""What the embedded database cannot use it names, with the value and what to do; nothing is half done."""

import contextlib
import errno
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from tests.support.embedded import ME, ORDINARY, PEOPLE, Home, Person, copy_wheel, new_home

from streamvibe.config import Settings
from streamvibe.db import embedded, embedded_layout, embedded_programs
from streamvibe.db.embedded_layout import SOCKET_PATH_BYTES, Layout, home_errors
from streamvibe.errors import ConfigurationError


@pytest.fixture(params=PEOPLE, ids=str)
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    """A new home, of root's and of an ordinary user's in turn."""
    person: Person = request.param
    with new_home(person) as made:
        yield made


@pytest.fixture
def ordinary_home() -> Iterator[Home]:
    """A new home of an ordinary user's, whom permissions bind."""
    with new_home(ORDINARY) as made:
        yield made


def expect(answer: dict[str, str], error: str, field: str, *words: str) -> None:
    """The answer is this error about this setting, and its text holds each of the words."""
    assert (answer["error"], answer["field"]) == (error, field), answer
    for word in words:
        assert word in answer["text"]


def long_home(home: Home) -> None:
    """Move the home to a path that is too long for a socket."""
    home.path = home.path / "a-long-name" / ("x" * SOCKET_PATH_BYTES)


def short_directory(home: Home) -> Path:
    """Where the socket of a too long home goes."""
    digest = Layout(home.path).socket_directory.name.rsplit("-", 1)[1]
    return Path("/tmp") / f"streamvibe-{home.person.uid}-{digest}"


def test_a_home_too_long_for_a_socket_works(home: Home) -> None:
    """The socket of a long home lives in a short private directory, the same one at every start."""
    long_home(home)
    directory = short_directory(home)
    try:
        url = home.do("start")["url"]
        assert Path(parse_qs(urlsplit(url).query)["host"][0]) == directory
        assert stat.S_IMODE(directory.lstat().st_mode) == 0o700
        assert home.query(url, "SELECT 1") == [[1]]
        home.do("stop")
        assert home.do("start")["url"] == url
    finally:
        home.do("stop")
        shutil.rmtree(directory)


def test_a_short_socket_directory_that_somebody_prepared_is_refused(home: Home) -> None:
    """A link, or a directory of somebody else's, in the place of the short directory is named and not used."""
    long_home(home)
    directory = short_directory(home)
    with tempfile.TemporaryDirectory() as elsewhere:
        directory.symlink_to(elsewhere)
        try:
            expect(home.refused(), "ConfigurationError", "home", str(directory), "Move", "away")
        finally:
            directory.unlink()
        if ME.uid == 0:
            directory.mkdir(mode=0o777)
            try:
                home.own(directory, Person.named("nobody"))
                expect(home.refused(), "ConfigurationError", "home", str(directory), "belongs to", "nobody")
            finally:
                directory.rmdir()
        assert list(Path(elsewhere).iterdir()) == []


def test_a_home_too_long_for_a_socket_where_no_short_directory_can_be(home: Home) -> None:
    """When the short directory cannot be made either, the error gives the limit and asks for a shorter home."""
    long_home(home)
    process = home.process(patches={"layout._SHORT_DIRECTORY": "/nonexistent"})
    try:
        answer = home.refused("start", process)
    finally:
        process.end()
    expect(answer, "ConfigurationError", "home", str(SOCKET_PATH_BYTES), "/nonexistent", "to a shorter path")


@pytest.mark.parametrize("name", ["with a space", 'it\'s, "quoted" $HOME', "ünï", "percent%20"])
def test_any_character_may_stand_in_a_homes_path(home: Home, name: str) -> None:
    """Spaces, quotes, commas and letters beyond ASCII in the home's path need no care from anybody."""
    home.path = home.path / name
    directory = Layout(home.path).socket_directory
    url = home.do("start")["url"]
    assert home.query(url, "SELECT 1") == [[1]]
    home.do("stop")
    if directory.parent == Path("/tmp"):
        shutil.rmtree(short_directory(home))


def test_a_read_only_home_is_named(ordinary_home: Home) -> None:
    """A directory without the right to write in it: who lacks it, where, and what to set."""
    ordinary_home.path.parent.chmod(0o500)
    try:
        expect(
            ordinary_home.refused(),
            "ConfigurationError",
            "home",
            "Permission denied",
            str(ordinary_home.path),
            f"Let {ORDINARY.name} write there, or set STREAMVIBE_HOME",
        )
    finally:
        ordinary_home.path.parent.chmod(0o700)


def test_a_home_that_became_read_only_is_named(ordinary_home: Home) -> None:
    """The same when the cluster is there already and only its files cannot be written."""
    ordinary_home.do("start")
    ordinary_home.do("stop")
    (ordinary_home.base / "start.lock").chmod(0o400)
    expect(ordinary_home.refused(), "ConfigurationError", "home", "Permission denied", "start.lock")
    (ordinary_home.base / "start.lock").chmod(0o600)
    ordinary_home.do("start")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "read-only file system: set STREAMVIBE_HOME"),
        (errno.ENOSPC, "Free disk space"),
        (errno.ENAMETOOLONG, "shorter path"),
        (errno.EIO, "Set STREAMVIBE_HOME"),
    ],
)
def test_what_the_system_refuses_comes_with_a_remedy(number: int, words: str) -> None:
    """Each refusal of the operating system is a ConfigurationError about the home that says what to do."""
    with pytest.raises(ConfigurationError) as caught, home_errors(Path("/some/home")):
        raise OSError(number, os.strerror(number), "/some/home/postgres")
    assert caught.value.field == "home" and caught.value.received == "/some/home"
    assert os.strerror(number) in str(caught.value) and words in str(caught.value)


def test_a_file_in_the_place_of_the_home_is_named(home: Home) -> None:
    """A file where the home, or the embedded database in it, should be a directory."""
    (home.path.parent / "file").touch()
    home.own(home.path.parent / "file")
    expect(home.refused(home=str(home.path.parent / "file")), "ConfigurationError", "home", "file")
    expect(home.refused(home=str(home.path.parent / "file" / "home")), "ConfigurationError", "home", "file")
    home.path.mkdir()
    home.own(home.path)
    home.base.touch()
    home.own(home.base)
    expect(home.refused(), "ConfigurationError", "home", "Something else than a directory", str(home.base))


def test_a_home_of_somebody_elses_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody, root included, works in a home of another ordinary user's; nothing is made there."""
    owner = home.person
    if ME.uid == 0:
        owner = Person.named("nobody")
        home.own(home.path.parent, owner)
        home.path.parent.chmod(0o777)
        expect(
            home.refused(), "ConfigurationError", "home", "belongs to somebody else: nobody", "Run as nobody"
        )
        home.own(home.path.parent)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: ME.uid + 1)
        with pytest.raises(ConfigurationError, match="belongs to somebody else"):
            Layout(home.path).prepare()
    assert not home.path.exists()


def test_root_and_an_ordinary_user_do_not_share_a_home(ordinary_home: Home) -> None:
    """A home that one user's server lives in is refused to another, and goes on working for its own."""
    url = ordinary_home.do("start")["url"]
    if ME.uid == 0:
        process = ordinary_home.process(person=ME)
        try:
            for action in ("start", "stop"):
                expect(
                    ordinary_home.refused(action, process),
                    "ConfigurationError",
                    "home",
                    f"belongs to somebody else: {ORDINARY.name}",
                    f"Run as {ORDINARY.name}",
                )
        finally:
            process.end()
    assert ordinary_home.query(url, "SELECT 1") == [[1]]


def test_a_full_port_range_is_named(home: Home) -> None:
    """With every port of the range taken the error names the range and the setting; nothing is left running."""
    with contextlib.ExitStack() as taken:
        ports = taken_ports(taken)
        expect(
            home.refused(embedded_ports=ports),
            "ConfigurationError",
            "embedded_ports",
            ports,
            "Set STREAMVIBE_EMBEDDED_PORTS",
        )
        assert home.do("status") is None
    assert home.do("start", embedded_ports=ports)["tcp_url"] is not None


def test_the_first_free_port_of_the_range_is_taken(home: Home) -> None:
    """A port in use is passed over for the next one."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        low = first.getsockname()[1]
        high = low + 1
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while second.connect_ex(("127.0.0.1", high)) == 0:
            high += 1
        first.listen()
        server = home.do("start", embedded_ports=f"{low}-{high}")
    assert urlsplit(server["tcp_url"]).port in range(low + 1, high + 1)
    assert home.query(server["tcp_url"], "SELECT 1") == [[1]]


def taken_ports(stack: contextlib.ExitStack) -> str:
    """A range of ports that all have a listener for the length of the stack."""
    taken = stack.enter_context(socket.socket())
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    return f"{port}-{port}"


def test_a_cluster_of_another_major_version_is_refused(home: Home) -> None:
    """A cluster made by PostgreSQL 17 is not touched; the error names both versions and the way over."""
    home.do("start")
    home.do("stop")
    version = home.base / "data" / "PG_VERSION"
    version.write_text("17\n")
    expect(home.refused(), "ConfigurationError", "home", "PostgreSQL 17", "PostgreSQL 18", "Dump it")
    version.write_text("18\n")
    assert home.do("start")["started"]


def test_something_else_in_the_place_of_the_cluster_is_left_alone(home: Home) -> None:
    """A directory that is not a cluster is named and not overwritten."""
    home.do("start")
    home.do("stop")
    data = home.base / "data"
    data.rename(home.base / "kept")
    data.mkdir(mode=0o700)
    home.own(data, Person.named(data_owner(home)))
    (data / "diary.txt").write_text("mine")
    expect(home.refused(), "ConfigurationError", "home", "not a PostgreSQL cluster", str(data), "Move")
    assert (data / "diary.txt").read_text() == "mine"


def data_owner(home: Home) -> str:
    """The name of the system user whom the home's server runs as."""
    return "streamvibe" if home.person.uid == 0 else home.person.name


def test_a_server_that_does_not_start_is_quoted(home: Home) -> None:
    """When PostgreSQL itself refuses to start, its own words are in the error, and the mended server starts."""
    url = home.do("start")["url"]
    home.query(url, "ALTER SYSTEM SET shared_buffers = '8000GB'")
    home.do("stop")
    expect(home.refused(), "DatabaseUnreachable", "home", "could not map anonymous shared memory", "log")
    (home.base / "data" / "postgresql.auto.conf").write_text("")
    assert home.do("start")["started"]


def test_a_server_started_by_hand_is_not_disturbed(home: Home) -> None:
    """A server that somebody runs on the cluster without StreamVibe is reported, not killed."""
    home.do("start")
    home.do("stop")
    owner = Person.named(data_owner(home))
    data = os.open(home.base / "data", os.O_RDONLY)
    program = embedded_programs.server_program(
        "postgres", embedded_programs.Account(owner.name, owner.uid, owner.gid)
    )
    with tempfile.TemporaryDirectory() as sockets:
        home.own(Path(sockets), owner)
        server = subprocess.Popen(
            [program, "-D", f"/proc/self/fd/{data}", "-k", sockets, "-c", "logging_collector=off"],
            pass_fds=[data],
            cwd="/",
            stderr=subprocess.PIPE,
            text=True,
            user=owner.uid if ME.uid == 0 else None,
            group=owner.gid if ME.uid == 0 else None,
        )
        try:
            assert server.stderr is not None
            for line in server.stderr:
                if "ready to accept connections" in line:
                    break
            expect(home.refused(), "DatabaseUnreachable", "home", "did not start", f"process {server.pid}")
            assert server.poll() is None
        finally:
            os.close(data)
            server.terminate()
            server.communicate()


def test_with_another_database_set_it_is_never_started(tmp_path: Path) -> None:
    """With a database URL set the embedded database is neither started nor made; the URL is what is used."""
    settings = Settings(home=tmp_path / "home", database_url="postgresql://u:secret@example.org/db")
    with pytest.raises(ConfigurationError) as caught:
        embedded.ensure_running(settings)
    assert caught.value.field == "database_url" and "secret" not in str(caught.value)
    assert embedded.database_url(settings) == "postgresql://u:secret@example.org/db"
    assert not (tmp_path / "home").exists()


def test_asking_after_a_home_makes_nothing(tmp_path: Path) -> None:
    """Status and stop of a home that was never used leave no trace."""
    settings = Settings(home=tmp_path / "home")
    assert embedded.status(settings) is None
    assert embedded.stop(settings) is False
    assert not (tmp_path / "home").exists()


def test_a_start_that_another_process_never_ends_is_not_waited_for_for_ever(home: Home) -> None:
    """Whoever waits for another process's start gives up after the timeout and says so."""
    home.do("start")
    with (home.base / "start.lock").open("r+") as lock:
        assert embedded_layout.try_lock(lock.fileno())
        answer = home.refused(embedded_timeout_seconds=1)
    expect(answer, "DatabaseUnreachable", "home", "still starting or stopping", "EMBEDDED_TIMEOUT_SECONDS")


def test_programs_out_of_the_servers_reach_are_copied() -> None:
    """Root's environment under a private directory works: the server's system user gets a copy of the programs."""
    private = Path(tempfile.mkdtemp(prefix="svprivate", dir="/tmp"))
    copies = Path(tempfile.mkdtemp(prefix="svcopies", dir="/tmp"))
    copies.chmod(0o755)
    try:
        copy_wheel(private)
        with new_home(ME) as home:
            process = home.process(
                path=[str(private)], patches={"programs._SYSTEM_DIRECTORY": str(copies / "streamvibe")}
            )
            try:
                server = home.do("start", process)
            finally:
                process.end()
            with psycopg.connect(server["url"]) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            program = Path(f"/proc/{server['pid']}/exe").readlink()
            # An ordinary user's server runs as that user, who can reach the programs.
            assert program.is_relative_to(copies if ME.uid == 0 else private)
            assert ME.uid != 0 or program.stat().st_uid == 0
    finally:
        shutil.rmtree(private)
        shutil.rmtree(copies)
