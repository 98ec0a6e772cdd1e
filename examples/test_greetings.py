from datetime import timedelta
from uuid import uuid4

from quickstart import Greeting, greet

from streamvibe import Context, RetryLater, job_type
from streamvibe.testing import TestDatabase


def test_a_greeting_is_made(streamvibe_database: TestDatabase) -> None:
    with streamvibe_database.sync_client() as client:
        client.register(greet)
        asked = client.request(greet, Greeting(name="Ada"), user_id=uuid4())
        streamvibe_database.run_jobs([greet])
        assert client.result(asked.job_id, job_type=greet).result.text == "Hello, Ada!"
        assert [line.message for line in client.logs(asked.job_id).items] == ["Greeting"]


@job_type("fetch", max_attempts=2)
def fetch(ctx: Context, params: dict[str, str]) -> str:
    if ctx.attempt == 1:
        raise RetryLater(after=3600, message="the quota is spent")
    return "fetched"


def test_a_job_comes_back_when_its_time_has_come(streamvibe_database: TestDatabase) -> None:
    with streamvibe_database.sync_client() as client:
        client.register(fetch)
        client.request(fetch, user_id=uuid4())
    [first] = streamvibe_database.run_jobs([fetch])
    assert (first.status, first.failure_kind) == ("failed", "retry_later")
    assert streamvibe_database.run_jobs([fetch]) == []

    streamvibe_database.move_clock(timedelta(hours=1))
    [second] = streamvibe_database.run_jobs([fetch])
    assert (second.status, second.result) == ("completed", "fetched")
