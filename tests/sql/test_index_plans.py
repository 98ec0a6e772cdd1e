"""Each of the fifteen named indexes serves the queries it is there for, at the cost of their answers.

On three weeks of jobs with the skew of real ones, with custom and with generic plans. Each case is the query as the
design prints it (`priority` is `job_priority`; placeholders are parameters), or a function of ours that asks the same.

No function of ours reads idx_job_queue_pending_pickup (claims read another: docs/decisions/0008-fair-share.md),
idx_job_queue_worker_active (what a worker holds stands in streamvibe.claim) and idx_job_queue_cleanup (partitions leave
whole). get_job_queue_stats reads no jobs at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg import Connection
from tests.sql import kit
from tests.sql.plans import (
    Leaves,
    Reading,
    Wanted,
    leaves_of,
    problems,
    read_by_function,
    read_by_statement,
)
from tests.support.databases import TEMPLATE, new_database
from tests.support.servers import Server

JOBS = 60_000
USERS = 2_000

I1 = "idx_job_queue_user_status_created"
I2 = "idx_job_queue_pending_pickup"
I3 = "idx_job_queue_worker_active"
I4 = "idx_job_queue_cleanup"
I5 = "idx_job_queue_retry_eligible"
I6 = "idx_job_queue_type_status"
I7 = "idx_job_queue_user_active"
I8 = "idx_job_queue_expiration"
I9 = "idx_job_queue_stuck_detection"
I10 = "idx_job_queue_params_gin"
I11 = "idx_job_queue_result_gin"
L1 = "idx_job_log_job_time"
L2 = "idx_job_log_errors"
L3 = "idx_job_log_message_fts"
L4 = "idx_job_log_metadata_gin"
KEY = "job_queue_pkey"
SAME = "idx_job_queue_identity"

FILL_JOBS = """
INSERT INTO public.job_queue (
    id, created_at, user_id, job_type, params, status, job_priority, scheduled_for, expires_at, started_at,
    completed_at, retry_count, retry_at, worker_id, claim_token, result)
WITH drawn AS MATERIALIZED (
    -- From the oldest to the newest, ever denser. power(users, random()) is Zipf's law: rank k as often as 1 / k.
    SELECT n, n > %(jobs)s * 0.9 AS is_recent, t.now,
           t.now - power((%(jobs)s - n) / %(jobs)s::float8, 1.5) * interval '20 days' AS at,
           floor(power(%(users)s, random()))::integer AS account, random() AS of_status, random() AS of_type,
           random() AS a, random() AS b, floor(power(5000, random()))::integer AS videos
    FROM (SELECT streamvibe.now() AS now OFFSET 0) t CROSS JOIN generate_series(1, %(jobs)s) n
), jobs AS MATERIALIZED (
    SELECT d.*, streamvibe.make_id(d.at) AS id,
           CASE WHEN of_status < CASE WHEN is_recent THEN 0.65 ELSE 0.005 END THEN 'pending'
                WHEN of_status < CASE WHEN is_recent THEN 0.75 ELSE 0.0055 END THEN 'processing'
                WHEN of_status < 0.92 THEN 'completed' WHEN of_status < 0.97 THEN 'failed'
                ELSE 'cancelled' END AS status,
           CASE WHEN of_type < 0.50 THEN 'sync_youtube' WHEN of_type < 0.75 THEN 'email'
                WHEN of_type < 0.87 THEN 'sync_instagram' WHEN of_type < 0.95 THEN 'sync_tiktok'
                WHEN of_type < 0.99 THEN 'report' ELSE 'export' END AS job_type
    FROM drawn d
)
SELECT j.id, streamvibe.id_time(j.id), ('00000000-0000-4000-8000-' || lpad(account::text, 12, '0'))::uuid, job_type,
       jsonb_build_object('social_account_id', account::text, 'since', floor(a * 30)), status,
       CASE WHEN a < 0.8 THEN 5 WHEN a < 0.95 THEN 3 ELSE 8 END,
       -- What is old and pending waits for its time, or should have been expired.
       CASE WHEN status = 'pending' AND NOT is_recent AND a > 0.15 THEN now + b * interval '3 days' ELSE at END,
       CASE WHEN status = 'pending' AND NOT is_recent AND a > 0.15 THEN now + interval '4 days'
            ELSE at + interval '24 hours' END,
       CASE WHEN status = 'processing' AND is_recent THEN now - b * interval '25 minutes'
            WHEN status <> 'pending' THEN at + a * interval '10 minutes' END,
       CASE WHEN status NOT IN ('pending', 'processing') THEN at + (a + b) * interval '10 minutes' END,
       CASE WHEN status <> 'failed' THEN 0 WHEN a < 0.75 THEN 3 ELSE 1 + (b * 2)::integer %% 2 END,
       -- Some of the failed will be tried again; a few of them now.
       CASE WHEN status = 'failed' AND a > 0.85 AND is_recent THEN now + (b - 0.3) * interval '1 hour' END,
       CASE WHEN status <> 'pending' THEN 'worker-' || n %% 100 END, CASE WHEN status <> 'pending' THEN n END,
       CASE WHEN status = 'completed' THEN jsonb_build_object('videos_synced', videos, 'ok', true) END
