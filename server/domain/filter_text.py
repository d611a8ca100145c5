"""Filters as text (AIP-160), such as `tag = "vip" AND attributes.age >= 30 AND NOT got(17)`.

`parse_filter` reads a text, `text_of` writes one in a normal form: equal filters have equal texts. Between the two
stands a tree of AND, OR and NOT over single conditions. Where AND and OR meet, parentheses are required: the standard
binds OR closer than AND, which nobody expects.
"""

from __future__ import annotations

from contextlib import suppress

from server.domain.errors import InvalidFilter
from server.domain.filter_building import built, tree_of
from server.domain.filter_reading import parsed
from server.domain.filter_tree import EVERYBODY, Problem
from server.domain.filter_writing import normal, written
from server.domain.filters import ClientFilter

MAX_TEXT = 4_000
"""Characters of a filter's text: reading them takes some 50 ms. Longer lists are sent as a message."""


def parse_filter(text: str, path: str) -> ClientFilter:
    """Return the filter of a text, unchecked; `path` is that of its field. Raise InvalidFilter."""
    if len(text) > MAX_TEXT:
        raise InvalidFilter(path, text, MAX_TEXT, f"must have at most {MAX_TEXT:,} characters, not {len(text):,}")
    try:
        return built(normal(parsed(text)))
    except Problem as problem:
        raise InvalidFilter(path, text, problem.position, problem.sentence) from None


def text_of(chosen: ClientFilter) -> str:
    """Return the normal text of a filter, '' for the one that matches everybody."""
    tree = normal(tree_of(chosen))
    with suppress(Problem):  # of one that nobody matches, its contradictions are written
        tree = normal(tree_of(built(tree)))
    return "" if tree == EVERYBODY else written(tree)
