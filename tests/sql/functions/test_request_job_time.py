"""request_job over time: the cache, the dedupe window, and idempotency keys."""

from datetime import timedelta
from uuid import uuid4

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue

PARAMS = {"channel": "UC1"}
JUST = timedelta(seconds=30)


def complete_one(queue: Queue, user_id: object, result: object = None) -> object:
    """A completed job of this user; returns its id."""
    row = kit.call_one(queue.conn, "request_job", p_user_id=user_id, p_job_type="email", p_params=PARAMS)
    assert row["outcome"] == "created"
    kit.worker(queue.conn)
    assert kit.complete(queue.conn, kit.claim(queue.conn), result=result) == []
    return row["job_id"]


def test_cached(clocked: Queue) -> None:
    """Inside the TTL the result comes at once, with its age; after it the work is done again."""
    user_id = uuid4()
    kit.register(clocked.conn)
    job_id = complete_one(clocked, user_id, {"videos": 250})
    clocked.advance(kit.HOUR - JUST)
    row = kit.request(clocked.as_user(user_id), user_id, p_params=PARAMS)
    assert (row["outcome"], row["job_id"], row["status"]) == ("cached", job_id, "completed")
    assert row["result"] == {"videos": 250}
    assert kit.HOUR - JUST <= row["result_age"] < kit.HOUR
    clocked.advance(2 * JUST)
    assert kit.request(clocked.conn, user_id, p_params=PARAMS)["outcome"] == "created"


def test_cache_is_the_newest_result(clocked: Queue) -> None:
    """Of several completed jobs the newest answers."""
    user_id = uuid4()
    kit.register(clocked.conn, p_cache_ttl="1 minute")
    complete_one(clocked, user_id, {"n": 1})
    clocked.advance(2 * kit.MINUTE)
    newer = complete_one(clocked, user_id, {"n": 2})
    row = kit.request(clocked.conn, user_id, p_params=PARAMS, p_cache_ttl="1 day")
    assert (row["job_id"], row["result"]) == (newer, {"n": 2})


def test_cache_is_never_anothers(queue: Queue) -> None:
    """Equal work of another user, or of another type, never answers."""
    user_id = uuid4()
    kit.register(queue.conn)
    kit.register(queue.conn, "sms")
    complete_one(queue, user_id)
    assert kit.request(queue.conn, uuid4(), p_params=PARAMS)["outcome"] == "created"
    assert kit.request(queue.conn, user_id, "sms", p_params=PARAMS)["outcome"] == "created"
    assert kit.request(queue.conn, user_id, p_params={**PARAMS, "more": 1})["outcome"] == "created"


def test_cache_off(queue: Queue) -> None:
    """p_force passes the cache; so does a TTL of 0, of the call or of the type; the call's own TTL wins."""
    user_id = uuid4()
    kit.register(queue.conn, p_cache_ttl="0", p_dedupe_window="0")
    complete_one(queue, user_id)
    assert kit.request(queue.conn, user_id, p_params=PARAMS)["outcome"] == "created"
    assert kit.request(queue.conn, user_id, p_params=PARAMS, p_cache_ttl="1 hour")["outcome"] == "cached"
    forced = kit.request(queue.conn, user_id, p_params=PARAMS, p_cache_ttl="1 hour", p_force=True)
    assert forced["outcome"] == "created"
    kit.register(queue.conn)
    assert (
        kit.request(queue.conn, user_id, p_params=PARAMS, p_cache_ttl="0", p_dedupe_window="0")["outcome"]
        == "created"
    )


def test_force_still_joins(queue: Queue) -> None:
    """p_force passes the cache alone: identical live work is joined."""
    user_id = uuid4()
    kit.register(queue.conn)
    job_id = kit.job_id(queue.conn, user_id, p_params=PARAMS)
    row = kit.request(queue.conn, user_id, p_params=PARAMS, p_force=True)
    assert (row["outcome"], row["job_id"]) == ("joined", job_id)


