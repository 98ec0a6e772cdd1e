"""register_job_type and set_user_limit: settings that requests obey."""

from typing import Any
from uuid import uuid4

import pytest
from tests.sql import kit
from tests.sql.conftest import Queue


def test_defaults(queue: Queue) -> None:
    """What a type gets when only its name is given."""
    kit.register(queue.conn)
    [row] = kit.query(queue.conn, "SELECT * FROM streamvibe.job_type")
    for not_a_setting in ("registered_at", "cleaned_until", "cleaned_id", "lines_cleaned_id"):
        row.pop(not_a_setting)
    assert row == {
        "name": "email",
        "cache_ttl": kit.HOUR,
        "dedupe_window": 5 * kit.MINUTE,
        "max_attempts": 3,
        "backoff_base": 2 * kit.SECOND,
        "backoff_max": kit.HOUR,
        "timeout": 30 * kit.MINUTE,
        "max_live_jobs": None,
        "priority": 5,
        "expires_after": kit.DAY,
        "retention": 7 * kit.DAY,
        "log_retention": 30 * kit.DAY,
        "max_params_bytes": 1 << 20,
    }


def test_again(queue: Queue) -> None:
    """Registering again changes what is given and sets the rest back; the same settings write nothing."""
    kit.register(queue.conn, p_priority=9, p_max_attempts=1)
    kit.register(queue.conn, p_max_attempts=7)
    [row] = kit.query(queue.conn, "SELECT priority, max_attempts, xmin::text FROM streamvibe.job_type")
    assert (row["priority"], row["max_attempts"]) == (5, 7)
    kit.register(queue.conn, p_max_attempts=7)
    assert kit.query(queue.conn, "SELECT priority, max_attempts, xmin::text FROM streamvibe.job_type") == [
        row
    ]


SETTINGS: dict[str, tuple[list[Any], list[Any]]] = {
    "p_name": (["a", "a" * 63, "sync.you-tube_2"], [None, "", "A", "1a", "a b", "a" * 64, "é", "a\n"]),
    "p_cache_ttl": (["0", "100 years"], [None, "-1 second", "101 years"]),
    "p_dedupe_window": (["0", "100 years"], [None, "-1 second", "101 years"]),
    "p_max_attempts": ([1, 100], [None, 0, 101, -1]),
    "p_backoff_base": (["0", "1 hour"], [None, "-1 second", "2 hours"]),
    "p_backoff_max": (["2 seconds", "1 year"], [None, "1 second", "2 years"]),
    "p_timeout": (["1 ms", "1 day"], [None, "0", "-1 second"]),
    "p_max_live_jobs": ([None, 0, 2147483647], [-1]),
    "p_priority": ([0, 9], [None, -1, 10]),
    "p_expires_after": ([None, "1 ms", "100 years"], ["0", "-1 second", "101 years"]),
    "p_retention": (["1 second"], [None, "0"]),
    "p_log_retention": (["1 second"], [None, "0"]),
    "p_max_params_bytes": ([2, 104857600], [None, 1, 104857601]),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_bounds(queue: Queue, setting: str) -> None:
    """Each setting takes the ends of its range, and beyond them is refused by name with nothing changed."""
    good, bad = SETTINGS[setting]
    for value in good:
        kit.call(queue.service, "register_job_type", **{"p_name": "email", setting: value})
    before = kit.query(queue.conn, "SELECT * FROM streamvibe.job_type")
    for value in bad:
        # A base above the maximum is the maximum's fault.
        field = "p_backoff_max" if (setting, value) == ("p_backoff_base", "2 hours") else setting
        with kit.refused("SV001", field):
            kit.call(queue.service, "register_job_type", **{"p_name": "email", setting: value})
    assert kit.query(queue.conn, "SELECT * FROM streamvibe.job_type") == before


def test_user_limit(queue: Queue) -> None:
    """A user's own limit, raised, lowered to nothing, and back to the default."""
    user_id = uuid4()
    kit.register(queue.conn)
    for limit, allowed in ((12, 12), (0, 0), (None, 10)):
        queue.conn.execute("DELETE FROM public.job_queue")
        kit.call(queue.service, "set_user_limit", p_user_id=user_id, p_max_live_jobs=limit)
        for _ in range(allowed):
            kit.job_id(queue.conn, user_id)
        with kit.refused("SV005") as caught:
            kit.request(queue.conn, user_id)
        assert f"most {allowed} in all" in str(caught.value.diag.message_hint)


def test_user_limit_refused(queue: Queue) -> None:
    """A limit needs a user and a number that is not negative."""
    with kit.refused("SV001", "p_user_id", "NULL"):
        kit.call(queue.service, "set_user_limit", p_user_id=None, p_max_live_jobs=1)
    with kit.refused("SV001", "p_max_live_jobs", "-1"):
        kit.call(queue.service, "set_user_limit", p_user_id=uuid4(), p_max_live_jobs=-1)
