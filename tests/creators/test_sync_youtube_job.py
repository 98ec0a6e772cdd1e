"""sync_youtube as a job: requested, run by a worker, and what becomes of each way it can fail."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from tests.support.databases import Database

from streamvibe import Client, Job, JobType, Outcome, Worker
from streamvibe.creators.catalog import Catalog
from streamvibe.creators.connectors.youtube_errors import quota_reset
from streamvibe.creators.jobs import SyncYouTubeParams, SyncYouTubeResult, sync_youtube_job
from streamvibe.creators.local_youtube import LocalYouTube

BIG = "@harbourlanekitchen"
USER = UUID(int=7)


@pytest.fixture
async def client(database: Database) -> AsyncIterator[Client]:
    async with Client(database.dsn) as connected:
        yield connected


def job_of(server: LocalYouTube, catalog: Catalog) -> JobType[SyncYouTubeParams, SyncYouTubeResult]:
    return sync_youtube_job(base_url=server.base_url, api_key=server.api_key, catalog=catalog)


async def run(
    database: Database, client: Client, catalog: Catalog, server: LocalYouTube, account: str
) -> Job:
    """Request a sync, run what is due, return the job as it then stands."""
    job = job_of(server, catalog)
    asked = await client.request(job, {"social_account_id": account}, user_id=USER)
    await Worker(database.dsn, [job]).run_until_idle()
    return await client.get(asked.job_id, user_id=USER)


async def test_a_sync_is_requested_joined_run_logged_and_cached(
    database: Database, client: Client, catalog: Catalog
) -> None:
    """Asked twice it runs once; its result is typed, its log tells the pages; a third request is answered at once."""
    params = SyncYouTubeParams(social_account_id=BIG)
    with LocalYouTube() as server:
        job = job_of(server, catalog)
        first = await client.request(job, params, user_id=USER)
        second = await client.request(job, params, user_id=USER)
        assert (second.outcome, second.job_id) == (Outcome.JOINED, first.job_id)
        assert await Worker(database.dsn, [job]).run_until_idle() == 1
        done = await client.wait(first, user_id=USER)
        third = await client.request(job, params, user_id=USER)
        units = server.units_used
    assert isinstance(done.result, SyncYouTubeResult)
    assert (done.result.videos_synced, done.result.quota_units) == (250, 11)
    assert (third.outcome, third.result) == (Outcome.CACHED, done.result) and units == 11
    page = await client.logs(first.job_id, user_id=USER)
    assert [line.message for line in page.items][::-1] == [
        "Sync of @harbourlanekitchen started",
        *(f"Page {n}: {n * 50} of 250 videos" for n in range(1, 6)),
        "Sync of @harbourlanekitchen finished",
    ]
    assert (await client.logs(first.job_id, user_id=uuid4())).items == []
    assert database.fetch_value("SELECT count(*) FROM creators.content") == 250


async def test_sql_and_python_ask_for_the_same_job(
    database: Database, client: Client, catalog: Catalog
) -> None:
    """Params that leave out max_videos are identical from both sides: the second request joins the first."""
    with LocalYouTube() as server:
        asked = await client.request(
            job_of(server, catalog), SyncYouTubeParams(social_account_id=BIG), user_id=USER
        )
    cursor = database.as_user(USER).execute(
        "SELECT outcome, job_id FROM request_job(%s, 'sync_youtube', %s)",
        (USER, f'{{"social_account_id": "{BIG}"}}'),
    )
    assert cursor.fetchall() == [("joined", asked.job_id)]


async def test_no_such_channel_ends_the_job(database: Database, client: Client, catalog: Catalog) -> None:
    """An unknown channel fails for good after one attempt; the message says what to give."""
    with LocalYouTube() as server:
        job = await run(database, client, catalog, server, "UCnone")
    assert (job.status, job.failure_kind, job.retry_at) == ("failed", "permanent", None)
    assert job.error_message is not None and "UCnone" in job.error_message
    assert "starts with UC" in job.error_message


async def test_a_spent_quota_waits_for_the_reset(
    database: Database, client: Client, catalog: Catalog
) -> None:
    """The job comes back a minute after the next midnight Pacific, keeping what it saved."""
    before = datetime.now(UTC)
    with LocalYouTube(quota_units=5) as server:
        job = await run(database, client, catalog, server, BIG)
    expected = {quota_reset(now) + timedelta(minutes=1) for now in (before, datetime.now(UTC))}
    assert job.failure_kind == "retry_later" and job.retry_at is not None
    assert any(abs(job.retry_at - moment) < timedelta(minutes=2) for moment in expected)
    assert database.fetch_value("SELECT count(*) FROM creators.content") == 100


async def test_trouble_is_tried_again(
    database: Database, client: Client, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    """A 503 fails one attempt; the next one, after the backoff, completes the job."""
    with LocalYouTube(fail_next=1) as server:
        # Full jitter may make the backoff so short that the first run tries again already.
        job = await run(database, client, catalog, server, BIG)
        database.advance_clock(timedelta(hours=2))
        await Worker(database.dsn, [job_of(server, catalog)]).run_until_idle()
        ended = await client.get(job.id, user_id=USER)
    assert (ended.status, ended.retry_count, ended.result["videos_synced"]) == ("completed", 1, 250)
    assert caplog.text.count("status 503") == 1


async def test_a_refused_key_is_explained_and_not_shown(
    database: Database, client: Client, catalog: Catalog
) -> None:
    """The failed job names the setting; neither it nor its log holds the key."""
    with LocalYouTube() as server:
        job = sync_youtube_job(base_url=server.base_url, api_key="AIzaWrongKey", catalog=catalog)
        asked = await client.request(job, {"social_account_id": BIG}, user_id=USER)
        await Worker(database.dsn, [job]).run_until_idle()
    ended = await client.get(asked.job_id, user_id=USER)
    assert (ended.status, ended.failure_kind) == ("failed", "permanent")
    assert "STREAMVIBE_YOUTUBE_API_KEY" in str(ended.error_message)
    for table in ("job_queue", "job_log"):
        shown = database.fetch_value(f"SELECT string_agg(t::text, '') FROM public.{table} t")
        assert "AIzaWrongKey" not in shown
