"""What makes two jobs the same work is user, type and params themselves: their hash only finds them."""

from uuid import uuid4

from tests.sql import kit
from tests.support.databases import Database

# Every job collides with every other.
COLLIDING = """
CREATE OR REPLACE FUNCTION streamvibe.identity_hash(p_user_id uuid, p_job_type text, p_params jsonb) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT 1::bigint'
"""


def test_equal_hashes_are_not_enough(database: Database) -> None:
    """Jobs whose hashes collide are never joined or answered from the cache for each other."""
    conn = database.connect()
    conn.execute(COLLIDING.encode())
    for name in ("email", "sms"):
        kit.register(conn, name)
    kit.worker(conn)
    user_id = uuid4()
    others = [(uuid4(), "email", {"a": 1}), (user_id, "sms", {"a": 1}), (user_id, "email", {"a": 1, "b": 2})]
    live = kit.job_id(conn, user_id, p_params={"a": 1})
    made = [kit.request(conn, user, kind, p_params=params) for user, kind, params in others]
    assert [row["outcome"] for row in made] == ["created"] * 3
    assert kit.request(conn, user_id, p_params={"a": 1})["job_id"] == live
    for row in made:
        kit.call(
            conn,
            "cancel_jobs",
            p_user_id=kit.stored(conn, row["job_id"])["user_id"],
            p_job_ids=[row["job_id"]],
        )
    assert kit.complete(conn, kit.claim(conn, limit=9), result={"secret": 1}) == []
    for user, kind, params in others:
        asked: kit.Row = {"p_user_id": user, "p_job_type": kind, "p_params": params}
        assert kit.call(conn, "get_cached_job_result", **asked) == []
        assert kit.call_one(conn, "request_job", **asked)["outcome"] == "created"
    assert kit.request(conn, user_id, p_params={"a": 1})["outcome"] == "cached"


def test_hash_of_equal_params(database: Database) -> None:
    """Equal params have equal hashes however they were written; other users, types and params have others."""
    conn = database.connect()
    hashes = kit.query(
        conn,
        """
        SELECT streamvibe.identity_hash(u::uuid, t, p::jsonb) AS h FROM (VALUES
            ('11111111-1111-4111-8111-111111111111', 'email', '{"a": 1, "b": 2.50}'),
            ('11111111-1111-4111-8111-111111111111', 'email', '{"b": 2.5, "a": 1.0}'),
            ('11111111-1111-4111-8111-111111111112', 'email', '{"a": 1, "b": 2.50}'),
            ('11111111-1111-4111-8111-111111111111', 'emails', '{"a": 1, "b": 2.50}'),
            ('11111111-1111-4111-8111-111111111111', 'email', '{"a": 1, "b": "2.50"}')) v(u, t, p)
        """,
    )
    first, same, *rest = (row["h"] for row in hashes)
    assert first == same
    assert len({first, *rest}) == 4
