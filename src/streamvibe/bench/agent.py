"""One process of a measured system: a producer or a worker, told what to do by lines of JSON.

    python agent.py ADAPTER_FILE DATABASE_URL OPTIONS_JSON

Run by the measured system's own Python, so only the standard library is imported. A request is one line
``{"id", "op", ...arguments}`` on standard input; the answer is one line ``{"id", ...}`` or ``{"id", "error"}``.
What the adapter prints goes to standard error. The process ends with its standard input.

Times are ``time.monotonic_ns()``: on Linux one clock for all processes, so a worker can subtract a producer's.
"""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import random
import struct
import sys
import time
import traceback
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# This file is run by its path: the modules beside it must not hide those of the measured system.
if __name__ == "__main__":
    sys.path.pop(0)

MARKED = -1
"""The number of a job whose place in the order of starts is asked for."""


class Item(NamedTuple):
    """One job: its user, its number, and when it was due to be enqueued (0: nobody asks)."""

    user: str
    number: int
    sent: int


def user_id(number: int) -> str:
    """The id of the n-th user."""
    return f"00000000-0000-4000-8000-{number:012x}"


class Handled:
    """What the handlers of this process saw. Called once per job, with its number and its ``sent``."""

    def __init__(self, marks: list[int]) -> None:
        self.count = 0
        self.started_at: dict[int, int] = {}
        """Of each mark n: when the n-th job started."""
        self.latencies = array("q")
        self.positions = array("q")
        self._marks = [*sorted(marks), 0]
        self._next = self._marks.pop(0)

    def __call__(self, number: int, sent: int) -> None:
        self.count += 1
        if sent:
            self.latencies.append(time.monotonic_ns() - sent)
        if self.count == self._next:
            self.started_at[self._next] = time.monotonic_ns()
            self._next = self._marks.pop(0)
        if number == MARKED:
            self.positions.append(self.count)

    def look(self) -> None:
        """Read what is new; here everything is seen at once."""


