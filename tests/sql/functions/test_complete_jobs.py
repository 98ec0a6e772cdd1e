"""complete_jobs, lease_jobs, release_jobs and report_job_progress: the ordinary end of a claim."""

from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue


def claimed(queue: Queue, count: int = 1, **settings: Any) -> list[kit.Row]:
    """Jobs that w1 holds."""
    kit.register(queue.conn, **settings)
    kit.worker(queue.conn)
    for _ in range(count):
        kit.job_id(queue.conn)
    return kit.claim(queue.conn, limit=count)


def claims(queue: Queue) -> int:
    """How many claims there are."""
    count: int = kit.value(queue.conn, "SELECT count(*) FROM streamvibe.claim")
    return count


def test_complete(queue: Queue) -> None:
    """Several jobs with a result each; a claim shrinks and goes with its last job."""
    jobs = claimed(queue, 3)
    results = [{"n": n} for n in range(3)]
    answer = kit.call(queue.service, "complete_jobs", **kit.held(jobs[:2]), p_results=results[:2])
    assert answer == []
    assert claims(queue) == 1
    assert kit.complete(queue.conn, jobs[2:], result=results[2]) == []
    assert claims(queue) == 0
    for job, result in zip(jobs, results, strict=True):
        done = kit.stored(queue.conn, job["job_id"])
        assert (done["status"], done["result"], done["worker_id"]) == ("completed", result, "w1")
        assert (done["retry_count"], done["failure_kind"], done["retry_at"]) == (0, None, None)


def test_a_short_job_is_written_once(queue: Queue) -> None:
    """From claim to completion one new version of its row is written, and no other."""
    claimed(queue)
    kit.job_id(queue.conn)
    written = "SELECT sum(pg_stat_get_xact_tuples_updated(relid)) AS n FROM pg_partition_tree('job_queue')"
    with queue.conn.transaction():
        before = kit.value(queue.conn, written)
        [job] = kit.claim(queue.conn)
        assert kit.value(queue.conn, written) == before
        kit.complete(queue.conn, [job])
        assert kit.value(queue.conn, written) == before + 1


def test_started_at(clocked: Queue) -> None:
    """When it started is what the worker says, between the claim and now; without it, the claim."""
    jobs = claimed(clocked, 4)
    claimed_at = kit.value(clocked.conn, "SELECT claimed_at FROM streamvibe.claim")
    clocked.advance(timedelta(minutes=1))
    said = claimed_at + timedelta(seconds=30)
    starts = [said, claimed_at - kit.DAY, claimed_at + kit.DAY, None]
    kit.call(clocked.conn, "complete_jobs", **kit.held(jobs), p_results=[{}] * 4, p_started_at=starts)
    rows = [kit.stored(clocked.conn, job["job_id"]) for job in jobs]
    assert [row["started_at"] for row in rows] == [said, claimed_at, rows[2]["completed_at"], claimed_at]


@pytest.mark.parametrize("result", [None, [1, 2], "text", 7, True, {}, {"deep": [{"a": None}]}])
def test_any_json_is_a_result(queue: Queue, result: Any) -> None:
    """Whatever JSON holds comes back as it was; SQL NULL is no result."""
    [job] = claimed(queue)
    kit.call(queue.conn, "complete_jobs", **kit.held([job]), p_results=[Jsonb(result)])
    assert kit.get_job(queue.conn, job["job_id"])["result"] == result
    [job] = claimed(queue)
    kit.call(queue.conn, "complete_jobs", **kit.held([job]), p_results=[None])
    assert kit.stored(queue.conn, job["job_id"])["result"] is None


def test_a_result_too_large(queue: Queue) -> None:
    """Refused with its job, its size and the limit; nothing of the call is written, the rest can be sent."""
    queue.conn.execute("UPDATE streamvibe.setting SET max_result_bytes = 100")
    jobs = claimed(queue, 2)
    exact, large = {"a": "x" * 91}, {"a": "x" * 92}
    with kit.refused("SV003", "p_results", "101 bytes") as caught:
        kit.call(queue.conn, "complete_jobs", **kit.held(jobs), p_results=[exact, large])
    assert str(jobs[1]["job_id"]) in str(caught.value.diag.message_primary)
    assert {kit.status(queue.conn, job["job_id"]) for job in jobs} == {"processing"}
    assert kit.complete(queue.conn, jobs[:1], result=exact) == []


