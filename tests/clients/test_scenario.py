"""Every client library does the whole scenario against a real service, and all see the same.

The library of a language is skipped where the language's tools are missing; `make test-clients` says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.languages import DRIVERS, LANGUAGES, Language
from tests.clients.peers import reasons

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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", DRIVERS)
async def test_a_client_sees_what_the_scenario_says(
    language: Language, variables: dict[str, str], tmp_path: Path
) -> None:
    language.require()
    words = await asyncio.to_thread(language.build, tmp_path)
    found = differences(await transcript(words, variables, tmp_path), variables)
    assert not found, "\n".join(map(str, found))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_example_sends_a_mailing(language: Language, variables: dict[str, str], tmp_path: Path) -> None:
    language.require()
    words = await asyncio.to_thread(language.example, tmp_path)
    settings = os.environ | {"MAILING_TOKEN": variables["token"]}
    program = await asyncio.create_subprocess_exec(
        *words, variables["service"], env=settings, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(program.communicate(), 60)
    first, *_, last = out.decode().splitlines()
    assert (program.returncode, first.split(":")[0]) == (0, "new clients"), out.decode()
    assert re.fullmatch(r"(STATE_)?COMPLETED 2n? of 2n?", last), out.decode()


def test_the_scenario_has_every_error_reason() -> None:
    """Fails for a reason that is added to the contract alone."""
    (step,) = [step for step in SCENARIO if step["name"] == "every reason is named"]
    assert dict(zip(step["each"], step["expect"]["results.*.error.reason"], strict=True)) == {
        number: name for number, (_, name) in reasons().items()
    }
