"""append_job_logs: the lines of claimed jobs, in order."""

from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue


def claimed(queue: Queue, count: int = 1) -> list[kit.Row]:
    """Jobs that w1 holds."""
    kit.register(queue.conn)
    kit.worker(queue.conn)
    for _ in range(count):
        kit.job_id(queue.conn)
    return kit.claim(queue.conn, limit=count)


def lines(queue: Queue, job: kit.Row) -> list[kit.Row]:
    """The job's log, oldest first."""
    return kit.call(queue.conn, "get_job_logs", p_job_id=job["job_id"], p_limit=1000)[::-1]


def append(queue: Queue, jobs: list[kit.Row], messages: list[Any], **more: Any) -> list[kit.Row]:
    """One call."""
    levels = more.pop("p_levels", ["info"] * len(jobs))
    return kit.call(
        queue.service, "append_job_logs", **kit.held(jobs), p_levels=levels, p_messages=messages, **more
    )


def test_order(queue: Queue) -> None:
    """Lines keep the order they were given in, within a call and across calls, each job its own."""
    one, two = claimed(queue, 2)
    for start in range(0, 600, 200):
        both = [one, two] * 100
        assert append(queue, both, [f"{start + n}" for n in range(200)]) == []
    assert [int(line["message"]) for line in lines(queue, one)] == list(range(0, 600, 2))
    assert [int(line["message"]) for line in lines(queue, two)] == list(range(1, 600, 2))
    times = [line["created_at"] for line in lines(queue, one)]
    assert times == sorted(set(times))


def test_a_line(queue: Queue) -> None:
    """Level, message, metadata, whose job it is, and when."""
    [job] = claimed(queue)
    levels = ["debug", "info", "warning", "error"]
    metadata = [Jsonb({"code": 1}), None, Jsonb([1]), Jsonb("text")]
    append(queue, [job] * 4, ["a", "", None, "d"], p_levels=levels, p_metadata=metadata)
    found = lines(queue, job)
    assert [line["log_level"] for line in found] == levels
    assert [line["message"] for line in found] == ["a", "", "", "d"]
    assert [line["metadata"] for line in found] == [{"code": 1}, None, [1], "text"]
    assert {(line["job_id"], line["user_id"]) for line in found} == {(job["job_id"], job["user_id"])}


def test_long_messages_are_cut(queue: Queue) -> None:
    """At 10,000 characters."""
    [job] = claimed(queue)
    append(queue, [job], ["é" * 10001])
    assert lines(queue, job)[0]["message"] == "é" * 10000


def test_only_while_held(queue: Queue) -> None:
    """A finished job takes no more lines; what it logged before stays."""
    [job] = claimed(queue)
    append(queue, [job], ["before"])
    kit.complete(queue.conn, [job])
    assert append(queue, [job, job], ["after", "after"]) == [{"job_id": job["job_id"]}]
    assert [line["message"] for line in lines(queue, job)] == ["before"]


@pytest.mark.parametrize("level", ["fatal", "", "INFO", None])
def test_refused(queue: Queue, level: str | None) -> None:
    """An unknown level is named and nothing of the call is kept."""
    [job] = claimed(queue)
    with kit.refused("SV001", "p_levels", level or ("NULL" if level is None else "")):
        append(queue, [job, job], ["a", "b"], p_levels=["info", level])
    assert lines(queue, job) == []
