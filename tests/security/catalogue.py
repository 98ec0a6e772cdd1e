"""What the database says it has: our functions with their arguments, and our tables."""

from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from tests.sql import kit

# Extensions aside, everything in these schemas of a test database is ours.
FUNCTIONS = """
SELECT p.oid, n.nspname AS schema, p.proname AS name, p.prosecdef AS definer, p.proconfig AS settings,
       pg_catalog.pg_get_userbyid(p.proowner) AS owner,
       coalesce((SELECT array_agg(a.grantee::bigint) FROM aclexplode(p.proacl) a), '{0}') AS grantees,
       pg_catalog.pg_get_function_identity_arguments(p.oid) AS arguments,
       ARRAY(SELECT pg_catalog.format_type(t.type, NULL)
             FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY t(type, n) ORDER BY t.n) AS types,
       coalesce(p.proargnames[1:p.pronargs], '{}') AS names, p.pronargdefaults AS defaults
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname IN ('public', 'streamvibe', 'creators')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
ORDER BY 2, 3
"""
RELATIONS = """
SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.relrowsecurity AS row_security
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('public', 'streamvibe', 'creators') AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Function:
    """One function of ours."""

    oid: int
    schema: str
    name: str
    definer: bool
    settings: tuple[str, ...]
    owner: str
    grantees: tuple[int, ...]
    """0 is PUBLIC."""
    arguments: dict[str, str]
    """Name to type, in order."""
    required: tuple[str, ...]
    """The arguments without a default."""

    @property
    def full_name(self) -> str:
        """With its schema."""
        return f"{self.schema}.{self.name}"

    def with_nulls(self) -> str:
        """A call that passes NULL for everything."""
        nulls = ", ".join(f"NULL::{kind}" for kind in self.arguments.values())
        return f"SELECT {self.full_name}({nulls})"


def functions(conn: Connection[Any]) -> list[Function]:
    """All of ours."""
    found = []
    for row in kit.query(conn, FUNCTIONS):
        names = row["names"] or [f"p{n}" for n in range(len(row["types"]))]
        found.append(
            Function(
                oid=row["oid"],
                schema=row["schema"],
                name=row["name"],
                definer=row["definer"],
                settings=tuple(row["settings"] or ()),
                owner=row["owner"],
                grantees=tuple(row["grantees"]),
                arguments=dict(zip(names, row["types"], strict=True)),
                required=tuple(names[: len(names) - row["defaults"]]),
            )
        )
    return found


def relations(conn: Connection[Any]) -> list[kit.Row]:
    """Our tables, views and sequences: schema, name, kind, row_security."""
    return kit.query(conn, RELATIONS)
