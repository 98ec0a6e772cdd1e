"""Break each promise in a copy of the repository and see its tests fail.

python tools/break_promises.py            every break
python tools/break_promises.py --new      only those that are needed: a break that was not noticed yet, or a listed
                                          test that was not seen failing
python tools/break_promises.py WORD...    only those whose promise, break or test holds one of the words
    --jobs N                              so many at once, each in a copy of its own (2)

The copies are of the last commit. First every test that will be used has to pass there; then each break is made, the
tests of its promise are run, the one it is meant for has to fail, and the break is taken back. Which tests failed, and
with what, is kept in docs/reference/guarantees-mutations.json.
Exit status 1 when a test failed without a break, or passed with the one that is meant for it.
"""

import argparse
import contextlib
import io
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.promises import RESULTS, ROOT, Break, Promise, function_of, key, load, noticed, results, unseen

#: The timeout is raised inside the test, as a failure, so that the next one runs.
PYTEST = ["-q", "-o", "timeout=90", "-o", "timeout_method=signal", "-p", "no:cacheprovider", "--no-header"]
ALL_TESTS_SECONDS = 3600
ONE_BREAK_SECONDS = 600
ENDING_SECONDS = 60


@dataclass(frozen=True)
class Seen:
    """What pytest did: the tests that failed, each with what it said, and how all of it ended."""

    failed: dict[str, str]
    status: int
    output: str
    seconds: float


def main() -> int:
    """Try every break that was asked for."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("words", nargs="*", type=str.lower)
    parser.add_argument("--new", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    # A shell that starts this in the background has it ignored, and so would be what tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = list(_chosen(asked.words, new=asked.new))
    with contextlib.ExitStack() as stack:
        copies = [_copy(stack) for _ in range(asked.jobs)]
        for _, item in chosen:
            _broken(copies[0], item)
        with ThreadPoolExecutor(asked.jobs) as pool:
            tests = sorted({test for promise, item in chosen for test in _tests(promise, item)})
            parts = [tests[number :: asked.jobs] for number in range(min(asked.jobs, len(tests)))]
            whole = list(pool.map(lambda copy, part: _run(copy, part, ALL_TESTS_SECONDS), copies, parts))
            bad = [seen.output for seen in whole if seen.status != 0]
            if bad:
                print(*bad, "a test fails although nothing is broken", sep="\n")
                return 1
            survived = _try_all(pool, copies, chosen)
    print(f"{len(chosen)} breaks, {survived} that no test noticed")
    return 1 if survived else 0


def _chosen(words: list[str], *, new: bool) -> Iterable[tuple[Promise, Break]]:
    seen = results()
    for promise in (promise for part in load() for promise in part.promises):
        missing = unseen(promise, seen)
        for item in promise.breaks:
            text = f"{promise.text} {item.says} {item.test}".lower()
            if words and not any(word in text for word in words):
                continue
            if not new or missing or not noticed(item, seen):
                yield promise, item


def _tests(promise: Promise, item: Break) -> list[str]:
    return list(dict.fromkeys([function_of(item.test), *promise.tests]))


def _copy(stack: contextlib.ExitStack) -> Path:
    # Short, for the sockets in it; and open, for the system users that some tests play.
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sv")))
    copy.chmod(0o755)
    git = shutil.which("git") or "git"
    packed = subprocess.run([git, "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(copy, filter="data")
    return copy


def _broken(copy: Path, item: Break) -> str:
    text = (copy / item.file).read_text()
    if item.old not in text:
        sys.exit(f"{item.file} does not hold what is to be broken ({item.says}):\n{item.old}")
    broken = text.replace(item.old, item.new)
    if item.file.endswith(".py"):
        compile(broken, item.file, "exec")
    return broken


def _try_all(pool: ThreadPoolExecutor, copies: list[Path], chosen: list[tuple[Promise, Break]]) -> int:
    """How many were not noticed."""
    free: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)
    tries = {pool.submit(_try, free, promise, item): (promise, item) for promise, item in chosen}
    survived = 0
    for number, done in enumerate(as_completed(tries), 1):
        (promise, item), seen = tries[done], done.result()
        survives = not noticed(item, {key(item): seen.failed})
        survived += survives
        tests = _tests(promise, item)
        print(
            f"{number:3}/{len(tries)} {'SURVIVES' if survives else 'fails   '} {seen.seconds:5.1f} s"
            f"  {len(seen.failed)} of {len(tests)}  {item.says}  ({item.test})",
            flush=True,
        )
        if seen.status not in (0, 1):
            print(f"pytest ended with {seen.status}:\n{seen.output[-2000:]}", flush=True)
        _keep(item, seen.failed)
    return survived


def _try(free: "queue.SimpleQueue[Path]", promise: Promise, item: Break) -> Seen:
    copy = free.get()
    path = copy / item.file
    text = path.read_text()
    path.write_text(_broken(copy, item))
    try:
        return _run(copy, _tests(promise, item), ONE_BREAK_SECONDS, pg15="[pg15" in item.test)
    finally:
        path.write_text(text)
        free.put(copy)


def _run(copy: Path, tests: list[str], seconds: float, *, pg15: bool = False) -> Seen:
    """Of the two PostgreSQL versions one is enough, unless the other is asked for."""
    started = time.monotonic()
    record = copy / "record.jsonl"
    record.write_text("")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("STREAMVIBE_HOME")
    }
    environment |= {"PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["RECORD_FAILURES"] = str(record)
    chosen = [] if pg15 else ["-k", "not pg15"]
    command = [sys.executable, "-m", "pytest", "-p", "tools.record_failures", *PYTEST, *chosen, *tests]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=copy, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            # Asked first, so that fixtures end their servers.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ENDING_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        output.seek(0)
        return Seen(_failed(record), status, output.read(), time.monotonic() - started)


def _failed(record: Path) -> dict[str, str]:
    """The tests that failed, without their parameters; one that had to be ended failed too."""
    failed: dict[str, str] = {}
    unended = None
    for line in record.read_text().splitlines():
        test, what, message = json.loads(line)
        unended = test if what == "began" else None
        if what == "failed":
            failed.setdefault(function_of(test), message)
    if unended is not None:
        failed.setdefault(function_of(unended), "the test never came to an end")
    return failed


def _keep(item: Break, failed: dict[str, str]) -> None:
    current = {key(known) for part in load() for promise in part.promises for known in promise.breaks}
    known = {name: value for name, value in results().items() if name in current}
    known[key(item)] = failed
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
