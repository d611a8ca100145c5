"""Groups of commands that say where an unknown command is: `mailing attempts`, not `messages attempts`."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperGroup

_SHOWN = 3


class SuggestingGroup(TyperGroup):
    """Names commands of the whole program that are called like an unknown one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first argument names."""
        try:
            return super().resolve_command(ctx, args)
        except typer.TyperException as error:
            found = [] if "Did you mean" in error.message else _paths_like(ctx, args[0])
            if found:
                error.message = f"{error.message.rstrip('.')}. Did you mean {' or '.join(found[:_SHOWN])}?"
            raise


def _paths_like(ctx: Any, name: str) -> list[str]:
    """Return the paths, such as `mailing attempts`, of commands with this name or nearly so."""
    root = ctx.find_root()
    paths = list(_paths(root.command, root.info_name))
    near = set(get_close_matches(name, [path.rpartition(" ")[2] for path in paths]))
    return [f"'{path}'" for path in paths if path.rpartition(" ")[2] in near]


def _paths(command: Any, path: str) -> Iterator[str]:
    for name, below in getattr(command, "commands", {}).items():
        yield f"{path} {name}"
        yield from _paths(below, f"{path} {name}")
