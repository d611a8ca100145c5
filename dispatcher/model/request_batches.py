"""Requests that carry many messages: the parts of the body around them, and where the answer has their results.

Immutable, made once by `dispatcher.model.requests`. Does no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.model.answers import Pointer
from dispatcher.model.placeholders import Composed, Values

WHOLE = Pointer()

MOST = 1000
"""The most messages of one request."""


@dataclass(frozen=True, slots=True)
class BatchText:
    """How a description says that a request carries up to `max` messages.

    `items` points to the list in the body whose only element describes one message. `results` points to the list
    of results in the answer, None where one answer holds for all; `id` to our message id in a result, None
    where results come in the order of the messages.
    """

    max: int
    items: Pointer = WHOLE
    results: Pointer | None = None
    id: Pointer | None = None


@dataclass(frozen=True, slots=True)
class BatchForm:
    """The same, compiled: a body is `head`, the `item` of each message between commas, and `tail`."""

    text: BatchText
    head: bytes
    item: Composed
    tail: bytes

    def body(self, messages: Sequence[Values]) -> bytes:
        """Return the body of a request for some messages."""
        return b"%b%b%b" % (self.head, b",".join(map(self.item, messages)), self.tail)
