"""The SQL files that make the schema: read, checked and checksummed."""

import hashlib
import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamvibe.errors import ConfigurationError

SQL_ROOT = Path(__file__).parent.parent / "sql"
NO_TRANSACTION = "-- streamvibe: no-transaction"

Kind = Literal["migration", "function", "policy"]

_MIGRATION_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True)
class SqlFile:
    """One file. ``name`` is its path inside its folder, ``version`` the number of a migration."""

    kind: Kind
    name: str
    text: str
    version: int | None = None

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, as hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """False for a file that is executed statement by statement, each on its own."""
        return self.text.partition("\n")[0].rstrip() != NO_TRANSACTION

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class SqlTree:
    """Every file of one release, each kind in the order in which it is applied."""

    migrations: tuple[SqlFile, ...]
    functions: tuple[SqlFile, ...]
    policies: tuple[SqlFile, ...]
    release: str

    @property
    def makes_partitions(self) -> bool:
        """Whether the release has ``ensure_partitions()``, to be called after every migration."""
        return any(Path(file.name).stem == "ensure_partitions" for file in self.functions)


def load_tree(root: Path = SQL_ROOT) -> SqlTree:
    """Read ``root``/migrations, functions and policies.

    Raises ConfigurationError for a migration whose name is not NNNN_name.sql, or two with the same number.
    """
    migrations: dict[int, SqlFile] = {}
    for file in _read(root / "migrations", "migration"):
        match = _MIGRATION_NAME.fullmatch(file.name)
        if match is None:
            raise ConfigurationError(
                "A migration's name is not NNNN_name.sql (small letters, digits and _)",
                field="migrations",
                received=file.name,
                fix="Rename the file",
            )
        version = int(match[1])
        if version in migrations:
            raise ConfigurationError(
                "Two migrations have the same number",
                field="migrations",
                received=f"{migrations[version].name} and {file.name}",
                fix="Give the newer one the next free number",
            )
        migrations[version] = SqlFile("migration", file.name, file.text, version)
    return SqlTree(
        migrations=tuple(migrations[version] for version in sorted(migrations)),
        functions=_read(root / "functions", "function"),
        policies=_read(root / "policies", "policy"),
        release=importlib.metadata.version("streamvibe"),
    )


def _read(folder: Path, kind: Kind) -> tuple[SqlFile, ...]:
    # Sorted by name and read with \n line ends, so that every machine gets the same order and checksums.
    paths = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.sql"))
    return tuple(SqlFile(kind, name, path.read_text(encoding="utf-8")) for name, path in paths)
