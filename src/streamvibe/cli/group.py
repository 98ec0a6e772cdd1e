"""A group of commands: its help says what each does in whole sentences, and other words lead to the right one."""

from typing import Any

from typer.core import TyperGroup
from typer.exceptions import TyperException

#: What people type for what is called otherwise here.
_SYNONYMS = {
    "add": "request",
    "create": "request",
    "delete": "cancel",
    "enqueue": "request",
    "get": "show",
    "ls": "list",
    "remove": "cancel",
    "rm": "cancel",
    "state": "show",
    "status": "show",
    "submit": "request",
}


class Commands(TyperGroup):
    """The class of every group."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The first sentence of each command's help, on two lines where one is too short."""
        rows = [
            (name, command.get_short_help_str(limit=1000))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None and not command.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant. What is unknown is refused with what it may be."""
        try:
            return super().resolve_command(ctx, args)
        except TyperException as error:
            meant = _SYNONYMS.get(args[0])
            if meant in self.commands and "Did you mean" not in error.message:
                error.message += f" Did you mean {meant!r}?"
            raise
