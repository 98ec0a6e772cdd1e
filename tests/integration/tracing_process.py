"""An application with OpenTelemetry's SDK in a process of its own: asks for jobs, or runs them, and prints its spans.

tracing_process.py DSN ACTION [ARGUMENT...]: one JSON document, {"result": ..., "spans": [...]}.
"""

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streamvibe import Client, Context, PermanentError, SyncClient, Worker, job_type

USER = UUID("018f0000-0000-7000-8000-000000000001")
Params = dict[str, Any]
tracer = trace.get_tracer("app")


def _inside() -> None:
    with tracer.start_as_current_span("inside"):
        pass


@job_type("greet")
async def greet(ctx: Context, params: Params) -> str:
    _inside()
    return "hello"


@job_type("greet_in_thread")
def greet_in_thread(ctx: Context, params: Params) -> str:
    _inside()
    return "hello"


@job_type("greet_in_transaction", transactional=True)
async def greet_in_transaction(ctx: Context, params: Params) -> str:
    _inside()
    return "hello"


@job_type("stumble", backoff_base=timedelta(0))
async def stumble(ctx: Context, params: Params) -> str:
    if ctx.attempt == 1:
        raise ValueError("the first time")
    raise PermanentError("the second time")


JOB_TYPES = [greet, greet_in_thread, greet_in_transaction, stumble]


async def ask(dsn: str, *names: str) -> list[list[str]]:
    """Request these at once, inside a span of the application; outcomes and ids."""
    async with Client(dsn) as client:
        await client.register(*JOB_TYPES)
        with tracer.start_as_current_span("click"):
            requests = [client.request(name, {}, user_id=USER) for name in names]
            return [[str(asked.outcome), str(asked.job_id)] for asked in await asyncio.gather(*requests)]


def ask_sync(dsn: str, name: str) -> list[list[str]]:
    """The same without an event loop, and outside of any span."""
    with SyncClient(dsn) as client:
        client.register(*JOB_TYPES)
        asked = client.request(name, {}, user_id=USER)
        return [[str(asked.outcome), str(asked.job_id)]]


async def ask_for_many(dsn: str) -> int:
    """Five in two chunks."""
    async with Client(dsn) as client:
        await client.register(*JOB_TYPES)
        jobs = [{"user_id": USER, "job_type": "greet", "params": {"n": n}} for n in range(5)]
        return len(await client.create_many(jobs, chunk_size=3))


async def ask_in_vain(dsn: str) -> str:
    """A type that nobody knows."""
    async with Client(dsn) as client:
        try:
            await client.request("nothing", {}, user_id=USER)
        except Exception as error:
            return type(error).__name__
    return ""


async def work(dsn: str) -> int:
    """Run everything that is due."""
    return await Worker(dsn, JOB_TYPES).run_until_idle()


def _shown(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{context.trace_id:032x}",
        "span": f"{context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "links": [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links],
        "status": span.status.status_code.name,
        "description": span.status.description,
        "attributes": dict(span.attributes or {}),
    }


def main() -> None:
    """Do it, and print what was traced."""
    dsn, action, *arguments = sys.argv[1:]
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    actions: dict[str, Any] = {
        function.__name__: function for function in (ask, ask_sync, ask_for_many, ask_in_vain, work)
    }
    found = actions[action](dsn, *arguments)
    result = asyncio.run(found) if asyncio.iscoroutine(found) else found
    print(json.dumps({"result": result, "spans": [_shown(span) for span in exporter.get_finished_spans()]}))


if __name__ == "__main__":
    main()