class Spooled(Handled):
    """The same for systems whose handlers run in child processes: each start is a record in a file."""

    record = struct.Struct("qqq")

    def __init__(self, marks: list[int], path: str) -> None:
        super().__init__(marks)
        self._path, self._offset = Path(path), 0
        self._path.touch()

    @classmethod
    def write(cls, descriptor: int, number: int, sent: int) -> None:
        """Called in the child; ``descriptor`` is of the file, opened to append."""
        os.write(descriptor, cls.record.pack(number, sent, time.monotonic_ns()))

    def look(self) -> None:
        """Read the records that are new."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        data = data[: len(data) - len(data) % self.record.size]
        self._offset += len(data)
        for number, sent, now in self.record.iter_unpack(data):
            self.count += 1
            if sent:
                self.latencies.append(now - sent)
            if self.count == self._next:
                self.started_at[self._next] = now
                self._next = self._marks.pop(0)
            if number == MARKED:
                self.positions.append(self.count)


class Adapter:
    """What a system can do. An adapter file holds one subclass, named ``System``.

    What a subclass leaves out raises NotImplementedError, not an abstract class's TypeError: not every system can do
    everything (urgent jobs are measured for ours alone), and asking for what it cannot do is a mistake of the harness.
    """

    packages: tuple[str, ...] = ()
    """Distributions whose versions are reported, the system's own first."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    """The event loop its documentation recommends; None: the standard one."""
    spooled = False
    """Whether handlers run in child processes and report by ``Spooled``."""
    bulk_in_flight = 1
    """How many bulk calls a producer has under way at once."""
    bulk_size = 1000
    """How many jobs are enqueued in one bulk call, as recommended for speed."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url, self.options = url, options
        # A file of each process's own: a worker must not count the starts of the one before it.
        self.spool = f"{options.get('spool', '')}-{os.getpid()}"

    async def setup(self) -> None:
        """Make the schema, once per database."""

    async def open(self) -> None:
        """Connect as a producer."""

    async def close(self) -> None:
        """Close what was opened."""

    async def enqueue_one(self, item: Item) -> None:
        """Enqueue one job; returns when that is durable."""
        raise NotImplementedError

    async def enqueue_urgent(self, item: Item) -> None:
        """Enqueue one job of the highest priority."""
        raise NotImplementedError

    async def enqueue_bulk(self, items: list[Item]) -> None:
        """Enqueue many jobs in one call, as the system recommends."""
        raise NotImplementedError

    async def unfinished(self) -> bool:
        """Whether any job is not finished yet."""
        raise NotImplementedError

    async def until_cancelled(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()

    async def work(self, handled: Callable[[int, int], None]) -> None:
        """Run a worker until cancelled; its handler calls ``handled(number, sent)`` and does nothing else."""
        raise NotImplementedError


class Agent:
    """Answers requests."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.handled = Handled([])
        self.worker: asyncio.Task[None] | None = None
        self._opened = False

    async def hello(self) -> dict[str, Any]:
        """Which versions these are."""
        found = {}
        for name in self.adapter.packages:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
        return {
            "versions": {**found, "python": sys.version.split()[0]},
            "bulk_size": self.adapter.bulk_size,
        }

    async def setup(self) -> dict[str, Any]:
        """Make the schema."""
        await self.adapter.setup()
        return {}

    async def open(self) -> dict[str, Any]:
        """Connect as a producer."""
        if not self._opened:
            await self.adapter.open()
            self._opened = True
        return {}

    async def enqueue(
        self, *, count: int, in_flight: int = 1, first: int = 0, users: int = 2000, user: int = 0
    ) -> dict[str, Any]:
        """Enqueue jobs one by one; how long that took. Users are numbered from ``user`` on."""
        items = iter([Item(user_id(user + n % users), n, 0) for n in range(first, first + count)])

        async def lane() -> None:
            for item in items:
                await self.adapter.enqueue_one(item)

        begun = time.monotonic_ns()
        await asyncio.gather(*(lane() for _ in range(in_flight)))
        return {"seconds": (time.monotonic_ns() - begun) / 1e9}

    async def bulk(
        self, *, count: int, first: int = 0, users: int = 2000, user: int = 0, size: int = 0, number: int = 0
    ) -> dict[str, Any]:
        """Enqueue jobs in bulk; when that began and ended. ``number``: that of every job, where it is not 0."""
        items = [Item(user_id(user + n % users), number or n, 0) for n in range(first, first + count)]
        size = size or self.adapter.bulk_size
        batches = iter([items[start : start + size] for start in range(0, count, size)])

        async def lane() -> None:
            for batch in batches:
                await self.adapter.enqueue_bulk(batch)

        begun = time.monotonic_ns()
        await asyncio.gather(*(lane() for _ in range(self.adapter.bulk_in_flight)))
        return {"begun": begun, "ended": time.monotonic_ns()}

    async def probe(
        self, *, count: int, gap_ms: float, urgent: bool = False, user: int = 0, users: int = 2000
    ) -> dict[str, Any]:
        """Enqueue single jobs at random moments, each stamped just before its call."""
        enqueue = self.adapter.enqueue_urgent if urgent else self.adapter.enqueue_one
        chance = random.Random(count)  # noqa: S311 - the same moments in every run
        for number in range(count):
            await asyncio.sleep(chance.uniform(0.2, 1.8) * gap_ms / 1000)
            await enqueue(Item(user_id(user + number % users), number, time.monotonic_ns()))
        return {}

    async def offer(self, *, rate: float, seconds: float, tick_ms: float = 20) -> dict[str, Any]:
        """Enqueue at a rate, a batch each tick. ``sent`` is when a batch was due, not when its call began."""
        tick = int(tick_ms * 1e6)
        begun, offered = time.monotonic_ns(), 0
        pending: set[asyncio.Task[None]] = set()
        for n in range(1, int(seconds * 1e9 / tick) + 1):
            due = begun + n * tick
            await asyncio.sleep(max(0, (due - time.monotonic_ns()) / 1e9))
            wanted = int(rate * n * tick / 1e9)
            items = [Item(user_id(number % 2000), number, due) for number in range(offered, wanted)]
            offered = wanted
            for start in range(0, len(items), self.adapter.bulk_size):
                if len(pending) >= self.adapter.bulk_in_flight:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                batch = items[start : start + self.adapter.bulk_size]
                pending.add(asyncio.create_task(self.adapter.enqueue_bulk(batch)))
        await asyncio.gather(*pending)
        return {"offered": offered, "late_ms": (time.monotonic_ns() - begun) / 1e6 - seconds * 1e3}

    async def unfinished(self) -> dict[str, Any]:
        """Whether any job is not finished."""
        return {"unfinished": await self.adapter.unfinished()}

    async def finish(self, *, seconds: float) -> dict[str, Any]:
        """Wait until no job is unfinished; when that was seen."""
        deadline = time.monotonic() + seconds
        while await self.adapter.unfinished():
            if time.monotonic() > deadline:
                raise TimeoutError(f"jobs were still unfinished after {seconds:g} seconds")
            await asyncio.sleep(0.003)
        return {"ended": time.monotonic_ns()}

    async def work(self, *, marks: list[int]) -> dict[str, Any]:
        """Start a worker in this process."""
        spool = self.adapter.spool
        self.handled = Spooled(marks, spool) if self.adapter.spooled else Handled(marks)
        self.worker = asyncio.create_task(self.adapter.work(self.handled))
        return {}

    async def started(self, *, count: int, seconds: float) -> dict[str, Any]:
        """Wait until ``count`` jobs were started; when those of the marks were."""
        deadline = time.monotonic() + seconds
        while True:
            self.handled.look()
            if self.handled.count >= count:
                return {"count": self.handled.count, "marks": self.handled.started_at}
            if self.worker is None or self.worker.done():
                if self.worker is not None:
                    self.worker.result()
                raise RuntimeError("the worker ended by itself")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.handled.count} of {count} jobs started within {seconds:g} seconds")
            await asyncio.sleep(0.005)

    async def seen(self) -> dict[str, Any]:
        """What was handled since the last ``seen``, and how much memory that took."""
        self.handled.look()
        latencies, positions = list(self.handled.latencies), list(self.handled.positions)
        del self.handled.latencies[:], self.handled.positions[:]
        return {
            "count": self.handled.count,
            "latencies_ns": latencies,
            "positions": positions,
            "memory": memory_kib(os.getpid()),
        }

    async def stop(self) -> dict[str, Any]:
        """Stop the worker and close what is open."""
        if self.worker is not None:
            self.worker.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.wait_for(self.worker, 15)
        await self.adapter.close()
        return {}


