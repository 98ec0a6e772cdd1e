"""get_job_logs across jobs: by level, time, metadata and words."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.conftest import Queue

MINUTE = timedelta(minutes=1)


def lines(conn: Connection[Any], **arguments: Any) -> list[str]:
    """The messages of the first page."""
    return [row["message"] for row in kit.call(conn, "get_job_logs", **arguments)]


def job_of(queue: Queue, user_id: UUID) -> kit.Row:
    """A claimed job."""
    kit.job_id(queue.conn, user_id)
    [job] = kit.claim(queue.conn)
    return job


def write(queue: Queue, job: kit.Row, *texts: str, level: str = "info", metadata: Any = None) -> None:
    """Lines of a job, in this order."""
    count = len(texts)
    arguments: kit.Row = {"p_levels": [level] * count, "p_messages": list(texts)}
    if metadata is not None:
        arguments["p_metadata"] = [metadata] * count
    assert kit.call(queue.conn, "append_job_logs", **kit.held([job] * count), **arguments) == []


@pytest.fixture
def jobs(clocked: Queue) -> dict[str, kit.Row]:
    """Two jobs of Ann, one of Bob, with lines a minute apart."""
    kit.register(clocked.conn)
    kit.worker(clocked.conn, p_lease="1 hour")
    ann, bob = uuid4(), uuid4()
    made = {"first": job_of(clocked, ann), "second": job_of(clocked, ann), "bob": job_of(clocked, bob)}
    write(clocked, made["first"], "Fetching the channel", metadata={"channel": "UC1", "page": 1})
    clocked.advance(MINUTE)
    write(clocked, made["bob"], "Fetching Bob's channels", metadata={"channel": "UC2"})
    clocked.advance(MINUTE)
    write(
        clocked,
        made["first"],
        "quota exceeded, waiting",
        level="warning",
        metadata={"channel": "UC1", "page": 2},
    )
    clocked.advance(MINUTE)
    write(clocked, made["second"], "connection reset by peer", level="error")
    clocked.advance(MINUTE)
    write(
        clocked,
        made["bob"],
        "Quotas exceeded yesterday",
        level="error",
        metadata={"channel": "UC2", "nested": {"a": [1]}},
    )
    return made


def test_across_jobs(clocked: Queue, jobs: dict[str, kit.Row]) -> None:
    """The service sees all jobs' lines, a user those of their own, newest first."""
    everything = [
        "Quotas exceeded yesterday",
        "connection reset by peer",
        "quota exceeded, waiting",
        "Fetching Bob's channels",
        "Fetching the channel",
    ]
    anns = [everything[n] for n in (1, 2, 4)]
    ann = clocked.as_user(jobs["first"]["user_id"])
    assert lines(clocked.service) == everything
    assert lines(ann) == anns
    assert lines(clocked.service, p_user_id=jobs["first"]["user_id"]) == anns
    assert lines(ann, p_job_id=jobs["bob"]["job_id"]) == []
    assert lines(ann, p_job_id=jobs["bob"]["job_id"], p_search="quota") == []
    with kit.refused("SV004", "p_user_id"):
        lines(ann, p_user_id=jobs["bob"]["user_id"])


def test_words(clocked: Queue, jobs: dict[str, kit.Row]) -> None:
    """Words in any form, phrases, alternatives and exclusions; what was found is marked."""
    conn = clocked.service
    for search, wanted in (
        ("quota", ["Quotas exceeded yesterday", "quota exceeded, waiting"]),
        ("exceed quotas", ["Quotas exceeded yesterday", "quota exceeded, waiting"]),
        ("quota -yesterday", ["quota exceeded, waiting"]),
        ('"reset by peer"', ["connection reset by peer"]),
        ('"peer reset"', []),
        ("yesterday or reset", ["Quotas exceeded yesterday", "connection reset by peer"]),
        ("nowhere", []),
        ("'); DROP TABLE job_log; --", []),
    ):
        assert lines(conn, p_search=search) == wanted, search
    [row] = kit.call(conn, "get_job_logs", p_search="quotas -yesterday")
    assert row["snippet"] == "**quota** exceeded, waiting"
    assert {row["snippet"] for row in kit.call(conn, "get_job_logs")} == {None}
    first = jobs["first"]["job_id"]
    assert lines(conn, p_search="channel", p_job_id=first) == ["Fetching the channel"]


