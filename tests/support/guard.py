"""Run a server for as long as standard input stays open, then remove its folders: nothing outlives a test run,
even one that was killed.

python guard.py LOG ACCOUNT FOLDERS COMMAND...   ACCOUNT is "uid:gid", or "" for our own. The command's output
goes to LOG; at end of input it is told to stop (SIGQUIT). FOLDERS are separated by colons.

It runs as whoever runs the tests: the interpreter may be out of reach for ACCOUNT.
"""

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path


def main() -> int:
    """The command's exit status."""
    log, account, folders, *command = sys.argv[1:]
    uid, gid = (int(part) for part in account.split(":")) if account else (None, None)
    with Path(log).open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
        )

    input_ended = threading.Event()

    def stop_at_end_of_input() -> None:
        sys.stdin.buffer.read()
        input_ended.set()
        child.send_signal(signal.SIGQUIT)

    # Signals of the terminal (Ctrl-C) are for the test run, which then closes our input in its own order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    status = child.wait()
    if input_ended.is_set():  # else it stopped by itself, and its log is wanted
        for folder in folders.split(":"):
            shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
