"""Whether anybody wants spans, and what a request is without them. They are made in ``streamvibe.spans``.

OpenTelemetry's API is imported only in processes that have it already: an application that installs a tracer provider
has imported it, and everybody else is spared the tenth of a second that it takes.
"""

import sys
from contextlib import AbstractContextManager, nullcontext


class Asking:
    """A request under way. ``traceparent``: what goes with it; None while nobody wants spans."""

    traceparent: str | None = None

    def answered(self, outcome: str, job_id: object, traceparent: str | None) -> None:
        """What became of it; of a joined or cached job also its own trace context."""

    def created(self, count: int) -> None:
        """So many jobs were made."""


_NOT_TRACED: AbstractContextManager[Asking] = nullcontext(Asking())


def is_on() -> bool:
    """Whether the application has installed a tracer provider."""
    api = sys.modules.get("opentelemetry.trace")
    # Another thread may just be importing it.
    provider = getattr(api, "get_tracer_provider", None)
    if api is None or provider is None:
        return False
    return type(provider()) not in (api.ProxyTracerProvider, api.NoOpTracerProvider)


def asking(job_type: object) -> AbstractContextManager[Asking]:
    """The span of a request, current in this block. ``job_type``: a job type or its name; None: of many jobs.

    An error ends it as failed.
    """
    if not is_on():
        return _NOT_TRACED
    from streamvibe import spans

    return spans.asking(job_type)
