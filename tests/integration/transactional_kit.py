"""What the tests of transactional jobs share: a table of effects, and a worker that runs several jobs at once."""

from typing import Any
from uuid import UUID

from tests.integration.worker_kit import Queue, make_worker
from tests.support.databases import Database

from streamvibe import Context, JobType, Worker

Params = dict[str, Any]

EFFECTS = """
CREATE TABLE public.effect (job_id uuid NOT NULL, note text NOT NULL DEFAULT '',
    only_once integer CONSTRAINT only_once UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE public.change (n bigserial, job_id uuid, before text, after text);
CREATE FUNCTION public.note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.change (job_id, before, after) VALUES (new.id, old.status, new.status);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_change AFTER UPDATE ON public.job_queue FOR EACH ROW EXECUTE FUNCTION public.note_change();
"""


async def write_effect(ctx: Context, note: str = "") -> None:
    """One row for this job, through its transaction."""
    await ctx.connection.execute(
        "INSERT INTO public.effect (job_id, note) VALUES (%s, %s)", [ctx.job_id, note]
    )


class Effects(Queue):
    """A queue with a table that handlers write to, and a note of every update of a job's row."""

    def __init__(self, database: Database, *job_types: JobType[Any, Any]) -> None:
        super().__init__(database)
        self.conn.execute(EFFECTS.encode())
        self.register(*job_types)

    def effects(self, job_id: UUID | None = None) -> list[str]:
        """The notes of the committed effects of one job, or of all."""
        rows = self.conn.execute(
            "SELECT note FROM effect WHERE job_id = coalesce(%s, job_id) ORDER BY job_id", [job_id]
        )
        return [row[0] for row in rows.fetchall()]

    def versions(self, job_id: UUID) -> list[str]:
        """The statuses that updates of the job's row wrote."""
        rows = self.conn.execute("SELECT after FROM change WHERE job_id = %s ORDER BY n", [job_id])
        return [row[0] for row in rows.fetchall()]

    def outcome(self, job_id: UUID) -> tuple[str, str | None, int, list[str]]:
        """A job's status, kind of failure, failed attempts, and effects."""
        row = self.row(job_id)
        return row["status"], row["failure_kind"], row["retry_count"], self.effects(job_id)


def one_lane(database: Database, *job_types: JobType[Any, Any], most: int = 10, **options: Any) -> Worker:
    """A worker with one lane that claims so many jobs at once from the start."""
    worker = make_worker(database, *job_types, transactions=1, **options)
    for name in worker._transactions._portions:
        worker._transactions._portions[name] = most
    return worker
