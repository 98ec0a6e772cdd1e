"""Break each promise in a copy of the repository and see its test fail.

python tools/break_promises.py            every break
python tools/break_promises.py --new      only those that were not seen failing yet
python tools/break_promises.py WORD...    only those whose promise, break or test holds one of the words

The copy is of the last commit. First every test that will be used has to pass there; then each break is made,
its test has to fail, and the break is taken back. What was seen is kept in docs/reference/guarantees-mutations.json.
Exit status 1 when a test failed without a break, or passed with one.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.promises import RESULTS, ROOT, Break, key, load, results

#: Of the two PostgreSQL versions one is enough, unless a break names the other.
PYTEST = ["-q", "-x", "-o", "timeout=90", "-p", "no:cacheprovider", "--no-header"]
ALL_TESTS_SECONDS = 1800
ONE_TEST_SECONDS = 200


def main() -> int:
    """Try every break that was asked for."""
    words = [word.lower() for word in sys.argv[1:] if word != "--new"]
    seen_failing = (
        {name for name, value in results().items() if value["failed"]} if "--new" in sys.argv else set()
    )
    breaks = [
        item
        for part in load()
        for promise in part.promises
        for item in promise.breaks
        if key(item) not in seen_failing
        and (not words or any(word in f"{promise.text} {item.says} {item.test}".lower() for word in words))
    ]
    with tempfile.TemporaryDirectory(prefix="sv") as folder:
        copy = Path(folder)
        copy.chmod(0o755)
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "HEAD"))) as archive:
            archive.extractall(copy, filter="data")
        status, output = _run(
            copy, sorted({item.test.partition("[")[0] for item in breaks}), ALL_TESTS_SECONDS
        )
        if status != 0:
            print(output)
            print("a test fails although nothing is broken")
            return 1
        survived = 0
        for number, item in enumerate(breaks, 1):
            seen = _try(copy, item)
            survived += not seen["failed"]
            mark = "fails   " if seen["failed"] else "SURVIVES"
            print(
                f"{number:3}/{len(breaks)} {mark} {seen['seconds']:5.1f} s  {item.says}  ({item.test})",
                flush=True,
            )
            _keep(item, seen)
    print(f"{len(breaks)} breaks, {survived} that no test noticed")
    return 1 if survived else 0


def _try(copy: Path, item: Break) -> dict[str, Any]:
    path = copy / item.file
    text = path.read_text()
    if item.old not in text:
        sys.exit(f"{item.file} does not hold what is to be broken ({item.says}):\n{item.old}")
    broken = text.replace(item.old, item.new)
    if path.suffix == ".py":
        compile(broken, item.file, "exec")
    path.write_text(broken)
    started = time.monotonic()
    try:
        status, output = _run(copy, [item.test], ONE_TEST_SECONDS)
    except subprocess.TimeoutExpired:
        status, output = 1, "\nFAILED \nE  the test never came to an end"
    finally:
        path.write_text(text)
    if status not in (0, 1):
        sys.exit(f"pytest ended with {status} ({item.says}):\n{output}")
    lines = [line for line in output.splitlines() if line.startswith("E  ")]
    return {
        # A test that failed, not a database that could not even be made.
        "failed": status == 1 and "\nFAILED " in output,
        "seconds": round(time.monotonic() - started, 1),
        "saw": lines[0].removeprefix("E").strip()[:200] if lines else "",
    }


def _run(copy: Path, tests: list[str], seconds: float) -> tuple[int, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("STREAMVIBE_HOME")}
    environment |= {"PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}", "PYTHONDONTWRITEBYTECODE": "1"}
    chosen = [] if any("[pg15]" in test for test in tests) else ["-k", "not pg15"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PYTEST, *chosen, *tests],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout


def _keep(item: Break, seen: dict[str, Any]) -> None:
    current = {key(known) for part in load() for promise in part.promises for known in promise.breaks}
    known = {name: value for name, value in results().items() if name in current}
    known[key(item)] = {"test": item.test, "failed": seen["failed"], "saw": seen["saw"]}
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def _git(*arguments: str) -> bytes:
    git = shutil.which("git") or "git"
    return subprocess.run([git, *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
