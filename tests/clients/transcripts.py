"""Runs a driver through the scenario, and compares what it saw with what the scenario expects."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import yaml

SCENARIO: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "scenario.yaml").read_text(encoding="utf-8"))
WITHIN = 300.0
"""Seconds for the whole scenario."""


async def transcript(words: list[str], variables: dict[str, str], folder: Path) -> list[dict[str, Any]]:
    """Run a driver and return what it saw."""
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"variables": variables, "steps": SCENARIO}))
    process = await asyncio.create_subprocess_exec(
        *words, str(plan), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), WITHIN)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{out.decode()[-2000:]}\n{err.decode()[-4000:]}"
    return [json.loads(line) for line in out.decode().splitlines()]


def differences(seen: list[dict[str, Any]], variables: dict[str, str]) -> list[Any]:
    """Return the steps whose result is not the expected one."""
    assert [one["step"] for one in seen] == [step["name"] for step in SCENARIO]
    found = []
    for step, one in zip(SCENARIO, seen, strict=True):
        wanted = filled(step["expect"], variables)
        if one["seen"] != wanted:
            found.append((step["name"], wanted, one["seen"], one["error"]))
        variables |= one["saved"]
    return found


def filled(expected: Any, variables: dict[str, str]) -> Any:
    """Return what is expected with the variables' values in place of their names."""
    text = json.dumps(expected)
    for name, value in variables.items():
        text = text.replace(f"${{{name}}}", json.dumps(value)[1:-1])
    return json.loads(text)