FROM jobs j ORDER BY n
"""

FILL_LOG = """
INSERT INTO public.job_log (id, job_id, user_id, log_level, message, metadata)
WITH lines AS MATERIALIZED (
    -- Half of the jobs log: most of them a line or two, a few hundreds.
    SELECT q.id AS job_id, q.user_id, q.created_at + k * interval '1 second' AS at, k,
           random() AS of_level, random() AS a
    FROM (SELECT j.*, least(power(1 - random(), -0.6), 400)::integer AS lines
          FROM public.job_queue j WHERE j.status <> 'pending' AND random() < 0.5 OFFSET 0) q
    CROSS JOIN LATERAL generate_series(1, q.lines) k
)
SELECT streamvibe.make_id(l.at), l.job_id, l.user_id,
       CASE WHEN of_level < 0.02 THEN 'error' WHEN of_level < 0.06 THEN 'warning'
            WHEN of_level < 0.2 THEN 'debug' ELSE 'info' END,
       CASE WHEN of_level < 0.02 AND a < 0.1 THEN 'error: timeout while reading page ' || k
            WHEN of_level < 0.02 THEN 'error: the platform answered with ' || 400 + (a * 100)::integer
            WHEN of_level < 0.06 THEN 'slow answer, trying again'
            ELSE 'synced video ' || k || ' of channel ' || (a * 5000)::integer END,
       CASE WHEN of_level < 0.06 AND a > 0.95 THEN '{"error_code": "RATE_LIMIT"}'
            WHEN of_level < 0.06 THEN jsonb_build_object('error_code', 'HTTP_' || (a * 100)::integer)
            WHEN a < 0.3 THEN jsonb_build_object('step', k) END
FROM lines l ORDER BY l.at
"""

FILL_SAME = """
INSERT INTO public.job_queue (id, created_at, user_id, job_type, params, scheduled_for, expires_at)
SELECT j.id, streamvibe.id_time(j.id), %(user_id)s, 'export', '{"all": true}',
       j.now + interval '1 day', j.now + interval '2 days'
FROM (SELECT t.now, streamvibe.make_id(t.now - interval '1 hour' - n * interval '1 second') AS id
      FROM (SELECT streamvibe.now() AS now OFFSET 0) t CROSS JOIN generate_series(1, 1000) n OFFSET 0) j
"""


def account(rank: int) -> str:
    """The user of this rank."""
    return f"'00000000-0000-4000-8000-{rank:012}'::uuid"


# The user with the most jobs, thousands of them; one with a handful; one who wants the same 1,000 times, tomorrow.
MANY, FEW, SAME_AGAIN = account(1), account(700), account(USERS + 1)


@dataclass(frozen=True)
class Case:
    """A query, or a call, with what it has to read and may read."""

    index: str
    asks: str
    """A query's text, or a function's name."""
    values: str = "SELECT"
    """A query whose one row are the parameters, or the arguments by their names."""
    uses: tuple[str, ...] = ()
    """The indexes that are used: all of these and no others. By default `index` alone."""
    may_use: tuple[str, ...] = ()
    """Others that it may use as well."""
    index_only: bool = False
    """Nothing is fetched from the table."""
    answer: str | None = None
    """A query that counts what the answer is made of, where that is not its rows."""
    answer_of_generic: str | None = None
    """The same for a generic plan, where the planner is right only about the average user."""
    rows: float = 2
    """Rows looked at for each of the answer; a bitmap's count twice, in the index and in the table."""
    rows_a_leaf: float = 2
    buffers: float = 2
    """Buffers read for each row of the answer."""
    buffers_a_leaf: float = 6
    """Down a tree to the first entry, and to its row; in functions the planner's look at the ends of indexes too."""
    sorts: float = 1
    """Rows that one sort is given for each of the answer, and one besides."""
    writes: bool = False

    @property
    def is_call(self) -> bool:
        """Whether it is a function's name."""
        return " " not in self.asks


