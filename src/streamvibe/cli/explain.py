"""``streamvibe explain``: what the database does inside one of the queue's questions, and what is wrong with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import psycopg
import typer

from streamvibe.cli.output import AsJson, database_dsn, print_json, print_remark, print_rows
from streamvibe.errors import InvalidArgument, translated

if TYPE_CHECKING:
    from streamvibe.bench.queries.catalog import Question


def explain_command(
    name: Annotated[
        str | None, typer.Argument(help="A question, or a part of its name; left out: list them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question of this queue, about jobs that are there, and print the plan of every statement inside.

    What writes is rolled back. For superusers, who may load auto_explain. Exit status 1 when something is worth a look.
    """
    from streamvibe.bench.queries.catalog import QUESTIONS, Samples
    from streamvibe.bench.queries.measure import ask
    from streamvibe.bench.queries.plans import LONG_PLANNING_MS, watched

    questions = [one for one in QUESTIONS if not one.disturbs and one.before is None]
    if name is None:
        if as_json:
            print_json({"items": [{"name": one.name, "sql": one.sql} for one in questions]})
        else:
            print_rows(("question", "sql"), ((one.name, one.sql) for one in questions))
        return
    question = _one(name, questions)
    with translated(), psycopg.connect(database_dsn(), autocommit=True) as conn:
        samples = Samples(conn)
        if "'bench'" in question.sql:
            conn.execute("SELECT heartbeat_worker('bench', p_lease := '1 minute')")
        for arguments in samples.each(6):  # as a session that has asked before
            took = ask(conn, question, arguments)
        with watched(conn) as plans:
            took = ask(conn, question, arguments)
        if "'bench'" in question.sql:
            conn.execute("SELECT unregister_worker('bench')")
    inside = plans[:-1] if len(plans) > 1 else plans
    verdicts = [verdict for plan in inside for verdict in plan.verdicts()]
    # Functions within functions count in each: what is left is an estimate from below.
    elsewhere = max(0.0, took - sum(plan.milliseconds for plan in inside))
    if elsewhere > LONG_PLANNING_MS:
        verdicts.append(
            f"{elsewhere:.1f} ms outside of its statements, which is planning: more statistics would help"
        )
    if as_json:
        print_json(
            {
                "name": question.name,
                "sql": question.sql,
                "milliseconds": round(took, 3),
                "statements": [
                    {"text": plan.text, "milliseconds": plan.milliseconds, "plan": plan.tree}
                    for plan in plans
                ],
                "verdicts": verdicts,
            }
        )
    else:
        print_remark(question.sql)
        print_remark(f"{took:.2f} ms, {len(plans)} statements, {elsewhere:.2f} ms of it outside of them")
        for plan in plans:
            print_remark("")
            print_remark(" ".join(plan.text.split())[:160])
            print_remark(f"  {plan.milliseconds:.3f} ms, {plan.blocks:,} blocks")
            _print_tree(plan.tree, 1)
        print_remark("")
        for verdict in verdicts or ["Nothing to complain of."]:
            print_remark(verdict)
    if verdicts:
        raise typer.Exit(1)


def _one(name: str, questions: "Sequence[Question]") -> "Question":
    found = [one for one in questions if one.name.lower() == name.lower()]
    found = found or [one for one in questions if name.lower() in one.name.lower()]
    if len(found) != 1:
        among = ", ".join(repr(one.name) for one in found or questions)
        raise InvalidArgument(
            f"{len(found)} questions have this in their name",
            field="NAME",
            received=name,
            fix=f"Use one of {among}",
        )
    return found[0]


def _print_tree(node: dict[str, Any], depth: int) -> None:
    what = node["Node Type"]
    if "Index Name" in node:
        what += f" using {node['Index Name']}"
    if "Relation Name" in node:
        what += f" on {node['Relation Name']}"
    elif "Function Name" in node:
        what += f" on {node['Function Name']}"
    loops = int(node.get("Actual Loops", 0))
    counted = f"{float(node.get('Actual Rows', 0)):,.0f} rows" + (f" x {loops:,}" if loops > 1 else "")
    removed = node.get("Rows Removed by Filter")
    blocks = int(node.get("Shared Hit Blocks", 0)) + int(node.get("Shared Read Blocks", 0))
    line = f"{what}: {counted if loops else 'not run'}, {blocks:,} blocks"
    print_remark("  " * depth + line + (f", {removed:,.0f} filtered out" if removed else ""))
    for child in node.get("Plans", ()):
        # Of the leaves that a plan left out nothing is worth a line.
        if child.get("Actual Loops", 0):
            _print_tree(child, depth + 1)
