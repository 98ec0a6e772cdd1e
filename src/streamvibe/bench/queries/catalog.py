"""The questions: the table of the design this queue grew out of, then every function that reads, as a user calls it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from streamvibe.errors import ConfigurationError

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One question.

    ``target_ms``: what the design promises; None where it promises nothing. ``calls``: how often it is asked.
    ``dataset`` may name a sample, such as ``{leaf_jobs}``. ``writes``: it is asked in a transaction that is rolled
    back; ``before``: what comes first in it, and does not count. ``disturbs``: others have to wait meanwhile.
    """

    name: str
    dataset: str
    sql: str
    target_ms: float | None = None
    calls: int = 300
    writes: bool = False
    before: str | None = None
    disturbs: bool = False


#: What bulk creation writes, worked out already: what it takes to write it is what no function can do without.
_READY_ROWS = """
CREATE TEMP TABLE ready_rows ON COMMIT DROP AS
SELECT streamvibe.make_id(streamvibe.microseconds(n.at), hashint8(b.ordinality)::bigint) AS id, n.at AS created_at,
       (b.value ->> 'user_id')::uuid AS user_id, b.value ->> 'job_type' AS job_type, b.value -> 'params' AS params,
       5::smallint AS job_priority, n.at AS scheduled_for, n.at + interval '1 day' AS expires_at, n.at AS updated_at
FROM jsonb_array_elements(%(batch)s) WITH ORDINALITY b
CROSS JOIN LATERAL (SELECT now() + b.ordinality * interval '1 microsecond' AS at) n
ORDER BY user_id
"""

QUESTIONS: tuple[Question, ...] = (
    Question(
        "User job list (paginated)",
        "1K jobs/user",
        "SELECT * FROM get_user_jobs(%(user_1k)s, 'completed', NULL, 50, 0)",
        5,
    ),
    Question(
        "Worker job pickup", "10K pending jobs", "SELECT * FROM claim_jobs('bench', 1)", 10, writes=True
    ),
    Question("Job status check", "N/A", "SELECT status FROM job_queue WHERE id = %(job_id)s", 2),
    Question("Job result retrieval", "N/A", "SELECT * FROM get_job_result(%(job_id)s)", 5),
    Question(
        "Deduplication check",
        "100 pending/user",
        "SELECT * FROM find_or_create_job(%(user_100)s, %(pending_type)s, %(pending_params)s, interval '30 days')",
        5,
        writes=True,
    ),
    Question(
        "Bulk job creation",
        "1K jobs",
        "SELECT count(*) FROM create_jobs(%(batch)s)",
        100,
        calls=20,
        writes=True,
    ),
    Question(
        "bulk: the bare INSERT",
        "1K jobs",
        "WITH written AS (INSERT INTO job_queue (id, created_at, user_id, job_type, params, job_priority,"
        " scheduled_for, expires_at, updated_at) SELECT * FROM ready_rows RETURNING 1) SELECT count(*) FROM written",
        calls=20,
        writes=True,
        before=_READY_ROWS,
    ),
    Question(
        "Cleanup old jobs",
        "{leaf_jobs:,} finished",
        "SELECT streamvibe.seal_partition(%(leaf)s), streamvibe.drop_partition(%(leaf)s)",
        500,
        calls=5,
        writes=True,
        disturbs=True,
    ),
    Question(
        "cleanup: what others wait for",
        "{leaf_jobs:,} finished",
        "SELECT streamvibe.drop_partition(%(leaf)s)",
        calls=5,
        writes=True,
        before="SELECT streamvibe.seal_partition(%(leaf)s)",
        disturbs=True,
    ),
    Question("Analytics query", "all jobs", "SELECT * FROM get_job_queue_stats()", 50),
    Question(
        "request_job: created",
        "",
        "SELECT * FROM request_job(gen_random_uuid(), %(job_type)s, %(new_params)s)",
        writes=True,
    ),
    Question(
        "request_job: cached",
        "",
        "SELECT * FROM request_job(%(user_id)s, %(job_type)s, %(params)s, p_cache_ttl := '30 days')",
        writes=True,
    ),
    Question(
        "get_cached_job_result",
        "",
        "SELECT * FROM get_cached_job_result(%(user_id)s, %(job_type)s, %(params)s, interval '30 days')",
    ),
    Question("get_job", "", "SELECT * FROM get_job(%(job_id)s, %(user_id)s)"),
    Question("get_user_jobs: all", "the most active user", "SELECT * FROM get_user_jobs(%(heavy)s)"),
    Question(
        "get_user_jobs: page 20",
        "the most active user",
        "SELECT * FROM get_user_jobs(%(heavy)s, p_offset := 950)",
    ),
    Question(
        "get_user_jobs_by_cursor: first", "any user", "SELECT * FROM get_user_jobs_by_cursor(%(user_id)s)"
    ),
    Question(
        "get_user_jobs_by_cursor: deep",
        "the most active user",
        "SELECT * FROM get_user_jobs_by_cursor(%(heavy)s, %(deep)s)",
    ),
    Question(
        "get_user_jobs_by_cursor: failed",
        "the most active user",
        "SELECT * FROM get_user_jobs_by_cursor(%(heavy)s, NULL, 'failed')",
    ),
    Question(
        "get_user_jobs_by_cursor: rare type",
        "the most active user",
        "SELECT * FROM get_user_jobs_by_cursor(%(heavy)s, NULL, NULL, %(rare_type)s)",
    ),
    Question(
        "get_user_jobs_by_bucket: yesterday",
        "the most active user",
        "SELECT * FROM get_user_jobs_by_bucket(%(heavy)s, 'day', 1)",
    ),
    Question("search_jobs: own, params", "any user", "SELECT * FROM search_jobs(%(user_id)s, %(search)s)"),
    Question("search_jobs: all, params", "every user", "SELECT * FROM search_jobs(NULL, %(search)s)"),
    Question("search_jobs: all, result", "every user", "SELECT * FROM search_jobs(NULL, NULL, %(found)s)"),
    Question("get_job_logs: of a job", "", "SELECT * FROM get_job_logs(%(job_id)s, %(user_id)s)"),
    Question(
        "get_job_logs: errors of the last hour",
        "every job",
        "SELECT * FROM get_job_logs(NULL, NULL, 'error', p_since := now() - interval '1 hour')",
    ),
    Question(
        "get_job_logs: words", "every job", "SELECT * FROM get_job_logs(NULL, NULL, p_search := %(words)s)"
    ),
    Question(
        "get_job_logs: words, own",
        "the most active user",
        "SELECT * FROM get_job_logs(NULL, %(heavy)s, p_search := %(words)s)",
    ),
    Question(
        "get_job_logs: metadata",
        "every job",
        "SELECT * FROM get_job_logs(NULL, NULL, p_metadata := %(metadata)s)",
    ),
    Question(
        "get_job_queue_stats: last day",
        "all jobs",
        "SELECT * FROM get_job_queue_stats(now() - interval '1 day')",
    ),
    Question("get_workers", "", "SELECT * FROM get_workers()"),
    Question("claim_jobs: 100", "all pending jobs", "SELECT * FROM claim_jobs('bench', 100)", writes=True),
)


