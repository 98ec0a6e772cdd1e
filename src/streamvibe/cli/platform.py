"""The platform's own job types, ready to run: with Google's YouTube, or without a key a local one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from streamvibe.config import Settings
from streamvibe.creators.catalog import Catalog
from streamvibe.creators.connectors.youtube import GOOGLE_BASE_URL
from streamvibe.creators.jobs import sync_youtube_job
from streamvibe.creators.local_youtube import LocalYouTube
from streamvibe.db.pool import AsyncPool
from streamvibe.jobtype import JobType


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform's job types, and where their YouTube is."""

    job_types: list[JobType[Any, Any]]
    youtube_url: str
    is_local: bool


@asynccontextmanager
async def platform(dsn: str, settings: Settings, *, delay_seconds: float = 0.0) -> AsyncIterator[Platform]:
    """The platform as long as the block runs. ``delay_seconds``: how long the local YouTube takes to answer."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(AsyncPool(dsn, application_name="streamvibe catalogue"))
        if settings.youtube_api_key is not None:
            url, key = GOOGLE_BASE_URL, settings.youtube_api_key.get_secret_value()
        else:
            local = stack.enter_context(LocalYouTube(delay_seconds=delay_seconds))
            url, key = local.base_url, local.api_key
        job_type = sync_youtube_job(base_url=url, api_key=key, catalog=Catalog(pool))
        yield Platform([job_type], url, settings.youtube_api_key is None)
