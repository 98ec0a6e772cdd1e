"""Connection pools."""

import json
import logging
from decimal import Decimal
from itertools import islice
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from tests.support.databases import Database

from streamvibe.db.documents import load_json
from streamvibe.db.pool import AsyncPool, Pool, _pauses
from streamvibe.errors import DatabaseUnreachable, UnknownJobType


async def test_connections_have_our_defaults(database: Database) -> None:
    """Autocommit, our name in pg_stat_activity, native UUIDs, and jsonb through orjson both ways."""
    user_id = uuid4()
    async with AsyncPool(database.dsn) as pool, pool.connection() as conn:
        assert conn.autocommit
        row = await (
            await conn.execute(
                "SELECT current_setting('application_name'), %s::uuid, jsonb_build_object('at', %s::jsonb)",
                [user_id, '{"big": 123456789012345678901234, "ratio": 1.5}'],
            )
        ).fetchone()
    assert row == ("streamvibe", user_id, {"at": {"big": 123456789012345678901234, "ratio": 1.5}})
    assert isinstance(row[1], UUID)


def test_the_plain_pool_is_the_same(database: Database) -> None:
    """The same defaults without an event loop."""
    with Pool(database.dsn, application_name="streamvibe test") as pool, pool.connection() as conn:
        assert conn.autocommit
        row = conn.execute("SELECT current_setting('application_name'), '[1, null]'::jsonb").fetchone()
    assert row == ("streamvibe test", [1, None])


@pytest.mark.parametrize(("threshold", "prepared"), [(None, 0), (0, 1)])
async def test_prepared_statements_can_be_switched_off(
    database18: Database, threshold: int | None, prepared: int
) -> None:
    """With prepare_threshold None nothing is ever prepared, as a transaction pooler needs it."""
    async with AsyncPool(database18.dsn, prepare_threshold=threshold) as pool, pool.connection() as conn:
        for _ in range(7):
            await conn.execute("SELECT %s::int", [1])
        counted = await (
            await conn.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False)
        ).fetchone()
    assert counted == (prepared,)


async def test_database_errors_become_ours(database: Database) -> None:
    """An error of class SV raised in SQL arrives as its class, with field, value and fix."""
    async with AsyncPool(database.dsn) as pool:
        with pytest.raises(UnknownJobType) as caught:
            async with pool.connection() as conn:
                await conn.execute("SELECT * FROM request_job(%s, 'no_such_type')", [uuid4()])
    assert (caught.value.field, caught.value.received) == ("job_type", "no_such_type")
    assert "client.register(job_type)" in (caught.value.fix or "")


def test_a_broken_connection_is_replaced(database: Database) -> None:
    """After the server ended a connection the failing call says so, and the next one works."""
    with Pool(database.dsn, min_size=1, max_size=1) as pool:
        with pytest.raises(DatabaseUnreachable), pool.connection() as conn:
            database.connect().execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
            conn.execute("SELECT 1")
        with pool.connection() as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)


def test_replacements_are_tried_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses grow to two seconds at most and differ between processes; a pool that is closed makes none."""
    pauses = list(islice(_pauses(lambda: True), 20))
    assert pauses[0] <= 0.1 and all(1.0 <= pause <= 2.0 for pause in pauses[5:])
    assert len(set(pauses)) == 20
    wanted = iter([True, True, False])
    assert len(list(_pauses(lambda: next(wanted)))) == 2
    monkeypatch.setattr("streamvibe.db.pool.RECONNECT_SECONDS", 0.0)
    assert list(_pauses(lambda: True)) == []


def test_passwords_never_show(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither repr nor the log of a pool that cannot connect nor its error holds the password."""
    caplog.set_level(logging.DEBUG)
    pool = Pool(f"postgresql://app:hunter2@/nowhere?host={tmp_path}", timeout=0.2)
    assert "postgresql://app:***@/nowhere" in repr(pool)
    with pool, pytest.raises(DatabaseUnreachable) as caught, pool.connection():
        raise AssertionError("connected to nothing")
    assert "hunter2" not in f"{caught.value} {caplog.text} {pool!r}"


@pytest.mark.parametrize(
    "text", ["1" * 18, "1" * 19, "-" + "9" * 40, '{"id": 12345678901234567890123, "x": [1.5]}']
)
def test_whole_numbers_are_never_rounded(text: str) -> None:
    """A jsonb number of any length is read as PostgreSQL holds it."""
    assert load_json(text) == load_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize("binary", [False, True])
def test_any_jsonb_value_can_be_read(database: Database, binary: bool) -> None:
    """Depth and digits that Python's decoders refuse are read exactly, wherever they stand."""
    deeply = "[" * 3000 + '"deep"' + "]" * 3000
    document = '{"a\\"[": [1.5, true, null, "}", {"k": DEEPLY}, 1e5000, -1e4999, {}, []]}'.replace(
        "DEEPLY", deeply
    )
    with Pool(database.dsn) as pool, pool.connection() as conn:
        row = conn.execute(
            "SELECT %s::text::jsonb, %s::text::jsonb, '[1]'::json", [document, "[1e5000]"], binary=binary
        ).fetchone()
    assert row is not None
    assert row[1:] == ([Decimal(10) ** 5000], [1])
    first, yes, nothing, brace, nested, huge, negative, *empty = row[0]['a"[']
    assert (first, yes, nothing, brace, empty) == (1.5, True, None, "}", [{}, []])
    assert (huge, negative) == (Decimal("1e5000"), Decimal("-1e4999"))
    deep, levels = nested["k"], 0
    while isinstance(deep, list):
        (deep,), levels = deep, levels + 1
    assert (deep, levels) == ("deep", 3000)


@pytest.mark.parametrize("text", ["", "[", "{]", "nonsense", "[" * 600])
def test_what_is_no_json_is_refused(text: str) -> None:
    """A broken document is an error, not a guess."""
    with pytest.raises(ValueError):
        load_json(text)


async def test_the_connection_given_back_last_is_lent_first(database18: Database) -> None:
    """One call after the other is made over one connection, however many there are: its session is warm."""
    async with AsyncPool(database18.dsn, min_size=3) as pool:
        await pool.wait()
        used = set()
        for _ in range(6):
            async with pool.connection() as conn:
                used.add(conn.info.backend_pid)
    assert len(used) == 1
    with Pool(database18.dsn, min_size=3) as plain:
        plain.wait()
        used = set()
        for _ in range(6):
            with plain.connection() as connection:
                used.add(connection.info.backend_pid)
    assert len(used) == 1