def test_level_time_and_metadata(clocked: Queue, jobs: dict[str, kit.Row]) -> None:
    """Each filter, and all of them together; p_since is in, p_until is not."""
    conn = clocked.service
    assert lines(conn, p_log_level="error") == ["Quotas exceeded yesterday", "connection reset by peer"]
    assert lines(conn, p_log_level="warning") == ["quota exceeded, waiting"]
    assert lines(conn, p_log_level="info") == ["Fetching Bob's channels", "Fetching the channel"]
    assert lines(conn, p_log_level="debug") == []
    assert lines(conn, p_metadata={"channel": "UC1"}) == ["quota exceeded, waiting", "Fetching the channel"]
    assert lines(conn, p_metadata={"nested": {"a": [1]}}) == ["Quotas exceeded yesterday"]
    at = {row["message"]: row["created_at"] for row in kit.call(conn, "get_job_logs")}
    since, until = at["Fetching Bob's channels"], at["connection reset by peer"]
    assert lines(conn, p_since=since, p_until=until) == ["quota exceeded, waiting", "Fetching Bob's channels"]
    assert lines(conn, p_since=until) == ["Quotas exceeded yesterday", "connection reset by peer"]
    one = jobs["first"]["job_id"]
    assert lines(conn, p_job_id=one, p_since=since) == ["quota exceeded, waiting"]
    assert lines(conn, p_job_id=one, p_until=since) == ["Fetching the channel"]
    together = {
        "p_user_id": jobs["bob"]["user_id"],
        "p_log_level": "error",
        "p_metadata": {"channel": "UC2"},
        "p_search": "quota",
        "p_since": since,
    }
    assert lines(conn, **together) == ["Quotas exceeded yesterday"]
    for field, other in (("p_log_level", "info"), ("p_metadata", {"channel": "UC1"}), ("p_search", "peer")):
        assert lines(conn, **{**together, field: other}) == []


@pytest.mark.parametrize("size", [1, 7, 30])
@pytest.mark.parametrize("whose", ["service", "user"])
@pytest.mark.parametrize(
    "filters", [{}, {"p_search": "line"}, {"p_log_level": "error"}, {"p_metadata": {"k": 1}}]
)
def test_pages(queue: Queue, filters: kit.Row, whose: str, size: int) -> None:
    """Each line once, newest first, while more are written."""
    user_id = uuid4()
    kit.register(queue.conn)
    kit.worker(queue.conn)
    job = job_of(queue, user_id)
    write(queue, job, *(f"line {n}" for n in range(30)), level="error", metadata={"k": 1})
    conn = queue.service if whose == "service" else queue.as_user(user_id)
    seen: list[str] = []
    cursor = None
    while True:
        rows = kit.call(conn, "get_job_logs", p_limit=size, p_cursor=cursor, **filters)
        seen += [row["message"] for row in rows]
        [(cursor, has_more)] = {(row["next_cursor"], row["has_more"]) for row in rows}
        assert has_more == (cursor is not None)
        if not has_more:
            break
        write(queue, job, "another line", level="error", metadata={"k": 1})
    assert seen == [f"line {n}" for n in range(29, -1, -1)]


def test_cursors_of_other_searches(clocked: Queue, jobs: dict[str, kit.Row]) -> None:
    """A cursor is good for its filters alone."""
    conn = clocked.service
    cursor = kit.call(conn, "get_job_logs", p_limit=1, p_search="quota")[0]["next_cursor"]
    since = kit.value(conn, "SELECT streamvibe.now() - interval '1 hour'")
    for other in (
        {},
        {"p_search": "quotas"},
        {"p_search": "quota", "p_metadata": {"channel": "UC1"}},
        {"p_search": "quota", "p_since": since},
        {"p_search": "quota", "p_until": since},
        {"p_search": "quota", "p_user_id": jobs["bob"]["user_id"]},
        {"p_search": "quota", "p_job_id": jobs["bob"]["job_id"]},
        {"p_search": "quota", "p_log_level": "error"},
    ):
        with kit.refused("SV014", "p_cursor"):
            kit.call(conn, "get_job_logs", p_cursor=cursor, **other)


@pytest.mark.parametrize(
    ("code", "field", "value"),
    [
        ("SV001", "p_search", ""),
        ("SV001", "p_search", "the and of"),
        ("SV001", "p_search", "!!!"),
        ("SV003", "p_search", "x" * 1001),
        ("SV001", "p_metadata", {}),
        ("SV003", "p_metadata", {"a": "x" * 10_001}),
        ("SV001", "p_until", "2020-01-01"),
        ("SV001", "p_log_level", "fatal"),
        ("SV001", "p_limit", 0),
        ("SV014", "p_cursor", "garbage"),
    ],
)
def test_refused(queue: Queue, code: str, field: str, value: Any) -> None:
    """Words that nothing has, a time that is over before it begins, and sizes that no search is for."""
    arguments: kit.Row = {"p_since": "2020-01-01", field: value}
    with kit.refused(code, field):
        kit.call(queue.service, "get_job_logs", **arguments)