BY_USER = "SELECT * FROM job_queue WHERE user_id = $1 AND status = $2 ORDER BY created_at DESC LIMIT 50"
BY_JOB = "SELECT * FROM job_log WHERE job_id = $1 ORDER BY created_at DESC LIMIT 100"
ID_AND_STATUS = "SELECT id, status FROM job_queue WHERE user_id = $1"
LIVE = "SELECT COUNT(*) FROM job_queue WHERE user_id = $1 AND status IN ('pending', 'processing')"
A_JOB = "SELECT id AS p_job_id FROM job_queue ORDER BY id LIMIT 1 OFFSET 20000"
LONGEST_LOG = "SELECT job_id AS p_job_id FROM job_log GROUP BY job_id ORDER BY count(*) DESC LIMIT 1"
A_FEW_LIVE = """
SELECT user_id AS p_user_id, 'email' AS p_job_type, '{"new": 1}'::jsonb AS p_params FROM job_queue
WHERE status IN ('pending', 'processing') GROUP BY user_id HAVING count(*) = 3 ORDER BY user_id LIMIT 1
"""
NEWEST = """
SELECT user_id AS p_user_id, job_type AS p_job_type, params AS p_params FROM job_queue
WHERE status = '{}' ORDER BY id DESC LIMIT 1
"""


def jobs(condition: str) -> str:
    """A query that counts them."""
    return f"SELECT count(*) FROM job_queue WHERE {condition}"


def lines(condition: str) -> str:
    """The same of log lines."""
    return f"SELECT count(*) FROM job_log WHERE {condition}"


