"""The platform's job types."""

from contextlib import aclosing
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_serializer

from streamvibe import Context, JobType, job_type
from streamvibe.creators.catalog import Catalog
from streamvibe.creators.connectors.youtube import GOOGLE_BASE_URL, MAX_VIDEOS, PAGE_SIZE, YouTube
from streamvibe.creators.connectors.youtube_data import PLATFORM, Channel, Page
from streamvibe.creators.connectors.youtube_errors import NotThereError


class SyncYouTubeParams(BaseModel):
    """What to sync.

    `social_account_id`: a channel id (UC...) or a handle (@name).
    `max_videos`: stop after so many, the newest first; None: all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # No commas or spaces: YouTube would read several ids. Handles may hold letters of any script.
    social_account_id: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^@?[\w.·-]+$")]
    max_videos: Annotated[int, Field(ge=1, le=MAX_VIDEOS)] | None = None

    @model_serializer
    def _without_defaults(self) -> dict[str, object]:
        # Jobs are the same when their params are: what Python leaves out must be what SQL leaves out.
        params: dict[str, object] = {"social_account_id": self.social_account_id}
        return params if self.max_videos is None else params | {"max_videos": self.max_videos}


class SyncYouTubeResult(BaseModel):
    """What a sync did. The same channel gives the same result until it changes.

    `videos_unavailable`: videos in the channel's list or in the catalogue that YouTube does not show, being
    private, deleted or removed. `quota_units`: what this attempt's calls cost. `pages`: pages listed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel_id: str
    title: str
    videos_synced: int
    videos_unavailable: int
    quota_units: int
    pages: int


def sync_youtube_job(
    *, base_url: str = GOOGLE_BASE_URL, api_key: str, catalog: Catalog
) -> JobType[SyncYouTubeParams, SyncYouTubeResult]:
    """The job type `sync_youtube`: copy a YouTube channel and its videos into the catalogue.

    `base_url` is Google's, or that of a server that speaks the same API. Every page is saved as it comes, so
    an attempt that fails half-way has not worked in vain, and a repeated one changes nothing twice.

    Fails for good when YouTube has no such channel or refuses the key; waits for the next reset when the
    day's quota is spent; is retried when YouTube is slow, broken or asks for patience.
    """

    @job_type("sync_youtube")
    async def sync_youtube(ctx: Context, params: SyncYouTubeParams) -> SyncYouTubeResult:
        async with YouTube(base_url=base_url, api_key=api_key) as youtube:
            return await _Sync(ctx, youtube, catalog).run(params)

    return sync_youtube


class _Sync:
    """One attempt at one channel."""

    def __init__(self, ctx: Context, youtube: YouTube, catalog: Catalog) -> None:
        self._ctx = ctx
        self._youtube = youtube
        self._catalog = catalog
        self._shown: set[str] = set()
        self._hidden: set[str] = set()
        self._pages = 0

    async def run(self, params: SyncYouTubeParams) -> SyncYouTubeResult:
        account = params.social_account_id
        self._ctx.log(f"Sync of {account} started", account=account, max_videos=params.max_videos)
        channel = await self._youtube.channel(account)
        await self._catalog.save_creator(channel.creator)
        await self._save_listed(channel, params.max_videos)
        if params.max_videos is None:
            await self._check_unlisted(channel)
        result = SyncYouTubeResult(
            channel_id=channel.creator.platform_account_id,
            title=channel.creator.title,
            videos_synced=len(self._shown),
            videos_unavailable=await self._count_unavailable(channel),
            quota_units=self._youtube.quota_units,
            pages=self._pages,
        )
        self._ctx.progress(1.0, f"{result.videos_synced} videos")
        self._ctx.log(f"Sync of {account} finished", **result.model_dump())
        return result

    async def _save_listed(self, channel: Channel, wanted: int | None) -> None:
        if channel.uploads_playlist is None:
            self._ctx.log("The channel has no list of uploads", level="warning")
            return
        try:
            async with aclosing(self._youtube.uploads(channel.uploads_playlist)) as pages:
                async for page in pages:
                    self._ctx.raise_if_cancelled()
                    if not await self._save_page(channel, page, wanted):
                        return
        except NotThereError as error:
            # YouTube has no uploads playlist for a channel without public videos.
            if error.reason != "playlistNotFound" or channel.creator.video_count != 0:
                raise
            self._ctx.log("The channel has no public videos", level="warning")

    async def _save_page(self, channel: Channel, page: Page, wanted: int | None) -> bool:
        """Save a listed page; False when that is as many videos as are wanted."""
        self._pages += 1
        room = None if wanted is None else wanted - len(self._shown) - len(self._hidden)
        await self._save(channel, page.video_ids[:room])
        self._report(page.total, wanted)
        if page.next_token is not None and self._pages * PAGE_SIZE >= MAX_VIDEOS:
            self._ctx.log(f"Only the newest {MAX_VIDEOS} videos are listed", level="warning")
        return room is None or room > len(page.video_ids)

    async def _save(self, channel: Channel, video_ids: tuple[str, ...]) -> None:
        videos = await self._youtube.videos(video_ids)
        await self._catalog.save_contents(channel.creator, videos)
        shown = {video.platform_content_id for video in videos}
        hidden = set(video_ids) - shown
        await self._catalog.hide_contents(PLATFORM, hidden)
        self._shown |= shown
        self._hidden |= hidden

    async def _check_unlisted(self, channel: Channel) -> None:
        """Ask for the videos saved earlier that were not listed now: absence from the list proves nothing.

        YouTube lists at most MAX_VIDEOS, and lists of a channel that uploads meanwhile may skip some.
        """
        known = await self._catalog.known_contents(channel.creator)
        unlisted = sorted(v for v, available in known.items() if available and v not in self._shown)
        for start in range(0, len(unlisted), PAGE_SIZE):
            self._ctx.raise_if_cancelled()
            await self._save(channel, tuple(unlisted[start : start + PAGE_SIZE]))
        if unlisted:
            gone = len(self._hidden.intersection(unlisted))
            self._ctx.log(
                f"{len(unlisted)} saved videos were not listed, {gone} of them are gone", level="warning"
            )

    async def _count_unavailable(self, channel: Channel) -> int:
        known = await self._catalog.known_contents(channel.creator)
        return len(self._hidden.union(v for v, available in known.items() if not available))

    def _report(self, total: int | None, wanted: int | None) -> None:
        done = len(self._shown) + len(self._hidden)
        total = max(done, total or 0) if wanted is None else min(max(done, total or 0), wanted)
        self._ctx.progress(done / total if total else 0.0, f"{done} of {total} videos")
        self._ctx.log(
            f"Page {self._pages}: {done} of {total} videos",
            page=self._pages,
            videos_shown=len(self._shown),
            videos_hidden=len(self._hidden),
            quota_units=self._youtube.quota_units,
        )
