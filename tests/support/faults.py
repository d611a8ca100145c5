"""A ledger between which and its dispatcher answers and questions get lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dispatcher.ports import StorageUnavailable


class FaultyLedger:
    """Asks the ledger behind it, unless `fault` says otherwise for the named statement.

    `fault` returns "before" (the statement is never run), "after" (it is, and its answer is lost)
    or "". With `cut` nothing gets through any more: this is how a dispatcher dies that can take
    nothing back.
    """

    def __init__(self, ledger: object, fault: Callable[[str], str]) -> None:
        self.cut = False
        self._ledger = ledger
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        statement = getattr(self._ledger, name)

        async def ask(*arguments: Any, **named: Any) -> Any:
            fault = "before" if self.cut else self._fault(name)
            if fault == "before":
                raise StorageUnavailable(f"{name} was lost")
            answer = await statement(*arguments, **named)
            if fault == "after" or self.cut:
                raise StorageUnavailable(f"the answer to {name} was lost")
            return answer

        return ask
