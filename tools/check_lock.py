"""Check that the lock files hold every dependency of pyproject.toml, hashed, and name no registry or path."""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)")
PLACE = re.compile(r"https?://|file:|git\+|--(extra-)?index-url|--find-links|(^|\s)/\w")


def pins(lock: Path) -> dict[str, set[str]]:
    """Locked versions by name; a name may have several, each under its own environment marker."""
    found: dict[str, set[str]] = {}
    for line in lock.read_text().splitlines():
        if match := PIN.match(line):
            found.setdefault(canonicalize_name(match["name"]), set()).add(match["version"])
    return found


def faults(lock: Path, wanted: list[str]) -> list[str]:
    """Everything wrong with one lock file, as lines for a person."""
    locked = pins(lock)
    found = []
    for text in wanted:
        requirement = Requirement(text)
        versions = locked.get(canonicalize_name(requirement.name), set())
        if not any(requirement.specifier.contains(version) for version in versions):
            found.append(
                f"{lock.name}: {text} is not met (locked: {sorted(versions) or 'nothing'}); run make lock"
            )
    for number, line in enumerate(lock.read_text().splitlines(), 1):
        if PLACE.search(line):
            found.append(f"{lock.name}:{number}: names a registry or a path: {line.strip()}")
    pinned = sum(len(versions) for versions in locked.values())
    hashed = len(re.findall(r"^\S+==.*\\\n\s+--hash=", lock.read_text(), re.MULTILINE))
    if pinned != hashed:
        found.append(f"{lock.name}: {pinned - hashed} of {pinned} packages have no hash; run make lock")
    return found


def main() -> int:
    """Print the faults; 1 if there are any."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    found = faults(ROOT / "requirements.lock", project["dependencies"])
    found += faults(ROOT / "requirements-dev.lock", project["dependencies"] + extras)
    print("\n".join(found) or "Lock files agree with pyproject.toml.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
