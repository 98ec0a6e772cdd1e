"""The embedded database is closed: nobody but its owner gets in, by socket or by TCP, even if a door is left open.

As root, other system users really try. An ordinary user cannot become anybody else; there the server is told that
its owner is somebody else, so that the caller is the stranger.
"""

import contextlib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.support.embedded import ME, PEOPLE, Home, Person, new_home, wait_until

PRIVATE = 0o700
EVERYBODY = 0o777


@pytest.fixture(params=PEOPLE, ids=str)
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    """A new home, of root's and of an ordinary user's in turn."""
    person: Person = request.param
    with new_home(person) as made:
        yield made


def strangers(home: Home) -> list[Person]:
    """Who is not the owner: an ordinary user, root unless it is the owner, and whom the server runs as."""
    people = [Person.named("nobody"), ME] if ME.uid == 0 else []
    if home.person.uid == 0:
        people.append(Person.named("streamvibe"))
    return [person for person in people if person != home.person]


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.lstat().st_mode)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def socket_directory(url: str) -> Path:
    """Where a URL looks for the socket."""
    return Path(parse_qs(urlsplit(url).query)["host"][0])


@contextlib.contextmanager
def opened(paths: list[Path]) -> Iterator[None]:
    """Leave doors open for the length of a with block."""
    modes = {path: mode(path) for path in paths}
    for path in paths:
        path.chmod(EVERYBODY)
    yield
    for path, bits in modes.items():
        path.chmod(bits)


def wait_until_refused(home: Home, url: str) -> None:
    """Return when the server takes its former owner for a stranger."""

    def refused() -> bool:
        answer = home.ask("query", url=url, sql="SELECT 1")
        return "error" in answer and "Peer authentication failed" in answer["text"]

    wait_until(refused, "the rules are read again")


def test_the_socket_is_behind_a_private_directory(home: Home) -> None:
    """Directory and socket are the server's alone; what else the home holds is the owner's alone."""
    url = home.do("start", embedded_ports=str(free_port()))["url"]
    directory = socket_directory(url)
    [endpoint] = [path for path in directory.iterdir() if not path.name.endswith(".lock")]

    assert (mode(directory), mode(endpoint)) == (PRIVATE, PRIVATE)
    assert (mode(home.base), mode(home.base / "data")) == (PRIVATE, PRIVATE)
    assert home.base.stat().st_uid == home.person.uid
    for name in ("password", "start.lock", "server.lock"):
        assert mode(home.base / name) == 0o600
        assert (home.base / name).stat().st_uid == home.person.uid


def test_rules_let_in_the_owner_and_nobody_else(home: Home) -> None:
    """The server's own reading of its rules: the kernel's word for the socket, SCRAM for TCP, nothing else."""
    sql = (
        "SELECT type, database, user_name, address, auth_method, options FROM pg_hba_file_rules ORDER BY 1, 2"
    )
    socket_rules = [
        ["local", ["all"], ["all"], None, "peer", ["map=owner"]],
        ["local", ["replication"], ["all"], None, "peer", ["map=owner"]],
    ]
    assert home.query(home.do("start")["url"], sql) == socket_rules
    home.do("stop")
    url = home.do("start", embedded_ports=str(free_port()))["url"]
    tcp_rule = ["host", ["all"], ["all"], "127.0.0.1", "scram-sha-256", None]
    assert home.query(url, sql) == [tcp_rule, *socket_rules]
    owners = home.query(url, "SELECT map_name, sys_name, pg_username FROM pg_ident_file_mappings")
    assert owners == [["owner", home.person.name, "all"]]


def test_no_tcp_port_is_open_unless_asked_for(home: Home) -> None:
    """By default the server listens on its socket alone."""
    server = home.do("start")
    assert server["tcp_url"] is None
    assert home.query(server["url"], "SHOW listen_addresses") == [[""]]


def test_another_system_user_cannot_connect(home: Home) -> None:
    """The directory keeps strangers out; opened to everybody, the kernel's word about who calls still does."""
    url = home.do("start")["url"]
    directory = socket_directory(url)
    doors = [home.path.parent, home.base, directory, directory / ".s.PGSQL.5432"]
    for stranger in strangers(home):
        process = home.process(person=stranger)
        try:
            if stranger.uid != 0:  # no permission keeps root out of a directory
                answer = home.refused("query", process, url=url, sql="SELECT 1")
                assert "Permission denied" in answer["text"]
            with opened(doors):
                answer = home.refused("query", process, url=url, sql="SELECT 1")
                assert "Peer authentication failed" in answer["text"]
                for other_role in ("streamvibe", stranger.name):
                    changed = url.replace("postgres@", f"{other_role}@")
                    assert "error" in home.ask("query", process, url=changed, sql="SELECT 1")
        finally:
            process.end()
    assert home.query(url, "SELECT 1") == [[1]]

    # The same the other way round, which needs no second user: the owner becomes the stranger.
    mapping = home.base / "data" / "pg_ident.conf"
    mapping.write_text('owner "somebody-else" all\n')
    home.query(url, "SELECT pg_reload_conf()")
    wait_until_refused(home, url)
    home.do("stop")
    home.do("start")
    assert home.query(url, "SELECT 1") == [[1]], "the next start puts the rules right"


def test_tcp_asks_everybody_for_the_password(home: Home) -> None:
    """On TCP the owner connects with the password kept in the home; without it, or with a wrong one, nobody does."""
    port = free_port()
    server = home.do("start", embedded_ports=str(port))
    assert home.query(server["tcp_url"], "SELECT inet_server_port()") == [[port]]

    plain = f"postgresql://postgres@127.0.0.1:{port}/streamvibe?passfile=/nonexistent"
    wrong = f"postgresql://postgres:wrong@127.0.0.1:{port}/streamvibe"
    password = (home.base / "password").read_text().rsplit(":", 1)[1].strip()
    assert len(password) >= 32
    for person in [home.person, *strangers(home)]:
        process = home.process(person=person)
        try:
            for url in (plain, wrong):
                text = home.refused("query", process, url=url, sql="SELECT 1")["text"]
                assert "password" in text and password not in text
            if person.uid not in (0, home.person.uid):  # neither root nor the owner
                home.refused("query", process, url=server["tcp_url"], sql="SELECT 1")
        finally:
            process.end()


def test_the_password_survives_restarts_and_stays_out_of_logs(home: Home) -> None:
    """The TCP password is made once; neither it nor its statement's text is in the log or the statistics."""
    port = str(free_port())
    server = home.do("start", embedded_ports=port)
    password = (home.base / "password").read_text().rsplit(":", 1)[1].strip()
    statements = home.query(server["url"], "SELECT string_agg(query, ' ') FROM pg_stat_statements")[0][0]
    home.do("stop")
    logs = "".join(path.read_text() for path in Path(server["log_directory"]).iterdir())
    assert password not in statements + logs

    server = home.do("start", embedded_ports=port)
    assert home.query(server["tcp_url"], "SELECT 1") == [[1]]


def test_the_server_sees_nothing_of_the_applications_environment(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets of the process that starts the server do not live on in the server's environment."""
    monkeypatch.setenv("STREAMVIBE_JWT_SECRET", "s" * 40)
    pid = home.do("start")["pid"]
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"STREAMVIBE" not in environment