@pytest.mark.parametrize("number", ["1e131071", "-1e309", "1e-16383", "-1e-308"])
def test_a_number_that_grows_when_it_is_written(queue: Queue, number: str) -> None:
    """Sixteen bytes that would be 128 KiB of text, or that no client could read, are refused before that."""
    jobs = claimed(queue, 2)
    bad = f'{{"a": [{number}]}}'
    with kit.refused("SV001", "p_results") as caught:
        queue.conn.execute(
            "SELECT complete_jobs('w1', %s::bigint[], %s::uuid[], ARRAY['{}', %s]::jsonb[])",
            [[job["token"] for job in jobs], [job["job_id"] for job in jobs], bad],
        )
    assert str(jobs[1]["job_id"]) in str(caught.value.diag.message_primary)
    assert {kit.status(queue.conn, job["job_id"]) for job in jobs} == {"processing"}
    kit.complete(queue.conn, jobs, result={"a": [1e308, -1e308, 1e-307, 0, 0.5]})
    assert {kit.status(queue.conn, job["job_id"]) for job in jobs} == {"completed"}


def test_complete_clears_an_earlier_failure(queue: Queue) -> None:
    """The second attempt's success leaves no trace of the first one's error; the count stays."""
    jobs = claimed(queue)
    kit.fail(queue.conn, jobs, failure={**kit.ERROR, "retry_after_seconds": 0})
    kit.complete(queue.conn, kit.claim(queue.conn))
    done = kit.stored(queue.conn, jobs[0]["job_id"])
    assert (done["status"], done["failure_kind"], done["error_message"]) == ("completed", None, None)
    assert done["retry_count"] == 1


def test_lease(queue: Queue) -> None:
    """The rows become processing under worker, token and start; leasing again is refused."""
    jobs = claimed(queue, 2)
    assert kit.lease(queue.conn, jobs) == []
    for job in jobs:
        row = kit.stored(queue.conn, job["job_id"])
        assert (row["status"], row["worker_id"], row["claim_token"]) == ("processing", "w1", job["token"])
        assert row["created_at"] <= row["started_at"] <= row["updated_at"]
    again = kit.lease(queue.conn, jobs)
    assert {row["status"] for row in again} == {"processing"}
    assert len(again) == 2


def test_release(queue: Queue) -> None:
    """Claimed or leased, a job handed back is as it was before the claim: due at once, no attempt counted."""
    jobs = claimed(queue, 2)
    before = {job["job_id"]: job["scheduled_for"] for job in jobs}
    kit.lease(queue.conn, jobs[1:])
    kit.call(queue.conn, "report_job_progress", **kit.held(jobs[1:]), p_progress=[0.5], p_messages=["x"])
    assert kit.release(queue.conn, jobs) == []
    assert claims(queue) == 0
    never = ("started_at", "worker_id", "claim_token", "progress", "progress_message", "failure_kind")
    for job_id, due in before.items():
        row = kit.stored(queue.conn, job_id)
        assert {key: row[key] for key in never} == dict.fromkeys(never)
        assert (row["status"], row["retry_count"], row["isolated"]) == ("pending", 0, False)
        assert row["scheduled_for"] == due


def test_release_wakes_workers(queue: Queue) -> None:
    """Others that found nothing are told that there is something again."""
    jobs = claimed(queue)
    kit.worker(queue.conn, "w2")
    assert kit.claim(queue.conn, "w2") == []
    listener = queue.database.connect()
    listener.execute("LISTEN streamvibe_jobs")
    kit.release(queue.conn, jobs)
    assert [note.payload for note in listener.notifies(timeout=10, stop_after=1)] == ["email"]
    listener.close()


@pytest.mark.parametrize(
    ("said", "kept"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (-3.0, 0.0), (7.5, 1.0), (None, None)]
)
def test_progress(queue: Queue, said: float | None, kept: float | None) -> None:
    """Kept between 0 and 1; unknown is NULL; the message is cut at 500 characters."""
    jobs = claimed(queue)
    some: kit.Row = {"p_progress": [said], "p_messages": ["é" * 600]}
    kit.call(queue.conn, "report_job_progress", **kit.held(jobs), **some)
    assert kit.stored(queue.conn, jobs[0]["job_id"])["progress_message"] is None, "only leased jobs have it"
    kit.lease(queue.conn, jobs)
    kit.call(queue.conn, "report_job_progress", **kit.held(jobs), **some)
    row = kit.stored(queue.conn, jobs[0]["job_id"])
    assert (row["progress"], row["progress_message"]) == (kept, "é" * 500)
