"""The gate's own tools work: drift and licences are noticed, and the Makefile says what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT

TARGETS = re.findall(r"^([a-z%-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_google_s_protos_are_those_of_the_installed_package() -> None:
    installed = Path(str(distribution("googleapis-common-protos").locate_file("google")))
    copies = sorted((ROOT / "protos" / "google").rglob("*.proto"))
    assert copies
    for copy in copies:
        original = installed / copy.relative_to(ROOT / "protos" / "google")
        assert copy.read_bytes() == original.read_bytes(), f"copy {copy.name} anew from googleapis-common-protos"


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
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def interpreter(folder: Path, body: str) -> str:
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_help_is_the_default_and_lists_every_target(checkout: Path) -> None:
    assert re.findall(r"^  ([a-z%-]+) ", make(checkout).stdout, re.MULTILINE) == TARGETS


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


def test_drift_names_files_that_differ_lack_or_are_left_over(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".ready").touch()
    generated = Path("clients/python/mailing/v1")
    for name in ("buf.yaml", "buf.gen.yaml"):
        shutil.copy(ROOT / name, checkout)
    for folder in (Path("protos"), generated):
        shutil.copytree(ROOT / folder, checkout / folder)
    (checkout / generated / "gone_pb2.py").touch()
    (checkout / generated / "client_pb2.pyi").write_text("")
    (checkout / generated / "message_pb2.py").unlink()
    before = {path: path.stat().st_mtime_ns for path in checkout.rglob("*")}
    ended = make(checkout, "drift")
    assert ended.returncode != 0
    *differences, advice = [line for line in ended.stderr.splitlines() if not line.startswith("make")]
    assert [re.sub(r"\S*/mailing/v1", "v1", line) for line in differences] == [
        "Files v1/client_pb2.pyi and v1/client_pb2.pyi differ",
        "Only in v1: gone_pb2.py",
        "Only in v1: message_pb2.py",
    ]
    assert "make generate" in advice
    assert {path: path.stat().st_mtime_ns for path in checkout.rglob("*")} == before


@pytest.mark.parametrize("licence", ["GPL-3.0-only", "MIT AND GPL-3.0-only", "see the file", ""])
def test_a_licence_nobody_looked_at_is_refused(tmp_path: Path, licence: str) -> None:
    (tmp_path / "odd-1.0.dist-info").mkdir()
    told = f"Metadata-Version: 2.4\nName: odd\nVersion: 1.0\n{licence and f'License-Expression: {licence}'}\n"
    (tmp_path / "odd-1.0.dist-info" / "METADATA").write_text(told)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [str(Path(sys.executable).with_name("pip-licenses")), "--packages", "odd"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "odd:1.0" in ended.stderr


def loaded(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_both_kinds_of_ci_call_the_gate_and_no_more() -> None:
    assert loaded(".gitlab-ci.yml")["check"]["script"] == ".ci/run"
    steps = loaded(".github/workflows/check.yml")["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "uses" not in step] == [".ci/run"]


def test_hooks_are_targets_of_the_gate_in_its_order() -> None:
    (gate,) = re.findall(r"^check: (.*) ##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    entries = [hook["entry"] for hook in loaded(".pre-commit-config.yaml")["repos"][0]["hooks"]]
    assert entries == [f"make {target}" for target in gate.split() if not target.startswith("test")]
