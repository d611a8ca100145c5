"""Every client library does the whole scenario against a real service, and all see the same.

The library of a language is skipped where the language's tools are missing; `make test-clients` says so.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.clients.languages import DRIVERS, LANGUAGES, Language
from tests.clients.peers import reasons
from tests.clients.transcripts import SCENARIO, differences, transcript


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
