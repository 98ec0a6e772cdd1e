"""A process that archives, or erases a user, and kills itself (SIGKILL) after one of its calls."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from uuid import UUID

from streamvibe.archive.control import Control
from streamvibe.archive.erase import erase_user
from streamvibe.archive.run import Archiver
from streamvibe.archive.store import Store

#: After each of these the world has changed, and the process may die.
CALLS = ((Control, "call"), (Control, "lead"), (Store, "put"), (Store, "delete"))


def forks() -> ForkServerContext:
    """Makes processes that have everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def work(dsn: str, user_id: UUID | None, die_at: int, counted: Path) -> None:
    """Archive, or erase a user; ``die_at`` the so manieth moment. Writes how many there were when it lives on."""
    passed = 0

    def moment() -> None:
        nonlocal passed
        passed += 1
        if passed == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(usual: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            try:
                return usual(*args, **options)
            finally:
                moment()

        return call

    for owner, name in CALLS:
        setattr(owner, name, watched(getattr(owner, name)))
    if user_id is None:
        with Archiver(dsn) as archiver:
            archiver.run(wait=True)
    else:
        erase_user(dsn, user_id, patience=30, report=lambda step, what: None)
    counted.write_text(str(passed))
