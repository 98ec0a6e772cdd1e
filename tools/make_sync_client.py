"""Write client/synchronous.py, which is client/asynchronous.py without its awaits.

python tools/make_sync_client.py    (a test fails while the file is not what this makes)
"""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "src" / "streamvibe" / "client"
SOURCE = FOLDER / "asynchronous.py"
TARGET = FOLDER / "synchronous.py"

HEADER = "# Made from asynchronous.py by tools/make_sync_client.py: change that file, then run the tool.\n"
REPLACEMENTS = (
    (r"\bClient\b", "SyncClient"),
    (
        r"``SyncClient``: the queue for asynchronous code",
        "``SyncClient``: the queue for code without an event loop",
    ),
    (
        r"``SyncClient`` has the same methods for code without an event loop",
        "``Client`` has the same methods for asynchronous code",
    ),
    # A caller without an event loop makes one request at a time.
    (r"        self\._together = .*\n", ""),
    (r"        Given up while it is under way, .*\n", ""),
    (r"            if connection is None:\n +requested = await self\._together\..*\n +else:\n    ", ""),
    (r"from streamvibe\.client\.together import Together\n", ""),
    (r"import asyncio\n", "import threading\nimport time\n"),
    (r"await asyncio\.to_thread\(([\w.]+)\)", r"\1()"),
    (r"asyncio\.Lock", "threading.Lock"),
    (r"asyncio\.sleep", "time.sleep"),
    (r"  # noqa: ASYNC\d+ .*", ""),
    (r"from psycopg import AsyncConnection\n", "import psycopg\n"),
    (r"\bAsyncConnection\b", "psycopg.Connection"),
    (r"\bAsyncPool\b", "Pool"),
    (r"for (\w+) in page.items:\n +yield \1", "yield from page.items"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAwaitable, ", ""),
    (r"\bAwaitable\[T\]", "T"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\(await (.*)\)\.close\(\)", r"\1.close()"),
    (r"\bawait ", ""),
)


def synchronous(source: str) -> str:
    """The text of synchronous.py for this text of asynchronous.py."""
    for pattern, replacement in REPLACEMENTS:
        source = re.sub(pattern, replacement, source)
    return _ruff("format", _ruff("check", HEADER + source, "--fix-only", "--select=I,F401", "--quiet"))


def _ruff(command: str, text: str, *options: str) -> str:
    arguments = [sys.executable, "-m", "ruff", command, *options, "--stdin-filename", str(TARGET), "-"]
    return subprocess.run(arguments, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    TARGET.write_text(synchronous(SOURCE.read_text()))