def test_dedupe_window_slides(clocked: Queue) -> None:
    """The window counts back from each request: 4:30 after the job joins, 5:30 after it does not."""
    user_id = uuid4()
    kit.register(clocked.conn)
    first = kit.job_id(clocked.conn, user_id, p_params=PARAMS)
    clocked.advance(5 * kit.MINUTE - JUST)
    assert kit.request(clocked.conn, user_id, p_params=PARAMS)["job_id"] == first
    clocked.advance(2 * JUST)
    second = kit.request(clocked.conn, user_id, p_params=PARAMS)
    assert second["outcome"] == "created"
    # No fixed slots: the second one, made in the middle of any slot, is joined for its own five minutes.
    clocked.advance(5 * kit.MINUTE - JUST)
    again = kit.request(clocked.conn, user_id, p_params=PARAMS)
    assert (again["outcome"], again["job_id"]) == ("joined", second["job_id"])


def test_dedupe_window_of_type_and_call(clocked: Queue) -> None:
    """The type's window holds unless the call names its own; 0 never joins."""
    user_id = uuid4()
    kit.register(clocked.conn, p_dedupe_window="1 hour")
    first = kit.job_id(clocked.conn, user_id, p_params=PARAMS)
    clocked.advance(30 * kit.MINUTE)
    assert kit.request(clocked.conn, user_id, p_params=PARAMS)["job_id"] == first
    made = kit.request(clocked.conn, user_id, p_params=PARAMS, p_dedupe_window="1 minute")
    assert made["outcome"] == "created"
    assert kit.request(clocked.conn, user_id, p_params=PARAMS, p_dedupe_window="0")["outcome"] == "created"


def test_the_oldest_twin_is_joined(queue: Queue) -> None:
    """Where several identical jobs are live, the one furthest ahead answers."""
    user_id = uuid4()
    kit.register(queue.conn)
    first = kit.job_id(queue.conn, user_id, p_params=PARAMS)
    assert kit.request(queue.conn, user_id, p_params=PARAMS, p_dedupe_window="0")["job_id"] != first
    assert kit.request(queue.conn, user_id, p_params=PARAMS)["job_id"] == first


def test_a_job_that_is_due_later_is_no_twin(clocked: Queue) -> None:
    """Who wants the work now, or tomorrow, gets a job of then, and joins only what is due by then."""
    conn, user_id = clocked.conn, uuid4()
    kit.register(conn)

    def ask(when: timedelta | None) -> kit.Row:
        due = None if when is None else kit.value(conn, "SELECT streamvibe.now() + %s", when)
        return kit.request(conn, user_id, p_params={"n": 1}, p_scheduled_for=due)

    next_year, tomorrow, now = ask(300 * kit.DAY), ask(kit.DAY), ask(None)
    assert {row["outcome"] for row in (next_year, tomorrow, now)} == {"created"}
    assert [ask(when)["job_id"] for when in (None, kit.HOUR)] == [now["job_id"]] * 2
    kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[now["job_id"]])
    assert ask(2 * kit.DAY)["job_id"] == tomorrow["job_id"]
    assert ask(301 * kit.DAY)["job_id"] == next_year["job_id"]


def test_a_job_between_two_attempts_is_a_twin(clocked: Queue) -> None:
    """Its next attempt may be minutes away: the work is not begun a second time beside it."""
    conn, user_id = clocked.conn, uuid4()
    kit.register(conn)
    kit.worker(conn)
    first = kit.job_id(conn, user_id, p_params={"n": 1})
    [answer] = kit.fail(conn, kit.claim(conn), failure={**kit.ERROR, "retry_after_seconds": 200})
    assert answer["status"] == "pending"
    again = kit.request(conn, user_id, p_params={"n": 1})
    assert (again["outcome"], again["job_id"]) == ("joined", first)


