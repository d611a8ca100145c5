"""How many requests an endpoint bears at once.

Grows while more requests in flight bring more answers a second, and halves when the endpoint
asks for patience or stops answering in time.
"""

from __future__ import annotations

from dispatcher.model import ErrorClass

FIRST = 64
"""Requests in flight to begin with."""


class ConcurrencyLimit:
    """The limit of one endpoint, between 1 and `most`."""

    def __init__(self, most: int, first: int = FIRST) -> None:
        self.most = most
        self.value = min(first, most)

    def observe(self, duration: float, error_class: ErrorClass, in_flight: int) -> None:
        """Notes how one request went: its duration in seconds and its end."""
