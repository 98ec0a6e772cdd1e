"""What a worker can be made of."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from streamvibe.errors import InvalidArgument
from streamvibe.jobtype import JobType


def check(
    by_name: Mapping[str, JobType[Any, Any]],
    listed: Sequence[JobType[Any, Any]],
    concurrency: int,
    poll_interval: timedelta,
    transactions: int,
) -> None:
    """Raise InvalidArgument, naming the argument, for what no worker can work with."""
    if not listed:
        raise InvalidArgument(
            "a worker needs job types", field="job_types", received="none", fix="Pass at least one."
        )
    if len(by_name) < len(listed):
        raise InvalidArgument(
            "two job types have the same name",
            field="job_types",
            received=", ".join(job_type.name for job_type in listed),
            fix="Give each its own name.",
        )
    if concurrency < 1 or concurrency > 10_000:
        raise InvalidArgument(
            "concurrency is out of range",
            field="concurrency",
            received=str(concurrency),
            fix="Use 1 to 10000.",
        )
    if transactions < 1 or transactions > 100:
        raise InvalidArgument(
            "transactions is out of range",
            field="transactions",
            received=str(transactions),
            fix="Use 1 to 100; each is a connection.",
        )
    if poll_interval <= timedelta(0):
        raise InvalidArgument(
            "poll_interval is out of range",
            field="poll_interval",
            received=str(poll_interval),
            fix="Use more than 0 seconds.",
        )
