"""Every client library passes its own checks, and its package works in an empty project."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from deploy.client_packages import CLIENTS, DESCRIPTORS, PACKAGES, version
from tests.clients.languages import LANGUAGES, Language


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_library_passes_its_own_checks(language: Language) -> None:
    language.require()
    language.check()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_package_works_in_an_empty_project(language: Language, tmp_path: Path) -> None:
    """The program that uses it prints a message's id and the version."""
    language.require()
    made, project = tmp_path / "made", tmp_path / "project"
    made.mkdir()
    project.mkdir()
    package = PACKAGES[language.name].make(made)
    assert {"client_service.proto", DESCRIPTORS} <= {Path(one).name for one in files_of(package)}
    assert language.use(package, project).split() == ["12884901888000005", version()]


def files_of(package: Path) -> list[str]:
    return tarfile.open(package).getnames() if package.suffix == ".tgz" else ZipFile(package).namelist()


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
