"""PostgreSQL 15 with the extension pg_cron, which Debian has for it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.servers import pg15_bin

#: Where tools/ensure-pg-cron unpacks the package for somebody who may not install it.
UNPACKED = Path(__file__).parents[2] / "build" / "pg-cron"


def pg15_cron_bin(folder: Path) -> Path:
    """The programs of a PostgreSQL 15 that has pg_cron: the installed one, or a copy of it in ``folder`` with the
    unpacked package in it. Fails the test that needs them, by name, where pg_cron is missing.
    """
    programs = pg15_bin()
    library, share = (_ask(programs, what) for what in ("--pkglibdir", "--sharedir"))
    if (library / "pg_cron.so").exists():
        return programs
    if not UNPACKED.exists():
        pytest.fail(
            f"pg_cron is not in {library}. Install it (Debian 12: apt-get install postgresql-15-cron), let"
            " tools/ensure-pg-cron get it, or leave these tests out: pytest --without-pg-cron",
            pytrace=False,
        )
    # A server finds its files from where its program is.
    for part in (programs, library, share):
        shutil.copytree(part, folder / part.relative_to("/"), dirs_exist_ok=True)
    shutil.copytree(UNPACKED, folder, dirs_exist_ok=True)
    return folder / programs.relative_to("/")


def _ask(programs: Path, what: str) -> Path:
    answer = subprocess.run([programs / "pg_config", what], capture_output=True, text=True, check=True)
    return Path(answer.stdout.strip())
