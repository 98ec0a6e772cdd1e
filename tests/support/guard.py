"""Run a command for as long as standard input stays open: no server outlives a killed test run.

python guard.py LOG ACCOUNT COMMAND...   ACCOUNT is "uid:gid", or "" for our own. The command's output goes
to LOG; at end of input it is told to stop (SIGQUIT).

It runs as whoever runs the tests: the interpreter may be out of reach for ACCOUNT.
"""

import signal
import subprocess
import sys
import threading
from pathlib import Path


def main() -> int:
    """The command's exit status."""
    log, account, *command = sys.argv[1:]
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

    def stop_at_end_of_input() -> None:
        sys.stdin.buffer.read()
        child.send_signal(signal.SIGQUIT)

    # Signals of the terminal (Ctrl-C) are for the test run, which then closes our input in its own order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
