"""The gate's own tools work: drift is noticed, and the Makefile says what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from protos.drift import copied_differences, copied_drift, differences, drift
from tests.support.project import ROOT


def test_the_generated_code_is_what_the_protos_say() -> None:
    assert drift() == []


def test_drift_names_every_file_that_is_missing_left_over_or_different(tmp_path: Path) -> None:
    committed, fresh = tmp_path / "committed", tmp_path / "fresh"
    for folder, files in [
        (committed, {"old": "1", "same": "1", "other": "1"}),
        (fresh, {"same": "1", "other": "2", "new": "1"}),
    ]:
        (folder / "mailing").mkdir(parents=True)
        for name, content in files.items():
            (folder / "mailing" / f"{name}_pb2.py").write_text(content)
    (committed / "mailing" / "by_hand.py").write_text("")
    assert differences(committed, fresh) == [
        "mailing/new_pb2.py is missing",
        "mailing/old_pb2.py is left over from a proto that is gone",
        "mailing/other_pb2.py is out of date",
    ]


def test_google_s_protos_are_those_of_the_installed_package(tmp_path: Path) -> None:
    assert copied_drift() == []
    copies, originals = tmp_path / "copies", tmp_path / "originals"
    for folder, files in [(copies, {"same": "1", "other": "1", "own": "1"}), (originals, {"same": "1", "other": "2"})]:
        (folder / "api").mkdir(parents=True)
        for name, content in files.items():
            (folder / "api" / f"{name}.proto").write_text(content)
    assert copied_differences(copies, originals) == [
        "google/api/other.proto differs from googleapis-common-protos",
        "google/api/own.proto differs from googleapis-common-protos",
    ]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with the Makefile and what its environment is made from, and nothing else."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    for project in (tmp_path, tmp_path / "clients" / "python"):
        project.mkdir(parents=True, exist_ok=True)
        (project / "pyproject.toml").touch()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # A make that runs this test must not lend its flags and job slots to this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def interpreter(folder: Path, body: str) -> str:
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_help_is_the_default_and_lists_every_target(checkout: Path) -> None:
    listed = re.findall(r"^  ([a-z%-]+) ", make(checkout).stdout, re.MULTILINE)
    declared = re.findall(r"^([a-z%-]+):", (checkout / "Makefile").read_text(), re.MULTILINE)
    assert listed == declared


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("exit 127", "Python 3.11 or later is needed and none was found"),
        ("echo None", "Python 3.11 or later is needed and none was found"),
        ('case "$2" in *ensurepip*) exit 1;; *) echo 3.12;; esac', "apt install python3-venv"),
    ],
    ids=["no interpreter", "too old", "no venv module"],
)
def test_venv_says_what_is_missing(checkout: Path, body: str, sentence: str) -> None:
    ended = make(checkout, "venv", interpreter(checkout, body))
    assert ended.returncode != 0
    assert sentence in ended.stderr
    assert not (checkout / ".venv").exists()


def test_a_ready_environment_is_left_alone(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".ready").touch()
    assert make(checkout, "venv", interpreter(checkout, "exit 127")).returncode == 0
