"""``/metrics``: a small HTTP server beside a worker or maintenance, for Prometheus."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer

from streamvibe.cli.output import print_remark
from streamvibe.config import LOOPBACK, Address, Settings
from streamvibe.errors import ConfigurationError, InvalidArgument
from streamvibe.maintenance import parse_schedule

MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Serve /metrics for Prometheus on this port of 127.0.0.1 (0: a free one), in place of "
        "STREAMVIBE_METRICS_ADDRESS.",
    ),
]


def next_turn(schedule: str, last: datetime) -> datetime | None:
    """When a duty with this schedule is due that last began then. None: nobody can read the schedule."""
    try:
        return parse_schedule(schedule)(last)
    except InvalidArgument:
        # Whoever leads says so, and goes on with the usual one.
        return None


@contextmanager
def metrics_served(dsn: str, port: int | None, running: Callable[[], int] | None = None) -> Iterator[None]:
    """Serve the metrics of the queue and of this process in this block, if the port or the settings say where.

    ``running``: how many handlers run in this process, if it is a worker. Raises ConfigurationError.
    """
    address = Settings().metrics_address if port is None else Address(LOOPBACK, port)
    if address is None:
        yield
        return
    # Nobody else waits for these to be imported.
    from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, start_http_server

    from streamvibe.monitoring.metrics import QueueCollector

    registry = CollectorRegistry()
    queue = QueueCollector(dsn, next_turn)
    registry.register(queue)
    ProcessCollector(registry=registry)
    if running is not None:
        handlers = Gauge(
            "streamvibe_worker_handlers_running", "Handlers that run in this process.", registry=registry
        )
        handlers.set_function(running)
    try:
        server, thread = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise ConfigurationError(
            f"No server for metrics can listen there ({error.strerror or error})",
            field="--metrics-port" if port is not None else "STREAMVIBE_METRICS_ADDRESS",
            received=str(address),
            fix="Choose another port, or end what uses this one; 0 takes a free one",
        ) from error
    try:
        print_remark(f"Metrics: http://{address._replace(port=server.server_port)}/metrics")
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        queue.close()