def memory_kib(pid: int) -> dict[str, int]:
    """Resident memory of a process and its children now (VmRSS) and at most (VmHWM), in KiB."""
    total = {"VmRSS": 0, "VmHWM": 0}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in total:
                total[name] += int(value.split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            for name, value_kib in memory_kib(int(child)).items():
                total[name] += value_kib
    return total


def load(path: str) -> type[Adapter]:
    """The class ``System`` of an adapter file, which finds this module as ``agent``."""
    sys.modules.setdefault("agent", sys.modules[__name__])
    spec = importlib.util.spec_from_file_location(f"adapter_{Path(path).stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    system: type[Adapter] = module.System
    return system


async def serve(adapter: Adapter, answers: int) -> None:
    """Answer requests until standard input ends."""
    agent = Agent(adapter)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    tasks: set[asyncio.Task[None]] = set()

    async def answer(request: dict[str, Any]) -> None:
        number, op = request.pop("id"), request.pop("op")
        try:
            found = await getattr(agent, op)(**request)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        data = json.dumps({"id": number, **found}).encode() + b"\n"
        while data:
            data = data[os.write(answers, data) :]

    while line := await reader.readline():
        task = asyncio.create_task(answer(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()


def main() -> None:
    """The process."""
    path, url, options = sys.argv[1:4]
    # Nothing that a library prints may get between the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    system = load(path)
    adapter = system(url, json.loads(options))
    with asyncio.Runner(loop_factory=system.loop_factory) as runner:
        runner.run(serve(adapter, answers))


if __name__ == "__main__":
    main()
