"""What one caller cannot do to the others, however hard they try."""

from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.sql import kit
from tests.sql.conftest import Queue


def _numbers(text: str) -> Jsonb:
    """Params that Python's own JSON could not write."""
    return Jsonb(None, dumps=lambda _: f'{{"a": [{text}]}}')


@pytest.mark.parametrize("number", ["1e309", "-1e131071", "1e-400", "-1e-16000"])
def test_a_number_that_grows_when_written_is_refused(queue: Queue, number: str) -> None:
    """Sixteen bytes of binary can be 128 KiB of text: no such number gets in, alone or by the thousand."""
    kit.register(queue.conn)
    for params in (_numbers(number), _numbers(", ".join([number] * 4000))):
        with kit.refused("SV001", "p_params"):
            kit.request(queue.service, uuid4(), p_params=params)
    with kit.refused("SV001", "p_jobs[1].params"):
        jobs = Jsonb(
            None,
            dumps=lambda _: f'[{{"user_id": "{uuid4()}", "job_type": "email", "params": {{"a": {number}}}}}]',
        )
        kit.call(queue.service, "create_jobs", p_jobs=jobs)


def test_ordinary_numbers_are_kept(queue: Queue) -> None:
    """Zero, and whatever a double can hold, come back as they went in."""
    kit.register(queue.conn)
    job_id = kit.job_id(queue.conn, p_params=_numbers("0, 0.0, -1.5, 1e300, -1e-300, 12345678901234567890"))
    stored = kit.value(queue.conn, "SELECT params->>'a' FROM public.job_queue WHERE id = %s", job_id)
    assert stored.startswith("[0, 0.0, -1.5, 1000000") and stored.endswith("12345678901234567890]")


@pytest.mark.parametrize(("levels", "fits"), [(249, True), (251, False)])
def test_nesting_is_bounded(queue: Queue, levels: int, fits: bool) -> None:
    """Params nested beyond 250 levels are refused: clients could not read them back."""
    kit.register(queue.conn)
    params = Jsonb(None, dumps=lambda _: '{"a":' * levels + "1" + "}" * levels)
    if fits:
        kit.job_id(queue.conn, p_params=params)
    else:
        with kit.refused("SV001", "p_params"):
            kit.request(queue.service, uuid4(), p_params=params)


def test_users_schedule_within_a_year(queue: Queue) -> None:
    """A user cannot pin a partition for ever with a job in the far future; the service may."""
    kit.register(queue.conn)
    user_id = uuid4()
    far = kit.value(queue.conn, "SELECT now() + interval '13 months'")
    with kit.refused("SV001", "p_scheduled_for"):
        kit.request(queue.as_user(user_id), user_id, p_scheduled_for=far)
    kit.job_id(queue.service, user_id, p_scheduled_for=far)


def test_a_key_that_joined_is_kept(queue: Queue) -> None:
    """A key whose first answer was 'joined' or 'cached' means that job from then on."""
    kit.register(queue.conn)
    user_id = uuid4()
    first = kit.job_id(queue.conn, user_id, p_params={"a": 1})
    joined = kit.request(queue.conn, user_id, p_params={"a": 1}, p_idempotency_key="k")
    assert (joined["outcome"], joined["job_id"]) == ("joined", first)
    kit.call(queue.conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[first])
    again = kit.request(queue.conn, user_id, p_params={"a": 1}, p_idempotency_key="k")
    assert (again["outcome"], again["job_id"], again["status"]) == ("joined", first, "cancelled")
    with kit.refused("SV012", "p_idempotency_key", "k"):
        kit.request(queue.conn, user_id, p_params={"a": 2}, p_idempotency_key="k")


def test_a_key_is_one_users(queue: Queue) -> None:
    """The same key of another user means nothing here."""
    kit.register(queue.conn)
    first = kit.job_id(queue.conn, uuid4(), p_idempotency_key="k")
    assert kit.job_id(queue.conn, uuid4(), p_idempotency_key="k") != first


