"""A schema as text that can be compared and reviewed."""

import re
import subprocess

from tests.support.databases import Database

PARENTS = ("job_queue", "job_log")
BOUNDS = re.compile(r"(FOR VALUES FROM) \('[^']+'\) TO \('[^']+'\)")
# Comments, session settings, and the commands that carry a random key.
NOISE = re.compile(r"^(?:--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(?:un)?restrict .*)\n", re.MULTILINE)


def dump_schema(database: Database) -> str:
    """What `pg_dump --schema-only` says, without owners, noise, and all leaves but one of each parent.

    That one stands for the others, since all are made by the same function; its name and bounds, which say when
    the database was made, are left out.
    """
    shown, hidden = [], []
    for parent in PARENTS:
        first, *others = database.fetch_value(
            "SELECT array_agg(c.relname ORDER BY c.relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = %s::regclass",
            f"public.{parent}",
        )
        shown.append((parent, first))
        hidden += [f"--exclude-table=streamvibe.{name}" for name in others]
    result = subprocess.run(
        [database.server.bin / "pg_dump", "--schema-only", "--no-owner", *hidden, f"--dbname={database.dsn}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    text = NOISE.sub("", result.stdout)
    for parent, leaf in shown:
        text = text.replace(leaf, f"{parent}_leaf")
    text = BOUNDS.sub(r"\1 (its week)", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
