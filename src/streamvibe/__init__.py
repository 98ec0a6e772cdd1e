"""Background jobs for multi-tenant apps, inside the PostgreSQL you already run.

The public names are below; the rest of the errors is in ``streamvibe.errors``. Each is imported when it is
first used, so that importing the package (pytest does, for ``streamvibe.testing``, in every run) costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamvibe.client import Client, SyncClient
    from streamvibe.errors import (
        JobCancelled,
        JobFailed,
        JobNotFound,
        LimitReached,
        PermanentError,
        RetryLater,
        StreamVibeError,
        WaitTimeout,
    )
    from streamvibe.jobtype import Context, JobType, job_type
    from streamvibe.model import Job, JobResult, JobStatus, Outcome, Page, Requested
    from streamvibe.worker import Worker

__all__ = [
    "Client",
    "Context",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobResult",
    "JobStatus",
    "JobType",
    "LimitReached",
    "Outcome",
    "Page",
    "PermanentError",
    "Requested",
    "RetryLater",
    "StreamVibeError",
    "SyncClient",
    "WaitTimeout",
    "Worker",
    "job_type",
]

_HOMES = {
    "client": ("Client", "SyncClient"),
    "errors": (
        "JobCancelled",
        "JobFailed",
        "JobNotFound",
        "LimitReached",
        "PermanentError",
        "RetryLater",
        "StreamVibeError",
        "WaitTimeout",
    ),
    "jobtype": ("Context", "JobType", "job_type"),
    "model": ("Job", "JobResult", "JobStatus", "Outcome", "Page", "Requested"),
    "worker": ("Worker",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