def test_a_job_handed_back_late_does_not_expire(clocked: Queue) -> None:
    """A job that was started in time and is handed back after its time to start has time to start again."""
    kit.register(clocked.conn, p_expires_after=kit.HOUR)
    job_id = kit.job_id(clocked.conn)
    kit.worker(clocked.conn, p_lease=timedelta(hours=12))
    jobs = kit.claim(clocked.conn)
    kit.lease(clocked.conn, jobs)
    clocked.advance(2 * kit.HOUR)
    assert kit.release(clocked.conn, jobs) == []
    assert kit.value(clocked.conn, "SELECT expire_stale_jobs()") == 0
    assert kit.status(clocked.conn, job_id) == "pending"
    clocked.advance(2 * kit.HOUR)
    assert kit.value(clocked.conn, "SELECT expire_stale_jobs()") == 1


def test_no_user_can_keep_partitions_from_being_made(queue: Queue) -> None:
    """Whatever advisory lock a user holds, ensure_partitions() does not wait for it."""
    user = queue.as_user(uuid4())
    for key in ("streamvibe.ensure_partitions", "streamvibe"):
        user.execute("SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended(%s, 0))", [key])
    try:
        queue.conn.execute("SET lock_timeout = '5s'")
        kit.call(queue.conn, "ensure_partitions")
    finally:
        queue.conn.execute("RESET lock_timeout")
        user.execute("SELECT pg_catalog.pg_advisory_unlock_all()")


@pytest.mark.parametrize("width", ["1 month", "25 hours", "12 hours", "1 year", "-7 days"])
def test_a_partition_width_that_cannot_be_kept_is_refused(queue: Queue, width: str) -> None:
    """Leaves are whole days wide, or two would share a name or none could be cut."""
    with pytest.raises(psycopg.errors.CheckViolation):
        queue.conn.execute("UPDATE streamvibe.setting SET partition_width = %s::interval", [width])


def test_a_worker_that_leaves_holds_nothing(queue: Queue) -> None:
    """unregister_worker() hands back what the worker holds, counts no attempt, and nobody wakes it any more."""
    kit.register(queue.conn)
    held = [kit.job_id(queue.conn) for _ in range(2)]
    kit.worker(queue.conn)
    kit.lease(queue.conn, kit.claim(queue.conn, limit=2)[:1])
    kit.call(queue.service, "unregister_worker", p_worker_id="w1")
    assert kit.query(queue.conn, "SELECT FROM streamvibe.claim") == []
    assert kit.query(queue.conn, "SELECT FROM streamvibe.worker") == []
    assert {kit.stored(queue.conn, job_id)["status"] for job_id in held} == {"pending"}
    assert {kit.stored(queue.conn, job_id)["retry_count"] for job_id in held} == {0}
    with kit.refused("SV010", "p_worker_id", "w1"):
        kit.claim(queue.conn)


def test_two_deaths_and_a_cancel_do_not_deadlock(queue: Queue) -> None:
    """An open cancel of one job keeps neither its worker's others nor other dead workers from being recovered later."""
    kit.register(queue.conn)
    user_id = uuid4()
    jobs = []
    for name in ("w1", "w2"):
        kit.job_id(queue.conn, user_id)
        kit.worker(queue.conn, name)
        jobs += kit.claim(queue.conn, name)
    kit.kill_worker(queue.conn)
    queue.conn.execute("UPDATE streamvibe.worker SET heartbeat_at = heartbeat_at - interval '1 hour'")
    with queue.database.connect(autocommit=False) as other:
        kit.call(other, "cancel_jobs", p_user_id=user_id, p_job_ids=[jobs[0]["job_id"]])
        rows = kit.call(queue.conn, "recover_stuck_jobs")
        assert [row["job_id"] for row in rows] == [jobs[1]["job_id"]]
        other.rollback()
    rows = kit.call(queue.conn, "recover_stuck_jobs")
    assert [row["job_id"] for row in rows] == [jobs[0]["job_id"]]