def test_a_failed_job_that_waits_for_its_retry_is_no_twin(clocked: Queue) -> None:
    """Beyond five minutes it waits outside the user's live jobs: the work asked for again is a new job, and the retry
    stays outside until that has ended.
    """
    conn, user_id = clocked.conn, uuid4()
    kit.register(conn)
    kit.worker(conn, p_lease="1 day")
    first = kit.job_id(conn, user_id, p_params={"n": 1})
    [answer] = kit.fail(conn, kit.claim(conn), failure={**kit.ERROR, "retry_after_seconds": 400})
    assert answer["status"] == "failed"
    again = kit.request(conn, user_id, p_params={"n": 1})
    assert again["outcome"] == "created"
    clocked.advance(10 * kit.MINUTE)
    assert kit.call_one(conn, "retry_failed_jobs")["retry_failed_jobs"] == 0
    kit.complete(conn, kit.claim(conn))
    clocked.advance(2 * kit.MINUTE)
    assert kit.call_one(conn, "retry_failed_jobs")["retry_failed_jobs"] == 1
    assert kit.status(conn, first) == "pending"


def test_idempotency_key(clocked: Queue) -> None:
    """The same request with the same key is the same job for ever, live, completed or cancelled."""
    user_id = uuid4()
    conn = clocked.conn
    kit.register(conn)
    ask: kit.Row = {"p_params": PARAMS, "p_idempotency_key": "order-1"}
    first = kit.request(conn, user_id, **ask)
    clocked.advance(kit.DAY)
    again = kit.request(conn, user_id, **ask)
    assert (again["outcome"], again["job_id"], again["status"]) == ("joined", first["job_id"], "pending")
    kit.worker(conn)
    kit.complete(conn, kit.claim(conn), result={"n": 1})
    clocked.advance(kit.DAY)
    done = kit.request(conn, user_id, **ask, p_force=True)
    assert (done["outcome"], done["job_id"], done["result"]) == ("cached", first["job_id"], {"n": 1})
    other = kit.request(conn, user_id, p_params=PARAMS, p_idempotency_key="order-2")
    assert other["outcome"] == "created"
    kit.call(conn, "cancel_jobs", p_user_id=user_id, p_job_ids=[other["job_id"]])
    after = kit.request(conn, user_id, p_params=PARAMS, p_idempotency_key="order-2")
    assert (after["outcome"], after["job_id"], after["status"]) == ("joined", other["job_id"], "cancelled")


def test_idempotency_key_of_another_request(queue: Queue) -> None:
    """A key that was used for other params or another type is refused, naming the job it made."""
    user_id = uuid4()
    kit.register(queue.conn)
    kit.register(queue.conn, "sms")
    job_id = kit.job_id(queue.conn, user_id, p_params=PARAMS, p_idempotency_key="k")
    for job_type, params in (("email", {"channel": "UC2"}), ("sms", PARAMS)):
        with kit.refused("SV012", "p_idempotency_key", "k") as caught:
            kit.request(queue.conn, user_id, job_type, p_params=params, p_idempotency_key="k")
        assert str(job_id) in str(caught.value.diag.message_hint)
    assert kit.value(queue.conn, "SELECT count(*) FROM public.job_queue") == 1


def test_idempotency_keys_are_each_users_own(queue: Queue) -> None:
    """Another user's key means nothing."""
    kit.register(queue.conn)
    made = {kit.job_id(queue.conn, uuid4(), p_params=PARAMS, p_idempotency_key="k") for _ in range(3)}
    assert len(made) == 3


@pytest.mark.parametrize("window", ["p_dedupe_window", "p_cache_ttl"])
@pytest.mark.parametrize("length", ["-1 second", "10000000 years", "-10000000 years"])
def test_impossible_windows(queue: Queue, window: str, length: str) -> None:
    """A negative window, or one longer than time itself, is refused by name."""
    kit.register(queue.conn)
    with kit.refused("SV001", window):
        kit.request(queue.conn, uuid4(), **{window: length})