QUERIES: dict[str, Case] = {
    # A generic plan expects that all of a user's jobs fit on a page, and sorts them; our lists forbid it (enable_sort).
    "I1 long list": Case(
        I1,
        BY_USER,
        f"SELECT {MANY}, 'completed'",
        answer_of_generic=jobs(f"user_id = {MANY} AND status = 'completed'"),
    ),
    "I1 short list": Case(I1, BY_USER, f"SELECT {FEW}, 'completed'"),
    "I1 index-only, many": Case(I1, ID_AND_STATUS, f"SELECT {MANY}", buffers=0.1, index_only=True),
    "I1 index-only, few": Case(I1, ID_AND_STATUS, f"SELECT {FEW}", buffers=0.1, index_only=True),
    "key index-only": Case(KEY, "SELECT status FROM job_queue WHERE id = $1", A_JOB, index_only=True),
    "I2 pickup": Case(
        I2,
        "SELECT * FROM job_queue WHERE status = 'pending' ORDER BY job_priority DESC, scheduled_for ASC LIMIT 10",
    ),
    "I3 worker's jobs": Case(
        I3, "SELECT * FROM job_queue WHERE worker_id = $1 AND status = 'processing'", "SELECT 'worker-7'"
    ),
    # Where the oldest hours are due, as every day. (Of a partition that is due as a whole all is best read.)
    "I4 cleanup": Case(
        I4,
        "SELECT * FROM job_queue WHERE status = 'completed' AND completed_at < NOW() - INTERVAL '475 hours'",
    ),
    "I5 retries": Case(I5, "SELECT * FROM job_queue WHERE status = 'failed' AND retry_count < 3"),
    # Printed without WHERE: it would count the finished as well, which are not in the index.
    "I6 by type": Case(
        I6,
        "SELECT job_type, status, count(*) FROM job_queue "
        "WHERE status IN ('pending', 'processing', 'failed') GROUP BY job_type, status",
        answer=jobs("status IN ('pending', 'processing', 'failed')"),
        index_only=True,
    ),
    "I7 live jobs": Case(
        I7,
        LIVE,
        f"SELECT {MANY}",
        answer=jobs(f"user_id = {MANY} AND status IN ('pending', 'processing')"),
        index_only=True,
    ),
    "I7 no live jobs": Case(I7, LIVE, f"SELECT {FEW}", index_only=True),
    "I8 stale": Case(I8, "SELECT * FROM job_queue WHERE status = 'pending' AND expires_at < NOW()"),
    "I9 stuck": Case(
        I9,
        "SELECT * FROM job_queue WHERE status = 'processing' AND started_at < NOW() - INTERVAL '30 minutes'",
    ),
    "I10 params": Case(I10, """SELECT * FROM job_queue WHERE params @> '{"social_account_id": "123"}'"""),
    "I10 parameter": Case(
        I10,
        "SELECT * FROM job_queue WHERE params @> $1",
        """SELECT '{"social_account_id": "123"}'::jsonb""",
    ),
    "I11 results": Case(I11, """SELECT * FROM job_queue WHERE result @> '{"videos_synced": 250}'"""),
    "I11 parameter": Case(
        I11, "SELECT * FROM job_queue WHERE result @> $1", """SELECT '{"videos_synced": 250}'::jsonb"""
    ),
    # As in a user's long list: a generic plan expects that a job has a few lines.
    "L1 long log": Case(L1, BY_JOB, LONGEST_LOG, answer_of_generic=lines(f"job_id = ({LONGEST_LOG})")),
    "L1 short log": Case(
        L1, BY_JOB, "SELECT job_id FROM job_log GROUP BY job_id HAVING count(*) = 2 LIMIT 1"
    ),
    "L2 recent errors": Case(
        L2, "SELECT * FROM job_log WHERE log_level = 'error' AND created_at > NOW() - INTERVAL '1 hour'"
    ),
    "L3 words": Case(
        L3, "SELECT * FROM job_log WHERE to_tsvector('english', message) @@ to_tsquery('error & timeout')"
    ),
    "L3 parameter": Case(
        L3,
        "SELECT * FROM job_log WHERE to_tsvector('english', message) @@ to_tsquery($1)",
        "SELECT 'error & timeout'",
    ),
    "L4 metadata": Case(L4, """SELECT * FROM job_log WHERE metadata @> '{"error_code": "RATE_LIMIT"}'"""),
    "L4 parameter": Case(
        L4, "SELECT * FROM job_log WHERE metadata @> $1", """SELECT '{"error_code": "RATE_LIMIT"}'::jsonb"""
    ),
}

