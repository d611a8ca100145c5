"""The import contracts cover every room, and their exceptions are few."""

from __future__ import annotations

import tomllib

import pytest

from tests.support.project import ROOT

CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
}


def rooms() -> set[str]:
    """Every module and package right below `server`."""
    return {
        f"server.{entry.stem}"
        for entry in (ROOT / "server").iterdir()
        if entry.suffix == ".py" or (entry / "__init__.py").exists()
    } - {"server.__init__"}


@pytest.mark.parametrize(
    ("contract", "owners"),
    [
        ("postgres-in-storage", {"storage"}),
        ("protobuf-in-api", {"api", "cli", "console"}),
        ("http-servers", {"console", "observability", "receipts"}),
    ],
)
def test_every_room_but_the_owners_is_forbidden(contract: str, owners: set[str]) -> None:
    assert set(CONTRACTS[contract]["source_modules"]) == rooms() - {f"server.{owner}" for owner in owners}


@pytest.mark.parametrize("contract", [one for one in CONTRACTS if one.endswith("-rooms")])
def test_layers_are_exhaustive(contract: str) -> None:
    assert CONTRACTS[contract]["exhaustive"]


def test_there_are_five_exceptions_at_the_most() -> None:
    exceptions = [one for contract in CONTRACTS.values() for one in contract.get("ignore_imports", [])]
    assert len(exceptions) <= 5
    assert not [one for one in exceptions if "**" in one]
