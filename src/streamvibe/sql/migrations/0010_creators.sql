-- The platform's catalogue: creators and what they published, filled by the sync job types.
-- Read by service_role only until there are public endpoints; written by the owner's workers.

CREATE SCHEMA creators;
COMMENT ON SCHEMA creators IS 'StreamVibe platform: creators and their contents, synced from YouTube, Instagram and TikTok.';
REVOKE ALL ON SCHEMA creators FROM PUBLIC;
GRANT USAGE ON SCHEMA creators TO service_role;

CREATE TABLE creators.creator (
    platform            text        COLLATE "C" NOT NULL,
    platform_account_id text        COLLATE "C" NOT NULL,
    title               text        NOT NULL,
    handle              text,
    description         text        NOT NULL DEFAULT '',
    thumbnail_url       text,
    published_at        timestamptz,
    subscriber_count    bigint,
    video_count         bigint,
    view_count          bigint,
    created_at          timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at          timestamptz NOT NULL DEFAULT pg_catalog.now(),
    fetched_at          timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT creator_pkey PRIMARY KEY (platform, platform_account_id),
    CONSTRAINT creator_platform_known CHECK (platform IN ('youtube', 'instagram', 'tiktok')),
    CONSTRAINT creator_counts_not_negative
        CHECK (least(subscriber_count, video_count, view_count) >= 0)
);

COMMENT ON TABLE creators.creator IS 'One account of a creator on one platform.';
COMMENT ON COLUMN creators.creator.platform_account_id IS 'The platform''s own id: a YouTube channel id (UC...).';
COMMENT ON COLUMN creators.creator.subscriber_count IS 'NULL where the creator hides it.';
COMMENT ON COLUMN creators.creator.updated_at IS 'When a value of this row last changed.';
COMMENT ON COLUMN creators.creator.fetched_at IS 'When the platform was last asked.';

CREATE TABLE creators.content (
    platform            text        COLLATE "C" NOT NULL,
    platform_content_id text        COLLATE "C" NOT NULL,
    platform_account_id text        COLLATE "C" NOT NULL,
    title               text        NOT NULL,
    description         text        NOT NULL DEFAULT '',
    thumbnail_url       text,
    published_at        timestamptz,
    duration_seconds    integer,
    view_count          bigint,
    like_count          bigint,
    comment_count       bigint,
    available           boolean     NOT NULL DEFAULT true,
    created_at          timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at          timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT content_pkey PRIMARY KEY (platform, platform_content_id),
    CONSTRAINT content_creator_fkey
        FOREIGN KEY (platform, platform_account_id)
        REFERENCES creators.creator (platform, platform_account_id) ON DELETE CASCADE,
    CONSTRAINT content_numbers_not_negative
        CHECK (least(duration_seconds, view_count, like_count, comment_count) >= 0)
);

COMMENT ON TABLE creators.content IS 'One published item of a creator, such as a video.';
COMMENT ON COLUMN creators.content.duration_seconds IS '0 while a stream is live or upcoming; NULL where unknown.';
COMMENT ON COLUMN creators.content.like_count IS 'NULL where the creator hides it.';
COMMENT ON COLUMN creators.content.available IS
    'False once the platform no longer shows it: private, deleted or removed. The row and its last values stay.';
COMMENT ON COLUMN creators.content.updated_at IS
    'When a value of this row last changed. How fresh the values are is creator.fetched_at.';

-- A creator's contents: read whole by every sync, and the foreign key's own lookups.
CREATE INDEX idx_content_creator ON creators.content (platform, platform_account_id, available, published_at DESC);

ALTER TABLE creators.creator ENABLE ROW LEVEL SECURITY;
ALTER TABLE creators.content ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON creators.creator, creators.content FROM PUBLIC, anon, authenticated;
GRANT SELECT ON creators.creator, creators.content TO service_role;
CREATE POLICY service_role_reads ON creators.creator FOR SELECT TO service_role USING (true);
CREATE POLICY service_role_reads ON creators.content FOR SELECT TO service_role USING (true);

INSERT INTO streamvibe.job_type (name) VALUES ('sync_youtube') ON CONFLICT DO NOTHING;
