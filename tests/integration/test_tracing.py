"""Spans of requests and attempts, with OpenTelemetry's own SDK: one trace from who asks to a handler elsewhere."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.sql import kit
from tests.support.cli import environment
from tests.support.databases import Database

from streamvibe import Client, tracing

SCRIPT = Path(__file__).with_name("tracing_process.py")
Span = dict[str, Any]


def run(database: Database, action: str, *arguments: str) -> tuple[Any, list[Span]]:
    """What the process's action returned, and its spans as they ended."""
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), database.dsn, action, *arguments],
        env=environment(None),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    return found["result"], found["spans"]


def named(spans: list[Span], name: str) -> list[Span]:
    """The spans of this name."""
    return [span for span in spans if span["name"] == name]


def link_to(span: Span) -> str:
    """A link to it."""
    return f"{span['trace']}-{span['span']}"


@pytest.mark.parametrize("name", ["greet", "greet_in_thread", "greet_in_transaction"])
def test_one_trace_from_the_click_to_the_handler(database18: Database, name: str) -> None:
    """The request is a child of the application's span, the attempt of the request, what the handler does of that;
    with the attributes of the conventions for messaging.
    """
    [[outcome, job_id]], asked = run(database18, "ask", name)
    assert outcome == "created"
    [click], [send] = named(asked, "click"), named(asked, f"send {name}")
    assert (send["kind"], send["trace"], send["parent"]) == ("PRODUCER", click["trace"], click["span"])
    assert send["attributes"] == {
        "messaging.system": "streamvibe",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": name,
        "messaging.message.id": job_id,
        "streamvibe.outcome": "created",
    }
    started, worked = run(database18, "work")
    assert started == 1
    [process], [inside] = named(worked, f"process {name}"), named(worked, "inside")
    assert (process["kind"], process["trace"], process["parent"]) == (
        "CONSUMER",
        click["trace"],
        send["span"],
    )
    assert (inside["trace"], inside["parent"]) == (click["trace"], process["span"])
    assert process["status"] == "UNSET"
    assert process["attributes"] == {
        "messaging.system": "streamvibe",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": name,
        "messaging.message.id": job_id,
        "streamvibe.attempt": 1,
        "streamvibe.outcome": "completed",
    }
    # Claims that returned nothing, of which there were some, have no span.
    [claim] = [span for span in worked if span["name"].startswith("claim")]
    assert (claim["kind"], claim["parent"], claim["links"]) == ("CLIENT", None, [link_to(send)])
    assert claim["trace"] != click["trace"]
    assert claim["attributes"]["messaging.operation.type"] == "receive"
    assert claim["attributes"]["messaging.batch.message_count"] == 1


def test_each_attempt_is_a_span_of_the_trace(database18: Database) -> None:
    """A failed one says which kind of failure it was."""
    _, asked = run(database18, "ask", "stumble")
    _, worked = run(database18, "work")
    [send] = named(asked, "send stumble")
    first, second = named(worked, "process stumble")
    for attempt, span in enumerate((first, second), 1):
        assert (span["trace"], span["parent"]) == (send["trace"], send["span"])
        assert span["attributes"]["streamvibe.attempt"] == attempt
        assert (span["status"], span["attributes"]["streamvibe.outcome"]) == ("ERROR", "failed")
    assert (first["attributes"]["error.type"], first["description"]) == (
        "error",
        "ValueError: the first time",
    )
    assert (second["attributes"]["error.type"], second["description"]) == ("permanent", "the second time")


def test_who_joins_is_linked_to_the_job_that_runs(database18: Database) -> None:
    """Live or from the cache, by either client: a link to who asked first, whose trace the job stays in."""
    [_, (outcome, job_id)], asked = run(database18, "ask", "greet_in_thread", "greet")
    assert outcome == "created"
    [first] = named(asked, "send greet")
    for action in ("ask", "ask_sync"):
        [[outcome, joined_id]], others = run(database18, action, "greet")
        assert (outcome, joined_id) == ("joined", job_id)
        [second] = named(others, "send greet")
        assert second["trace"] != first["trace"] and second["links"] == [link_to(first)]
        assert second["attributes"]["streamvibe.outcome"] == "joined"
    _, worked = run(database18, "work")
    [process] = named(worked, "process greet")
    assert (process["trace"], process["parent"]) == (first["trace"], first["span"])
    # Two job types were claimed together: their span is named for neither.
    [claim] = [span for span in worked if span["name"].startswith("claim")]
    assert claim["name"] == "claim" and len(claim["links"]) == 2
    [[outcome, _]], others = run(database18, "ask", "greet")
    [cached] = named(others, "send greet")
    assert (outcome, cached["links"]) == ("cached", [link_to(first)])


def test_many_jobs_are_one_request(database18: Database) -> None:
    """One span for a call of create_many, whose children all the attempts are."""
    assert run(database18, "ask_for_many")[0] == 5
    before = database18.fetch_value("SELECT count(DISTINCT traceparent) FROM job_queue")
    assert before == 1
    spans = run(database18, "work")[1]
    processes = named(spans, "process greet")
    assert len(processes) == 5 and len({span["parent"] for span in processes}) == 1
    kept = database18.fetch_value("SELECT min(traceparent) FROM job_queue")
    assert kept.startswith(f"00-{processes[0]['trace']}-{processes[0]['parent']}-")


def test_a_request_that_is_refused(database18: Database) -> None:
    """Its span ends as failed."""
    error, spans = run(database18, "ask_in_vain")
    [send] = named(spans, "send nothing")
    assert error == "UnknownJobType"
    assert (send["status"], send["description"].split(":")[0]) == ("ERROR", "UnknownJobType")


def test_without_opentelemetry_it_is_not_imported() -> None:
    """A client and a worker of an application that does not use it do not, either."""
    code = (
        "import sys, streamvibe.cli.worker, streamvibe.client, streamvibe.worker;"
        " sys.exit('opentelemetry' in sys.modules or 'prometheus_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_without_a_provider_nothing_is_made(database18: Database) -> None:
    """Neither spans nor contexts: a request sends nothing more, and the job keeps none."""
    importlib.import_module("opentelemetry.trace")  # as an application does that may install one later
    assert not tracing.is_on()
    assert tracing.asking("greet") is tracing.asking(None)
    database18.connect().execute("SELECT register_job_type('greet')")
    async with Client(database18.dsn) as client:
        asked = await client.request("greet", {}, user_id=uuid4())
        await client.create_many([{"user_id": uuid4(), "job_type": "greet"}])
    assert asked.traceparent is None
    assert database18.fetch_value("SELECT count(traceparent) FROM job_queue") == 0


def test_a_job_asked_for_in_sql_begins_a_trace(database18: Database) -> None:
    """Also with a context that no library would read, written past the functions."""
    conn = database18.connect()
    kit.register(conn, "greet")
    plain, odd = kit.job_id(conn, job_type="greet"), kit.job_id(conn, job_type="greet")
    conn.execute("UPDATE job_queue SET traceparent = 'nonsense' WHERE id = %s", [odd])
    processes = named(run(database18, "work")[1], "process greet")
    assert {span["attributes"]["messaging.message.id"] for span in processes} == {str(plain), str(odd)}
    assert [span["parent"] for span in processes] == [None, None]
    assert len({span["trace"] for span in processes}) == 2
    assert {kit.status(conn, job_id) for job_id in (plain, odd)} == {"completed"}
