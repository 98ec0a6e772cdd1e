"""Bulk creation by COPY."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, field_validator
from tests.support.databases import Database

from streamvibe import Client, Context, job_type
from streamvibe.errors import InvalidArgument, PayloadTooLarge, StreamVibeError, UnknownJobType
from streamvibe.model import NewJob

USER = UUID("018f0000-0000-7000-8000-000000000001")


class NoteParams(BaseModel):
    """A number."""

    n: int


@job_type("note", priority=3)
def note(ctx: Context, params: NoteParams) -> None:
    """Do nothing."""


def numbers(database: Database) -> list[int]:
    """The n of every job, in the order they were made."""
    rows = database.connect().execute("SELECT (params ->> 'n')::int FROM job_queue ORDER BY id").fetchall()
    return [n for (n,) in rows]


async def test_any_iterable_is_created_in_order(client: Client, database: Database) -> None:
    """A generator of thousands of jobs for several users arrives whole, in order, across chunks."""
    await client.register(note)
    users = [uuid4() for _ in range(3)]
    outcomes = await client.create_many(
        (NewJob(users[n % 3], note, {"n": n}) for n in range(2500)), chunk_size=1000
    )
    assert [made.ordinal for made in outcomes] == list(range(1, 2501))
    assert {made.outcome for made in outcomes} == {"created"}
    assert numbers(database) == list(range(2500))
    assert [made.job_id for made in outcomes] == [
        id_ for (id_,) in database.connect().execute("SELECT id FROM job_queue ORDER BY id").fetchall()
    ]
    assert database.fetch_value("SELECT count(*) FROM streamvibe.staging") == 0


async def test_every_field_arrives(client: Client, database: Database) -> None:
    """Mappings and NewJob objects alike; what is left out is what the job type says."""
    await client.register(note)
    later = datetime.now(UTC) + timedelta(days=1)
    outcomes = await client.create_many(
        [
            {
                "user_id": str(USER),
                "job_type": "note",
                "params": {"n": 1},
                "priority": 9,
                "scheduled_for": later,
            },
            NewJob(USER, "note", NoteParams(n=2)),
            NewJob(USER, "note"),
        ]
    )
    jobs = [await client.get(made.job_id or "") for made in outcomes]
    assert [(job.params, job.job_priority) for job in jobs] == [({"n": 1}, 9), ({"n": 2}, 3), ({}, 3)]
    assert jobs[0].scheduled_for == later


async def test_promises_are_kept_when_asked_for(client: Client) -> None:
    """dedupe joins twins of the list and of the table, enforce_limit refuses the eleventh; otherwise neither."""
    await client.register(note)
    live = await client.request(note, NoteParams(n=0), user_id=USER)
    asked = [NewJob(USER, "note", {"n": n}) for n in (0, 1, 1, *range(2, 12))]
    outcomes = await client.create_many(asked, dedupe=True, enforce_limit=True)
    assert [made.outcome for made in outcomes] == ["joined", "created", "joined"] + ["created"] * 8 + [
        "refused"
    ] * 2
    assert outcomes[0].job_id == live.job_id
    assert outcomes[2].job_id == outcomes[1].job_id
    assert outcomes[-1].job_id is None
    assert {made.outcome for made in await client.create_many(asked)} == {"created"}
    assert await client.create_many([]) == []


@pytest.mark.parametrize(
    ("bad", "error", "field", "received"),
    [
        ({"user_id": "me", "job_type": "note"}, InvalidArgument, "jobs[4].user_id", "'me'"),
        ({"job_type": "note"}, InvalidArgument, "jobs[4].user_id", None),
        ({"user_id": USER, "job_type": "note", "prio": 1}, InvalidArgument, "jobs[4].prio", "1"),
        (
            NewJob(USER, "note", {"a": [float("nan")]}),
            InvalidArgument,
            "jobs[4].params.a[0]",
            "nan",
        ),
        (NewJob(USER, "note", {"a": "\x00"}), InvalidArgument, "jobs[4].params.a", r"'\x00'"),
        (NewJob(USER, "note", [1]), InvalidArgument, "jobs[4].params", "[1]"),
        (NewJob(USER, note, {"n": "x"}), InvalidArgument, "jobs[4].params.n", "'x'"),
        (NewJob(USER, "note", {}, priority=2**40), InvalidArgument, "jobs[4].priority", str(2**40)),
        (NewJob(USER, "note", {}, priority=10), InvalidArgument, "jobs[4].priority", "10"),
        (
            NewJob(USER, "note", {}, scheduled_for=datetime(2030, 1, 1)),  # noqa: DTZ001
            InvalidArgument,
            "jobs[4].scheduled_for",
            "datetime.datetime(2030, 1, 1, 0, 0)",
        ),
        (NewJob(USER, "nope"), UnknownJobType, "jobs[4].job_type", "nope"),
        (NewJob(USER, "note", {"a": "x" * 1048576}), PayloadTooLarge, "jobs[4].params", "1048585 bytes"),
        ("a job", InvalidArgument, "jobs[4]", "'a job'"),
    ],
)
async def test_a_bad_element_is_named_and_undoes_its_chunk(
    client: Client,
    database: Database,
    bad: Any,
    error: type[StreamVibeError],
    field: str,
    received: str | None,
) -> None:
    """The error names the element in the whole list, its field and value; earlier chunks stay, and a note says so."""
    await client.register(note)

    def jobs() -> Iterator[Any]:
        yield from (NewJob(USER, "note", {"n": n}) for n in range(3))
        yield bad

    with pytest.raises(error) as caught:
        await client.create_many(jobs(), chunk_size=2)
    assert (caught.value.field, caught.value.received) == (field, received)
    assert caught.value.fix
    assert caught.value.__notes__ == ["Elements 1 to 2 were handled before and are committed."]
    assert numbers(database) == [0, 1]
    assert database.fetch_value("SELECT count(*) FROM streamvibe.staging") == 0

    with pytest.raises(error) as caught:
        await client.create_many(jobs(), chunk_size=None)
    assert numbers(database) == [0, 1]
    assert not hasattr(caught.value, "__notes__")


async def test_a_list_is_validated_ahead(client: Client, database: Database) -> None:
    """While a batch of a list is made the next one is validated, and the batch is committed meanwhile."""
    looks = database.connect()
    seen: list[int] = []

    class Watched(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def look(cls, n: int) -> int:
            if n == 3:
                until = time.monotonic() + 20
                while time.monotonic() < until and not seen:
                    seen.extend(
                        n for (n,) in looks.execute("SELECT (params ->> 'n')::int FROM job_queue ORDER BY id")
                    )
                    time.sleep(0.01)
            return n

    @job_type("watched")
    def watched(ctx: Context, params: Watched) -> None:
        """Do nothing."""

    await client.register(watched)
    outcomes = await client.create_many([NewJob(USER, watched, {"n": n}) for n in range(4)], chunk_size=3)
    assert seen == [0, 1, 2]
    assert [made.ordinal for made in outcomes] == [1, 2, 3, 4]
    assert numbers(database) == [0, 1, 2, 3]


async def test_a_bad_element_of_a_list_leaves_the_batches_before_it(
    client: Client, database: Database
) -> None:
    """Found ahead, it is raised when it is its turn; when the database refuses the batch before, that is the error."""
    await client.register(note)
    bad = NewJob(USER, note, {"n": "x"})
    with pytest.raises(InvalidArgument) as caught:
        await client.create_many([NewJob(USER, note, {"n": 1}), bad], chunk_size=1)
    assert caught.value.field == "jobs[2].params.n"
    assert caught.value.__notes__ == ["Elements 1 to 1 were handled before and are committed."]
    assert numbers(database) == [1]
    with pytest.raises(InvalidArgument) as caught:
        await client.create_many([NewJob(USER, note, {"n": 1}, priority=10), bad], chunk_size=1)
    assert caught.value.field == "jobs[1].priority"
    assert numbers(database) == [1]
    made = await client.create_many([NewJob(USER, "note", {"n": 2})])
    assert [one.outcome for one in made] == ["created"]


async def test_a_source_is_asked_when_it_is_needed(client: Client, database: Database) -> None:
    """The batch before is committed then, and no connection is kept: a source may use the client itself, or fail."""
    await client.register(note)

    def jobs() -> Iterator[NewJob]:
        yield from (NewJob(USER, "note", {"n": n}) for n in range(3))
        assert numbers(database) == [0, 1, 2]
        in_use = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
            " AND backend_type = 'client backend'"
        )
        # This very look.
        assert database.fetch_value(in_use) == 1
        yield NewJob(USER, "note", {"n": 3})
        raise OSError("the file ends here")

    with pytest.raises(OSError, match="the file ends here"):
        await client.create_many(jobs(), chunk_size=3)
    assert numbers(database) == [0, 1, 2]


@pytest.mark.parametrize("as_list", [False, True])
async def test_a_stop_iteration_within_is_no_end(client: Client, database: Database, as_list: bool) -> None:
    """What a validator raises by mistake does not end the creation quietly."""
    known = [1, 2]

    class Chosen(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def look(cls, n: int) -> int:
            return next(one for one in known if one == n)

    @job_type("chosen")
    def chosen(ctx: Context, params: Chosen) -> None:
        """Do nothing."""

    await client.register(chosen)
    jobs = [NewJob(USER, chosen, {"n": n}) for n in (1, 2, 3, 1)]
    with pytest.raises(RuntimeError):
        await client.create_many(jobs if as_list else iter(jobs), chunk_size=2)
    assert numbers(database) == [1, 2]


@pytest.mark.parametrize("size", [0, -1, 10_000_000])
async def test_an_impossible_chunk_size_is_refused(client: Client, size: int) -> None:
    """The error names the argument and what it takes."""
    with pytest.raises(InvalidArgument, match="1 to 1000000") as caught:
        await client.create_many([], chunk_size=size)
    assert (caught.value.field, caught.value.received) == ("chunk_size", str(size))
