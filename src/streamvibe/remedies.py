"""What to do about an error that SQL raised, in the words of Python: by code and parameter, never by message.

The hint that comes from the database speaks to somebody who writes SQL. Where that fits Python too (numbers,
sizes, choices), it is kept.
"""

import re

_REMEDIES = {
    ("SV001", "cache_ttl"): "Use a timedelta of 0 (off) to 100 years, or None for what the job type says",
    ("SV001", "dedupe_window"): "Use a timedelta of 0 (off) to 100 years, or None for what the job type says",
    (
        "SV001",
        "duty",
    ): "See which there are: client.maintenance(). They become known when maintenance first runs",
    ("SV001", "log_level"): "Use debug, info, warning or error, or None for all",
    ("SV001", "max_live_jobs"): "Use 0 or more, or None for the default",
    (
        "SV001",
        "scheduled_for",
    ): "Use a time within a year (the service: before the year 9999), or None for now",
    ("SV001", "search"): "Use at least one word that is not as common as the or and, or None",
    ("SV001", "metadata"): 'Name a key and its value, like {"channel": "UC1"}, or pass None',
    ("SV001", "params"): 'Pass params, result or both, like {"channel": "UC1"}; list_by_cursor lists all',
    ("SV001", "result"): 'Name a key and its value, like {"channel": "UC1"}, or pass None',
    ("SV001", "status"): "Use pending, processing, completed, failed or cancelled, or None for all",
    (
        "SV002",
        "job_type",
    ): "Check the spelling, or register it: client.register(job_type), or start a worker that declares it",
    ("SV004", "enforce_limit"): "Leave enforce_limit out",
    ("SV004", "user_id"): "Pass the id of the user who is signed in, or call as service_role",
    (
        "SV014",
        "cursor",
    ): "Pass next_cursor of the page before, unchanged and with the same filters, or None for the first page",
    ("SV015", "offset"): "Use list_by_cursor, which costs the same at any depth",
}

#: Parameters of Python that SQL calls something else.
_RENAMED = {"log_level": "level"}


def in_python(
    code: str, column: str | None, message: str, hint: str | None
) -> tuple[str | None, str, str | None]:
    """The field, message and fix of an SQL error as Python calls them: ``limit``, not ``p_limit``."""
    if column is None:
        return None, message, hint
    field = column.removeprefix("p_")
    fix = _REMEDIES.get((code, parameter(field)), hint)
    field = _RENAMED.get(field, field)
    # A message may name a second parameter.
    message = re.sub(r"\bp_(?=[a-z])", "", _renamed(message, column, field))
    return field, message, fix and _renamed(fix, column, field)


def parameter(field: str) -> str:
    """The parameter that a field is, or is part of an element of: ``job_type`` of ``jobs[4].job_type``."""
    return re.sub(r"^.*\]\.", "", field)


def _renamed(text: str, column: str, field: str) -> str:
    # The hint about a large document names the setting beside it.
    return text.replace(column, field).replace("p_max_params_bytes", "max_params_bytes")
