"""The same in an S3-compatible store, over real HTTP: a server on this machine."""

import random
import urllib.request
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from moto.server import ThreadedMotoServer
from tests.integration.archive_kit import ids_in_archive, ids_in_queue, old_jobs, run, switch_on
from tests.sql import kit
from tests.support.cli import streamvibe
from tests.support.databases import Database

from streamvibe.archive import erase_user
from streamvibe.archive.query import Archive
from streamvibe.archive.store import MARKER
from streamvibe.errors import ArchiveFailed


class S3:
    """A server with one bucket."""

    def __init__(self) -> None:
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        host, port = self.server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        # Servers of one process share what is in them.
        self.bucket = f"jobs-{uuid4().hex}"
        self.send("PUT", f"/{self.bucket}")

    def send(self, method: str, path: str) -> str:
        """The answer to a request."""
        with urllib.request.urlopen(urllib.request.Request(self.url + path, method=method)) as answer:
            return str(answer.read().decode())

    def keys(self) -> set[str]:
        """Every object but the marker."""
        text = self.send("GET", f"/{self.bucket}?list-type=2")
        found = {part.split("</Key>")[0] for part in text.split("<Key>")[1:]}
        return {key for key in found if not key.endswith(MARKER)}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server; the environment names it."""
    made = S3()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": made.url,
    }.items():
        monkeypatch.setenv(name, value)
    try:
        yield made
    finally:
        made.server.stop()


def test_archived_asked_and_erased(database18: Database, s3: S3) -> None:
    """Jobs and lines go there, a large file in parts; they are asked, and a user is erased from them."""
    conn = database18.connect()
    leaf = old_jobs(conn, rows=30)
    kit.old_leaf(conn, "job_log", weeks=7)
    noise = random.Random(7)
    for row in kit.query(conn, f"SELECT id FROM streamvibe.{leaf}"):
        conn.execute(
            "UPDATE public.job_queue SET result = jsonb_build_object('x', %s::text) WHERE id = %s",
            [noise.randbytes(250_000).hex(), row["id"]],
        )
    before = ids_in_queue(conn)
    switch_on(conn, f"s3://{s3.bucket}/some/prefix")
    assert run(database18).rows == 40
    keys = {f"some/prefix/{row['key']}" for row in kit.query(conn, "SELECT key FROM get_archive_files()")}
    assert s3.keys() == keys and len(keys) == 2
    assert kit.value(conn, "SELECT max(byte_count) > 6000000 FROM get_archive_files()")
    assert ids_in_archive(database18) == before
    with Archive(database18.dsn) as archive:
        assert list(archive.ask("SELECT count(*), max(length(result)) > 500000 FROM jobs")) == [[30, True]]
        assert list(archive.ask("SELECT count(*) FROM logs")) == [[10]]
        [[victim]] = archive.ask("SELECT user_id FROM jobs ORDER BY id LIMIT 1")
    done = erase_user(database18.dsn, UUID(victim), patience=0, report=lambda step, what: None)
    assert (done.jobs, done.archive) == (1, True)
    assert sum(ids_in_archive(database18).values()) == 29
    assert s3.keys() == {
        f"some/prefix/{row['key']}" for row in kit.query(conn, "SELECT key FROM get_archive_files()")
    }


def test_a_bucket_that_is_not_there(database18: Database, s3: S3) -> None:
    """Refused when it is set, by name and with what to do; nothing changes."""
    ran = streamvibe(database18.dsn, "archive", "set", "s3://no-such-bucket/x")
    assert ran.status == 1 and ran.out == ""
    assert "NoSuchBucket" in ran.err or "not found" in ran.err
    assert "s3://no-such-bucket/x" in ran.err and "AWS_*" in ran.err
    assert kit.call_one(database18.connect(), "get_archive")["url"] is None


def test_a_store_that_goes_away(database18: Database, s3: S3) -> None:
    """Archiving fails by name, and nothing is dropped."""
    conn = database18.connect()
    leaf = old_jobs(conn)
    switch_on(conn, f"s3://{s3.bucket}")
    s3.server.stop()
    with pytest.raises(ArchiveFailed) as caught:
        run(database18)
    assert caught.value.received == f"s3://{s3.bucket}"
    with kit.refused("SV001", "p_partition_name", leaf):
        conn.execute("SELECT streamvibe.drop_partition(%s)", [leaf])


def test_credentials_are_nowhere(database18: Database, s3: S3) -> None:
    """Neither in the database nor in an error."""
    conn = database18.connect()
    switch_on(conn, f"s3://{s3.bucket}")
    assert "secret" not in str(kit.query(conn, "SELECT * FROM streamvibe.setting"))
    ran = streamvibe(database18.dsn, "archive", "set", "s3://key:secret@bucket/x")
    assert ran.status == 2 and "secret" not in ran.err and "come from the environment" in ran.err
