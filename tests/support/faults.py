"""Storage between which and its dispatcher answers and questions get lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from dispatcher.ports import Storage, StorageUnavailable


class FaultyStorage:
    """Has `ports` that ask the storage behind them, unless `fault` says otherwise for the named statement.

    `fault` returns "before" (the statement is never run), "after" (it is, and its answer is lost)
    or "". With `cut` nothing gets through any more: this is how a dispatcher dies that can take
    nothing back.
    """

    def __init__(self, storage: Storage, fault: Callable[[str], str]) -> None:
        self.cut = False
        self.fault = fault
        ports = {field.name: _FaultyPort(getattr(storage, field.name), self) for field in fields(storage)}
        self.ports = replace(storage, **ports)


class _FaultyPort:
    def __init__(self, port: object, storage: FaultyStorage) -> None:
        self._port = port
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        statement = getattr(self._port, name)
        storage = self._storage

        async def ask(*arguments: Any, **named: Any) -> Any:
            fault = "before" if storage.cut else storage.fault(name)
            if fault == "before":
                raise StorageUnavailable(f"{name} was lost")
            answer = await statement(*arguments, **named)
            if fault == "after" or storage.cut:
                raise StorageUnavailable(f"the answer to {name} was lost")
            return answer

        return ask
