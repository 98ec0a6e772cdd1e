"""What a scenario is given: a system, an empty database, and the sizes to measure with."""

import contextlib
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg

from streamvibe.bench.processes import Agent
from streamvibe.bench.systems import System


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    jobs: int = 20_000
    concurrency: int | None = None
    """How many handlers our worker runs at once; None: what ``ours.py`` says."""
    workers: tuple[int, ...] = (1, 2, 4, 8)
    backlog: int = 1_000_000
    samples: int = 250
    window_seconds: float = 8.0
    """How long each rate is offered."""

    @property
    def warm_up(self) -> int:
        """Jobs that are run before a clock starts."""
        return max(50, min(1000, self.jobs // 20))


class Figure(NamedTuple):
    """One number that a scenario found."""

    measure: str
    value: float
    unit: str


@dataclass
class Stage:
    """One cell: its processes end with the with block that ``agent`` is used in."""

    system: System
    url: str
    sizes: Sizes
    redis_url: str | None = None
    earlier: dict[str, float] = field(default_factory=dict)
    """What this system's measures were so far, for scenarios that need a first guess."""
    spool: str = ""

    def agent(self, **options: object) -> Agent:
        """A process of the system: a producer or a worker."""
        given = {"concurrency": self.sizes.concurrency, "redis_url": self.redis_url, "spool": self.spool}
        return Agent(self.system, self.url, {**given, **options})

    @contextlib.contextmanager
    def producer(self, **options: object) -> Iterator[Agent]:
        """A connected producer."""
        with self.agent(**options) as agent:
            agent.ask("open")
            yield agent
            agent.ask("stop")

    @contextlib.contextmanager
    def worker(self, *marks: int) -> Iterator[Agent]:
        """A worker that has begun to start."""
        with self.agent() as agent:
            agent.ask("work", marks=list(marks))
            yield agent
            agent.ask("stop")

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the harness to the cell's database."""
        return psycopg.connect(self.url, autocommit=True)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(0, rank - 1)]


def middle(values: Sequence[float]) -> float:
    """The median."""
    return float(statistics.median(values))