FUNCTIONS: dict[str, Case] = {
    # A page of each of five statuses, then the page's rows by their ids.
    "I1 by cursor": Case(
        I1, "get_user_jobs_by_cursor", f"SELECT {MANY} AS p_user_id", (I1, KEY), rows=7, buffers=10, sorts=6
    ),
    # All are counted, in the index alone.
    "I1 by number": Case(
        I1,
        "get_user_jobs",
        f"SELECT {MANY} AS p_user_id, 'completed' AS p_status",
        (I1,),
        answer=jobs(f"user_id = {MANY} AND status = 'completed'"),
        rows=1.1,
        buffers=0.1,
    ),
    "I1 by number, few of many": Case(
        I1,
        "get_user_jobs",
        f"SELECT {MANY} AS p_user_id, 'cancelled' AS p_status",
        (I1,),
        answer=jobs(f"user_id = {MANY} AND status = 'cancelled'"),
        buffers=4,
    ),
    "I1 by number, waiting": Case(
        I1,
        "get_user_jobs",
        f"SELECT {MANY} AS p_user_id, 'pending' AS p_status",
        (I1, KEY),
        answer=jobs(f"user_id = {MANY} AND status = 'pending'"),
        rows=3,
        buffers=4,
    ),
    "I1 by day": Case(
        I1,
        "get_user_jobs_by_bucket",
        f"SELECT {MANY} AS p_user_id",
        (I1, KEY),
        answer=jobs(f"user_id = {MANY} AND created_at >= date_trunc('day', streamvibe.now(), 'UTC')"),
        rows=3,
        buffers=2,
    ),
    "key one job": Case(KEY, "get_job", A_JOB),
    # Each is retried under the rules of a request: no twin (the identity), and room for it among the user's live jobs.
    "I5 retries": Case(
        I5,
        "retry_failed_jobs",
        uses=(I5, SAME, KEY),
        may_use=(I1, I7),
        answer=jobs("status = 'failed' AND retry_at <= streamvibe.now()"),
        rows=15,
        buffers=250,
        writes=True,
    ),
    # Claims read the index of the type; what is claimed is read by its id. 0008 says why not I2.
    "I6 claim": Case(
        I6,
        "claim_jobs",
        "SELECT 'w1' AS p_worker_id, 10 AS p_limit, ARRAY['sync_tiktok'] AS p_job_types",
        (I6, KEY),
        rows=5,
        buffers=8,
        buffers_a_leaf=10,
        writes=True,
    ),
    # Six types, each looked at in all partitions.
    "I6 claim any type": Case(
        I6,
        "claim_jobs",
        "SELECT 'w1' AS p_worker_id, 10 AS p_limit",
        (I6, KEY),
        rows=5,
        rows_a_leaf=25,
        buffers=8,
        buffers_a_leaf=100,
        sorts=6,
        writes=True,
    ),
    # I1 has the id as well, by which partitions of the future are left out: it may do for the live jobs too.
    "I7 request": Case(
        I7,
        "find_or_create_job",
        A_FEW_LIVE,
        (I7, SAME),
        may_use=(I1,),
        buffers_a_leaf=20,
        writes=True,
    ),
    # Live jobs are counted, and the newest that wait are looked at for the turn.
    "I7 request, many live": Case(
        I7,
        "find_or_create_job",
        f"""SELECT {MANY} AS p_user_id, 'email' AS p_job_type, '{{"new": 1}}'::jsonb AS p_params""",
        (SAME, I1),
        may_use=(I7,),
        answer=jobs(f"user_id = {MANY} AND status IN ('pending', 'processing')"),
        buffers_a_leaf=20,
        writes=True,
    ),
    "I8 stale": Case(
        I8,
        "expire_stale_jobs",
        uses=(I8, KEY),
        answer=jobs("status = 'pending' AND expires_at < streamvibe.now()"),
        rows=5,
        buffers=50,
        writes=True,
    ),
    "I9 stuck": Case(I9, "recover_stuck_jobs", uses=(I9, KEY), rows=8, buffers=65, writes=True),
    # A page of what is rare: all of it is looked up and sorted.
    "I10 search": Case(
        I10,
        "search_jobs",
        """SELECT '{"social_account_id": "123"}'::jsonb AS p_params""",
        (I10, KEY),
        answer=jobs("""params @> '{"social_account_id": "123"}'"""),
        rows=3,
        buffers=6,
    ),
    # Exactly equal params of one user and type are found by their hash (0002).
    "I10 dedupe": Case(
        I10, "find_or_create_job", NEWEST.format("pending"), (SAME, KEY), buffers_a_leaf=20, writes=True
    ),
    "I10 cached": Case(
        I10, "get_cached_job_result", NEWEST.format("completed"), (SAME, KEY), buffers_a_leaf=20
    ),
    # A hundred live jobs that are the same are looked at, not a thousand.
    "I10 not cached, many the same": Case(
        I10,
        "get_cached_job_result",
        f"""SELECT {SAME_AGAIN} AS p_user_id, 'export' AS p_job_type, '{{"all": true}}'::jsonb AS p_params""",
        (SAME,),
        answer="SELECT 100",
        buffers_a_leaf=20,
    ),
    "I11 search": Case(
        I11,
        "search_jobs",
        """SELECT '{"videos_synced": 250}'::jsonb AS p_result""",
        (I11, KEY),
        rows=4,
        buffers=6,
    ),
    "L1 long log": Case(L1, "get_job_logs", LONGEST_LOG),
    "L2 recent errors": Case(
        L2, "get_job_logs", "SELECT 'error' AS p_log_level, streamvibe.now() - interval '1 hour' AS p_since"
    ),
    "L3 words": Case(
        L3,
        "get_job_logs",
        "SELECT 'error timeout' AS p_search",
        answer=lines("message LIKE 'error: timeout %%'"),
    ),
    "L4 metadata": Case(
        L4,
        "get_job_logs",
        """SELECT '{"error_code": "RATE_LIMIT"}'::jsonb AS p_metadata""",
        answer=lines("""metadata @> '{"error_code": "RATE_LIMIT"}'"""),
    ),
}


