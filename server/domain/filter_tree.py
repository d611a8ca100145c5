"""The tree between a filter and its text: AND, OR and NOT over single conditions, each with its place in the text."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TypeAlias

from server.domain.filters import ClientFilter


class Problem(Exception):
    """What is wrong with a text, and where."""

    def __init__(self, position: int, sentence: str) -> None:
        super().__init__(sentence)
        self.position = position
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Atom:
    """One condition: a filter with a single field of a single value. An empty one matches everybody."""

    chosen: ClientFilter
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """Matches whom the inner tree does not."""

    inner: Tree


@dataclass(frozen=True, slots=True)
class And:
    """Matches whom all parts match."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Matches whom some part matches."""

    parts: tuple[Tree, ...]


Tree: TypeAlias = Atom | Not | And | Or

EVERYBODY = Atom(ClientFilter())


def first_position(tree: Tree) -> int:
    """Return where the first condition of a tree stands in the text."""
    while not isinstance(tree, Atom):
        tree = tree.inner if isinstance(tree, Not) else tree.parts[0]
    return tree.position


def set_fields(chosen: ClientFilter) -> list[str]:
    """Return the names of the fields that a filter sets."""
    return [one.name for one in fields(chosen) if getattr(chosen, one.name)]
