"""Signals: how a part notifies the parts above it, which it does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVarTuple

Values = TypeVarTuple("Values")


class Signal(Generic[*Values]):
    """Calls its listeners one after the other, in the order in which they were connected."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[*Values], object]] = []

    def connect(self, listener: Callable[[*Values], object]) -> None:
        """Call `listener` from now on."""
        self._listeners.append(listener)

    def emit(self, *values: *Values) -> None:
        """Call all listeners with `values`."""
        for listener in self._listeners:
            listener(*values)
