"""One benchmark: prepares the systems, runs the cells, and makes the document."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streamvibe.bench.cells import Scenario, Store, measure, planned, versions_of
from streamvibe.bench.databases import Server
from streamvibe.bench.machine import machine, versions
from streamvibe.bench.redis_server import check_redis
from streamvibe.bench.results import Document, document
from streamvibe.bench.stage import Sizes
from streamvibe.bench.systems import System, check_peers, install, ours, read_peer
from streamvibe.errors import StreamVibeError


@dataclass
class Bench:
    """What is measured: ``peers`` None for ours alone, empty for all of them."""

    group: Sequence[Scenario]
    sizes: Sizes
    runs: int
    peers: Sequence[str] | None
    peers_directory: Path
    cells: Path | None
    report: Callable[[str], None]
    _systems: list[System] = field(default_factory=list)

    def run(self) -> Document:
        """Measure everything that is not in ``cells`` yet; the document of all of it.

        What fails of a peer is reported and left out; what fails of ours is raised.
        """
        self._prepare()
        server = Server()
        settings = server.settings()
        about = machine()
        store = Store(self.sizes, self.cells)
        found = planned(self._systems, self.group, self.runs)
        open_cells = [cell for cell in found if cell.key not in store.figures]
        if len(open_cells) < len(found):
            self.report(f"{len(found) - len(open_cells)} of {len(found)} were measured before: {self.cells}")
        for place, cell in enumerate(open_cells, 1):
            begun = time.monotonic()
            name = f"{cell.scenario.name} of {cell.system.name}, run {cell.run}"
            try:
                measure(server, cell, store)
            except StreamVibeError as error:
                if cell.system.is_ours:
                    raise
                self.report(f"[{place}/{len(open_cells)}] {name} failed: {error.message}")
                continue
            self.report(f"[{place}/{len(open_cells)}] {name}: {time.monotonic() - begun:.0f} s")
        wanted = {cell.key for cell in found}
        store.figures = {key: figures for key, figures in store.figures.items() if key in wanted}
        return document(
            store,
            about,
            settings,
            {"harness": versions(), **{system.name: versions_of(system) for system in self._systems}},
        )

    def _prepare(self) -> None:
        self._systems = [ours()]
        if self.peers is None:
            return
        files = [read_peer(name) for name in check_peers(self.peers)]
        if any(file.needs_redis for file in files):
            check_redis()
        for file in files:
            try:
                self._systems.append(install(file, self.peers_directory, self.report))
            except StreamVibeError as error:
                if self.peers:  # asked for by name
                    raise
                self.report(f"{file.name} is left out: {error.message}. {error.fix}")
