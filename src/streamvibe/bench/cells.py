"""Runs the cells: every scenario of every system, run after run, systems in turns; what was measured is kept."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streamvibe.bench import floors, scenarios, scenarios_ours
from streamvibe.bench.databases import Server
from streamvibe.bench.processes import Agent
from streamvibe.bench.redis_server import redis
from streamvibe.bench.stage import Figure, Sizes, Stage
from streamvibe.bench.systems import System
from streamvibe.errors import InvalidArgument, StreamVibeError


@dataclass(frozen=True)
class Scenario:
    """A scenario and whom it is for."""

    name: str
    run: Callable[[Stage], list[Figure]]
    for_all: bool = False
    """Also for peers."""
    on_redis: bool = True
    """Also for peers that keep their jobs in Redis."""

    def is_for(self, system: System) -> bool:
        """Whether it is measured of this system."""
        return system.is_ours or (self.for_all and (self.on_redis or not system.needs_redis))


def _listed(*found: Scenario) -> dict[str, Scenario]:
    return {scenario.name: scenario for scenario in found}


THROUGHPUT = _listed(
    Scenario("drain", scenarios.drain, for_all=True),
    Scenario("enqueue", scenarios.enqueue, for_all=True),
    Scenario("bulk", scenarios.bulk, for_all=True),
    Scenario("sustained", scenarios.sustained, for_all=True),
    Scenario("pinned", scenarios.pinned, for_all=True, on_redis=False),
    Scenario("bulk_guarded", scenarios_ours.bulk_guarded),
    Scenario("asleep", scenarios_ours.asleep),
    Scenario("floor", floors.floor),
    Scenario("bare", floors.bare),
    Scenario("scale", scenarios_ours.scale),
)
LATENCY = _listed(
    Scenario("start", scenarios.start, for_all=True),
    Scenario("urgent", scenarios_ours.urgent),
    Scenario("fair", scenarios_ours.fair),
)


def chosen(group: dict[str, Scenario], names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names, all when none is named. Raises InvalidArgument."""
    for name in names:
        if name not in group:
            raise InvalidArgument(
                "there is no such measure",
                field="--measures",
                received=name,
                fix="Use some of " + ", ".join(group),
            )
    return [scenario for scenario in group.values() if not names or scenario.name in names]


@dataclass(frozen=True)
class Cell:
    """One scenario of one system in one run."""

    system: System
    scenario: Scenario
    run: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.system.name, self.scenario.name, self.run


@dataclass
class Store:
    """What was measured; with a path it is kept there, a line per cell, and not measured again."""

    sizes: Sizes
    path: Path | None = None
    figures: dict[tuple[str, str, int], list[Figure]] = field(default_factory=dict)
    failures: dict[tuple[str, str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is None or not self.path.exists():
            return
        for line in self.path.read_text().splitlines():
            cell = json.loads(line)
            if cell["sizes"] == self._sizes() and "error" not in cell:
                key = (cell["system"], cell["scenario"], cell["run"])
                self.figures[key] = [Figure(*figure) for figure in cell["figures"]]

    def keep(self, cell: Cell, figures: list[Figure]) -> None:
        """Add a cell's figures."""
        self.figures[cell.key] = figures
        self._append(cell, figures=figures)

    def fail(self, cell: Cell, error: str) -> None:
        """Note that a cell could not be measured; the next time it is tried again."""
        self.failures[cell.key] = error
        self._append(cell, error=error)

    def medians_of(self, system: str) -> dict[str, float]:
        """The latest value of each measure of a system: a first guess for what comes."""
        return {
            figure.measure: figure.value
            for (name, _, _), figures in self.figures.items()
            if name == system
            for figure in figures
        }

    def _append(self, cell: Cell, **what: Any) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        system, scenario, run = cell.key
        line = {"system": system, "scenario": scenario, "run": run, "sizes": self._sizes(), **what}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _sizes(self) -> dict[str, Any]:
        sizes: dict[str, Any] = json.loads(json.dumps(asdict(self.sizes)))
        return sizes


def planned(systems: Sequence[System], group: Iterable[Scenario], runs: int) -> list[Cell]:
    """The cells in the order in which they run: all systems in turns within each measure of each run."""
    group = list(group)
    return [
        Cell(system, scenario, run)
        for run in range(1, runs + 1)
        for scenario in group
        for system in systems
        if scenario.is_for(system)
    ]


def measure(server: Server, cell: Cell, store: Store) -> None:
    """Measure one cell on a database of its own, and keep it. A failure is kept too, and raised."""
    system = cell.system
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(
            server.database(f"{system.name}_{cell.scenario.name}", migrated=system.is_ours)
        )
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="streamvibe-bench-"))
        stage = Stage(
            system,
            url,
            store.sizes,
            redis_url=stack.enter_context(redis()) if system.needs_redis else None,
            earlier=store.medians_of(system.name),
            spool=f"{folder}/spool",
        )
        try:
            _setup(stage)
            with stage.connect() as conn:
                conn.execute("CHECKPOINT")
            store.keep(cell, cell.scenario.run(stage))
        except StreamVibeError as error:
            received = f" ({error.received})" if error.received else ""
            store.fail(cell, error.message + received)
            raise


def _setup(stage: Stage) -> None:
    with stage.agent() as agent:
        agent.ask("setup")
        agent.ask("stop")


def versions_of(system: System) -> dict[str, str]:
    """The versions of what a system runs on."""
    with Agent(system, "", {}) as agent:
        found: dict[str, str] = agent.ask("hello")["versions"]
    return found