@dataclass(frozen=True)
class Filled:
    """The database."""

    conn: Connection[Any]
    leaves: Leaves

    def read(self, case: Case, plans: str) -> tuple[Reading, Wanted]:
        """What it reads, and what it should."""
        self.conn.execute("SELECT set_config('plan_cache_mode', %s, false)", [plans])
        [values] = kit.query(self.conn, case.values)
        arguments = {key: kit.adapted(value) for key, value in values.items()}
        if case.is_call:
            reading = read_by_function(self.conn, case.asks, arguments)
        else:
            # The clock of the functions was moved; that of the server was not.
            shift = kit.value(self.conn, "SELECT shift::text FROM streamvibe.test_clock")
            text = case.asks.replace("NOW()", f"(NOW() + INTERVAL '{shift}')")
            reading = read_by_statement(self.conn, text, list(arguments.values()))
        if case.writes:
            # What was taken back would otherwise still be met by the next.
            self.conn.execute("VACUUM (INDEX_CLEANUP ON) public.job_queue")
        count = case.answer
        if plans == "force_generic_plan" and case.answer_of_generic:
            count = case.answer_of_generic
        answer = kit.value(self.conn, count) if count else reading.rows_returned
        return reading, Wanted(
            case.uses or (case.index,),
            case.may_use,
            case.index_only,
            rows=case.rows * answer + case.rows_a_leaf * self.leaves.count,
            buffers=case.buffers * answer + case.buffers_a_leaf * self.leaves.count,
            sorted=case.sorts * answer + 1,
        )

    def problems(self, case: Case, plans: str) -> dict[str, str]:
        """What is wrong with what it reads."""
        reading, wanted = self.read(case, plans)
        return problems(reading, self.leaves, wanted)


@pytest.fixture(scope="module")
def filled(server: Server) -> Iterator[Filled]:
    """60,000 jobs of 2,000 users and their log in four leaves, the last of them half full; 9 of 10 are finished."""
    with new_database(server, TEMPLATE) as database:
        conn = database.connect()
        # The middle of a partition, whatever day it is.
        database.advance_clock(
            kit.value(
                conn,
                "SELECT lower_at + interval '3.5 days' - clock_timestamp() FROM streamvibe.partition "
                "WHERE parent_name = 'job_queue' ORDER BY lower_at LIMIT 1 OFFSET 3",
            )
        )
        for name in ("sync_youtube", "email", "sync_instagram", "sync_tiktok", "report", "export"):
            kit.register(conn, name)
        kit.worker(conn, p_lease=kit.DAY)
        conn.execute(f"SELECT set_user_limit({MANY}, 1000)".encode())
        conn.execute("SELECT setseed(0.5)")
        conn.execute(FILL_JOBS, {"jobs": JOBS, "users": USERS})
        conn.execute(FILL_SAME.replace("%(user_id)s", SAME_AGAIN).encode())
        conn.execute(FILL_LOG)
        conn.execute("VACUUM ANALYZE public.job_queue, public.job_log")
        yield Filled(conn, leaves_of(conn))


PLANS = ["force_custom_plan", "force_generic_plan"]


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("name", QUERIES)
def test_query(filled: Filled, name: str, plans: str) -> None:
    """The index is used in every partition that has rows, reads what the answer is, and in its order."""
    assert filled.problems(QUERIES[name], plans) == {}


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(filled: Filled, name: str, plans: str) -> None:
    """The same of all statements inside a function that asks for the same."""
    assert filled.problems(FUNCTIONS[name], plans) == {}


# Answered almost as well by another index: I1, or I3, whose few entries have the time too.
REPLACEABLE = ("I7 live jobs", "I7 no live jobs", "I9 stuck")


@pytest.mark.parametrize("name", [name for name, case in QUERIES.items() if case.index != KEY])
def test_without_the_index(filled: Filled, name: str) -> None:
    """Were the index not there, the tests above would notice, by its name and by what is read instead."""
    case = QUERIES[name]
    with filled.conn.transaction(force_rollback=True):
        filled.conn.execute(f"DROP INDEX {case.index}".encode())
        found = filled.problems(case, "force_custom_plan")
    assert "index" in found
    assert found.keys() > {"index"} or name in REPLACEABLE
