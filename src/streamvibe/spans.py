"""OpenTelemetry spans: who asks for a job (producer), and each attempt to run it (consumer), in one trace.

The W3C trace context of the request is kept with the job (``traceparent``) and claimed with it. Names and attributes
are those of the semantic conventions for messaging:
https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
Only the API is used: what becomes of spans is for the application's SDK. ``streamvibe.tracing`` imports this when
there is one.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streamvibe.tracing import Asking

SYSTEM = "streamvibe"
#: How many of the jobs of one claim their span is linked to; more than the SDK's usual limit it would drop.
MOST_LINKS = 128

_w3c = TraceContextTextMapPropagator()
# A proxy until the application installs a provider, however late.
_tracer = trace.get_tracer("streamvibe")


class _Asking(Asking):
    def __init__(self, span: Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _w3c.inject(carrier, trace.set_span_in_context(span))
        self.traceparent = carrier.get("traceparent")

    def answered(self, outcome: str, job_id: object, traceparent: str | None) -> None:
        self._span.set_attribute("messaging.message.id", str(job_id))
        self._span.set_attribute("streamvibe.outcome", outcome)
        if traceparent is not None and outcome != "created":
            context = _span_context(traceparent)
            if context.is_valid:
                self._span.add_link(context)

    def created(self, count: int) -> None:
        self._span.set_attribute("messaging.batch.message_count", count)


@contextmanager
def asking(job_type: object) -> Iterator[Asking]:
    """The span of a request, current in this block; see ``streamvibe.tracing``."""
    name = None if job_type is None else str(getattr(job_type, "name", job_type))
    with _tracer.start_as_current_span(
        f"send {name}" if name else "send",
        kind=SpanKind.PRODUCER,
        attributes=_attributes("send", "send", name),
    ) as span:
        yield _Asking(span)


@contextmanager
def processing(job_type: str, job_id: str, attempt: int, traceparent: str | None) -> Iterator[Span]:
    """The span of an attempt to run a job, current in this block: a child of the request's."""
    with _tracer.start_as_current_span(
        f"process {job_type}",
        context=_context(traceparent),
        kind=SpanKind.CONSUMER,
        attributes={
            **_attributes("process", "process", job_type),
            "messaging.message.id": job_id,
            "streamvibe.attempt": attempt,
        },
    ) as span:
        yield span


def ended(span: Span, outcome: str, kind: str | None, message: str | None) -> None:
    """How an attempt ended: completed, failed (with the failure's kind and message) or released."""
    span.set_attribute("streamvibe.outcome", outcome)
    if kind is not None:
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR, message))


def claimed(started_ns: int, jobs: Iterable[tuple[str, str | None]]) -> None:
    """A claim that returned jobs, of which these are type and trace context, has just ended."""
    found = list(jobs)
    job_types = {job_type for job_type, _ in found}
    one = job_types.pop() if len(job_types) == 1 else None
    contexts = (_span_context(traceparent) for _, traceparent in found[:MOST_LINKS] if traceparent)
    span = _tracer.start_span(
        f"claim {one}" if one else "claim",
        context=Context(),
        kind=SpanKind.CLIENT,
        attributes={**_attributes("claim", "receive", one), "messaging.batch.message_count": len(found)},
        links=[Link(context) for context in contexts if context.is_valid],
        start_time=started_ns,
    )
    span.end()


def _attributes(name: str, kind: str, job_type: str | None) -> dict[str, Any]:
    found = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
    }
    if job_type is not None:
        found["messaging.destination.name"] = job_type
    return found


def _context(traceparent: str | None) -> Context:
    """Of who asked; without one, or with one that cannot be read, a trace of its own begins."""
    return _w3c.extract({"traceparent": traceparent} if traceparent else {}, Context())


def _span_context(traceparent: str) -> trace.SpanContext:
    return trace.get_current_span(_context(traceparent)).get_span_context()
