"""Small trees of SQL files for testing the migration runner itself."""

from pathlib import Path

from streamvibe.db.migrate_files import NO_TRANSACTION

MIGRATIONS = {
    "migrations/0001_tables.sql": "CREATE TABLE public.job_queue (id int);\nCREATE TABLE public.job_log ();",
    "migrations/0002_column.sql": "ALTER TABLE public.job_queue ADD COLUMN note text;",
}
FUNCTIONS = {
    "functions/one.sql": "CREATE OR REPLACE FUNCTION public.one() RETURNS int LANGUAGE sql AS 'SELECT 1';",
    "functions/deep/two.sql": (
        "CREATE OR REPLACE FUNCTION public.two() RETURNS integer LANGUAGE sql"
        " AS 'SELECT public.one() + public.one()';"
    ),
}
POLICIES = {"policies/grants.sql": "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;"}
CONCURRENT_INDEX = {
    "migrations/0003_index.sql": (
        f"{NO_TRANSACTION}\n"
        "-- Dropped first: a killed run leaves an invalid index behind.\n"
        "DROP INDEX CONCURRENTLY IF EXISTS public.job_queue_note;\n"
        "CREATE INDEX CONCURRENTLY job_queue_note ON public.job_queue (note) WHERE note <> ';';\n"
    )
}
SMALL = {**MIGRATIONS, **FUNCTIONS, **POLICIES}


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """Write `files` (path inside the tree: text) under `root`, which it returns."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