class Samples:
    """What the questions are asked about: drawn evenly from the jobs, so active users come as often as they ask."""

    def __init__(self, conn: psycopg.Connection[Any], count: int = 300) -> None:
        """Raises ConfigurationError when there are no jobs."""
        counts = conn.execute(
            "SELECT user_id, count(*) AS jobs, count(*) FILTER (WHERE status = 'pending') AS pending"
            " FROM public.job_queue GROUP BY user_id"
        ).fetchall()
        # Of pages drawn at random, so many that enough jobs stand there.
        share = min(100.0, 100 * 50 * count / max(1, sum(jobs for _, jobs, _ in counts)))
        self._jobs = conn.execute(
            "SELECT id, user_id, job_type, params FROM public.job_queue TABLESAMPLE SYSTEM (%s)"
            " WHERE status = 'completed' ORDER BY random() LIMIT %s",
            [share, count],
        ).fetchall()
        if not self._jobs:
            raise ConfigurationError(
                "There are no completed jobs to ask about",
                field="database_url",
                fix="Run some jobs first: streamvibe demo",
            )
        # The most and the least common among those drawn.
        drawn = Counter(job_type for _, _, job_type, _ in self._jobs)
        types = [job_type for job_type, _ in drawn.most_common()]
        heavy = max(counts, key=lambda row: row[1])[0]
        waiting = min(counts, key=lambda row: abs(row[2] - 100))[0]
        pending: Any = conn.execute(
            "SELECT job_type, params FROM public.job_queue"
            " WHERE user_id = %s AND status = 'pending' AND scheduled_for <= now() LIMIT 1",
            [waiting],
        ).fetchone() or (types[0], {})
        leaf = conn.execute(
            "SELECT partition_name, upper_at FROM streamvibe.partition WHERE parent_name = 'job_queue'"
            " ORDER BY lower_at LIMIT 1"
        ).fetchone() or (None, None)
        [leaf_jobs] = conn.execute(
            "SELECT count(*) FROM public.job_queue WHERE tableoid = to_regclass(%s)",
            [f"streamvibe.{leaf[0]}"],
        ).fetchone() or (0,)
        deep: Any = conn.execute(
            "SELECT created_at, id FROM public.job_queue WHERE user_id = %s"
            " ORDER BY created_at DESC, id DESC OFFSET 999 LIMIT 1",
            [heavy],
        ).fetchone() or (None, None)
        cursor = None
        for _ in range(20):
            page = conn.execute(
                "SELECT next_cursor FROM get_user_jobs_by_cursor(%s, %s) LIMIT 1", [heavy, cursor]
            ).fetchone()
            if page is None or page[0] is None:
                break
            cursor = page[0]
        self._fixed: Mapping[str, Any] = {
            "heavy": heavy,
            "user_1k": min(counts, key=lambda row: abs(row[1] - 1000))[0],
            "user_100": waiting,
            "rare_type": types[-1],
            "pending_type": pending[0],
            "pending_params": Jsonb(pending[1]),
            "leaf": leaf[0],
            "cleanup_before": leaf[1],
            "leaf_jobs": leaf_jobs,
            "deep": cursor,
            "deep_at": deep[0],
            "deep_id": deep[1],
            "metadata": Jsonb({"code": "RATE_LIMIT", "page": 957}),
            "words": "timeout error 991",
            "found": Jsonb({"videos_synced": 250}),
            "batch": Jsonb(
                [
                    {"user_id": str(user), "job_type": types[0], "params": {"page": n}}
                    for n, (user, *_) in enumerate((counts * 1000)[:1000])
                ]
            ),
        }

    def each(self, count: int) -> Iterator[Arguments]:
        """Arguments for so many calls."""
        for n in range(count):
            job_id, user_id, job_type, params = self._jobs[n % len(self._jobs)]
            yield {
                **self._fixed,
                "job_id": job_id,
                "user_id": user_id,
                "job_type": job_type,
                "params": Jsonb(params),
                # As somebody would who looks for it: by what it is about, not by a document of 100 KB.
                "search": Jsonb({k: v for k, v in params.items() if len(str(v)) < 200} or params),
                "new_params": Jsonb({"page": n}),
            }
