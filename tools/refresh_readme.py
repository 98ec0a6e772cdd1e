"""Put the demo's true output into README.md, between its markers.

python tools/refresh_readme.py    (make readme)

Runs `streamvibe demo` on a database of its own in a temporary home; its path and the machine's name alone are replaced.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- demo output: begin -->\n```text\n"
END = "```\n<!-- demo output: end -->"
SHOWN_HOME, SHOWN_MACHINE = "/home/ada/.local/share/streamvibe", "laptop"


def demo_output() -> str:
    """What the demo prints where standard output is no terminal. Exits when it fails."""
    program = Path(sys.executable).with_name("streamvibe")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("STREAMVIBE_")}
    with tempfile.TemporaryDirectory(prefix="sv") as folder:
        home = Path(folder) / "home"
        environment |= {"STREAMVIBE_HOME": str(home), "COLUMNS": "110"}
        environment["PATH"] = f"{program.parent}{os.pathsep}{environment['PATH']}"
        try:
            done = subprocess.run(
                [program, "demo"], env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
        except subprocess.CalledProcessError as error:
            sys.exit(f"the demo failed:\n{error.stdout}")
        finally:
            subprocess.run([program, "db", "stop"], env=environment, stdout=subprocess.DEVNULL, check=True)
    shown = done.stdout.strip("\n").replace(str(home), SHOWN_HOME)
    return re.sub(r"\S+(-\d+-[0-9a-f]{8})$", rf"{SHOWN_MACHINE}\1", shown, flags=re.MULTILINE) + "\n"


def main() -> None:
    """Rewrite the README."""
    before, begin, rest = README.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit("README.md: the markers of the demo's output are missing")
    lines = (line.rstrip() for line in demo_output().splitlines())
    README.write_text(before + begin + "\n".join(lines) + "\n" + end + after)


if __name__ == "__main__":
    main()
