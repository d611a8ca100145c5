"""What is published of a client library works in an empty project: the program of its page sends a mailing there."""

from __future__ import annotations

import asyncio
import os
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from deploy.client_packages import DESCRIPTORS, PACKAGES
from tests.clients.languages import LANGUAGES, Language


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_page_s_program_works_in_an_empty_project(
    language: Language, variables: dict[str, str], tmp_path: Path
) -> None:
    language.require()
    made, project = tmp_path / "made", tmp_path / "project"
    made.mkdir()
    project.mkdir()
    package = await asyncio.to_thread(PACKAGES[language.name].make, made)
    assert {"client_service.proto", DESCRIPTORS} <= {Path(one).name for one in files_of(package)}
    program = language.first_program.replace("localhost:50051", variables["service"])
    words = await asyncio.to_thread(language.use, package, project, program)
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=project,
        env=os.environ | {"MAILING_TOKEN": variables["token"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out.decode().splitlines()[-1:]) == (0, ["1 of 1"]), out.decode()


def files_of(package: Path) -> list[str]:
    return tarfile.open(package).getnames() if package.suffix == ".tgz" else ZipFile(package).namelist()
