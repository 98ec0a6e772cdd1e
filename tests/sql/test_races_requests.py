"""Requests that arrive at the same moment: 200 connections really open behind one gate."""

from uuid import UUID, uuid4

from psycopg import IsolationLevel
from tests.sql import kit
from tests.sql.crowd import Answer, acall, crowd, tally
from tests.support.databases import Database

CROWD = 200
SAME = [{"channel": "UC1"}] * CROWD
DIFFERENT = [{"channel": f"UC{n}"} for n in range(CROWD)]
LOCKING_LEVELS = (None, IsolationLevel.READ_COMMITTED)
SNAPSHOT_LEVELS = (IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE)


def prepare(database: Database) -> UUID:
    """A registered type; a user."""
    kit.register(database.connect())
    return uuid4()


def take_rows(database: Database) -> int:
    """How many jobs there are; none afterwards."""
    count: int = database.fetch_value("SELECT count(*) FROM public.job_queue")
    database.connect().execute("TRUNCATE public.job_queue")
    return count


def show(what: str, database: Database, isolation: IsolationLevel | None, answers: list[Answer]) -> None:
    """The figures, for whoever runs this with pytest -s."""
    where = f"in own transactions, {isolation.name}" if isolation else "as single statements"
    print(f"\n{database.server.name}: 200 {what}, {where}: {tally(answers)}")


async def test_identical_requests_make_one_job(database: Database) -> None:
    """200 identical requests of one user at once: 1 created, 199 joined, one id, one row.

    As single statements, and in the callers' own transactions at READ COMMITTED.
    """
    user_id = prepare(database)
    async with crowd(database, [user_id] * CROWD) as members:
        for isolation in LOCKING_LEVELS:
            answers = await members.request(SAME, isolation=isolation)
            show("identical requests", database, isolation, answers)
            assert tally(answers) == {"created": 1, "joined": CROWD - 1}
            assert len({answer["job_id"] for answer in answers if isinstance(answer, dict)}) == 1
            assert take_rows(database) == 1


async def test_different_requests_stop_at_the_limit(database: Database) -> None:
    """200 different requests of one user at once: exactly 10 created and 190 refused with SV005.

    As single statements, and in the callers' own transactions at READ COMMITTED.
    """
    user_id = prepare(database)
    async with crowd(database, [user_id] * CROWD) as members:
        for isolation in LOCKING_LEVELS:
            answers = await members.request(DIFFERENT, isolation=isolation)
            show("different requests", database, isolation, answers)
            assert tally(answers) == {"created": 10, "SV005": CROWD - 10}
            assert take_rows(database) == 10


async def test_users_never_wait_for_each_other(database: Database) -> None:
    """200 users ask while another user's lock is held by an open transaction: all are answered meanwhile."""
    slow = prepare(database)
    holder = await database.aconnect("service_role", autocommit=False)
    [held] = await acall(holder, "request_job", p_user_id=slow, p_job_type="email")
    assert held["outcome"] == "created"
    async with crowd(database, [uuid4() for _ in range(CROWD)]) as members:
        for isolation in LOCKING_LEVELS:
            answers = await members.request(SAME, isolation=isolation)
            show("users beside a held lock", database, isolation, answers)
            assert tally(answers) == {"created" if isolation is None else "joined": CROWD}
    await holder.commit()
    assert take_rows(database) == CROWD + 1


async def test_snapshot_transactions_are_refused(database: Database) -> None:
    """At REPEATABLE READ and SERIALIZABLE no promise could hold: SV006 for all 200, nothing written.

    With dedupe, cache and limit off, the same transactions make one row each and none fails.
    """
    user_id = prepare(database)
    async with crowd(database, [user_id] * CROWD, service=True) as members:
        for isolation in SNAPSHOT_LEVELS:
            answers = await members.request(SAME, isolation=isolation)
            show("identical requests", database, isolation, answers)
            assert tally(answers) == {"SV006": CROWD}
            assert take_rows(database) == 0

            answers = await members.request(SAME, isolation=isolation, promises=False)
            show("identical requests with every promise off", database, isolation, answers)
            assert tally(answers) == {"created": CROWD}
            assert take_rows(database) == CROWD
