"""What calls return where a number alone would leave something out."""

from __future__ import annotations

from typing import Self


class DeletedMessages(int):
    """How many messages were deleted at once; `remaining` more are deleted by the service itself."""

    remaining: int

    def __new__(cls, deleted: int, remaining: int) -> Self:
        """Return a number that is `deleted`."""
        number = super().__new__(cls, deleted)
        number.remaining = remaining
        return number
