"""Every client library passes its own checks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deploy.client_packages import CLIENTS, version
from tests.clients.languages import LANGUAGES, Language


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_library_passes_its_own_checks(language: Language) -> None:
    language.require()
    language.check()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", LANGUAGES)
def test_programs_run_where_no_build_changes_them(language: Language, tmp_path: Path) -> None:
    """Maven removes classes before it makes them anew, and a program loads each when it first needs it."""
    language.require()
    words = " ".join([*language.build(tmp_path), *language.example(tmp_path)])
    assert not re.findall(rf"{re.escape(str(CLIENTS))}/\w+/(?:dist|target)\b", words)


def test_all_libraries_have_one_version() -> None:
    places = {
        "go/client.go": r'const Version = "(.+)"',
        "typescript/src/version.ts": r'VERSION = "(.+)"',
        "java/src/main/java/com/example/mailing/MailingClient.java": r'VERSION = "(.+)"',
        "java/pom.xml": r"<artifactId>mailing-client</artifactId>\n  <version>(.+)</version>",
    }
    found = {
        name: re.findall(pattern, (CLIENTS / name).read_text(encoding="utf-8")) for name, pattern in places.items()
    }
    found["typescript"] = [json.loads((CLIENTS / "typescript" / "package.json").read_text())["version"]]
    assert found == {place: [version()] for place in found}
